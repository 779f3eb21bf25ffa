"""The tutorial ``examples/walkthrough.py``: it runs, and what it prints is true."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="the walkthrough compares with PyTorch")

SCRIPT = Path(__file__).parents[1] / "examples" / "walkthrough.py"


@pytest.fixture(scope="module")
def walkthrough() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walkthrough", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["walkthrough"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_script_tells_the_whole_story_and_succeeds(walkthrough: ModuleType) -> None:
    told = subprocess.run(
        [sys.executable, "-X", "utf8", SCRIPT], capture_output=True, encoding="utf-8", check=False
    )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert [line for line in lines if line in walkthrough.PARTS] == list(walkthrough.PARTS)
    assert max(map(len, lines)) <= 100
    for line in (
        "  weight                  shape (16,)             float32                 all 1.0",
        "  running_var             shape (16,)             float32                 all 1.0",
        "  result − itself         0                       0",
        "  affine_ignored: 0 discrepancies on the friendly case; caught by",
        "  RUN-01  running_mean becomes (1 − momentum) · running_mean"
        " + momentum · mean of the batch",
        "  AttributeError: 'BatchNorm2d' object has no attribute 'runing_var'",
    ):
        assert line in lines


def test_a_claim_that_does_not_hold_stops_the_script(walkthrough: ModuleType) -> None:
    with pytest.raises(AssertionError, match="does not hold: two is three"):
        walkthrough.require(False, "two is three")


def test_normalising_brings_the_slope_of_the_sigmoid_back(walkthrough: ModuleType) -> None:
    slopes = walkthrough.why()
    assert slopes.steepest == 0.25
    assert slopes.spread < 0.05 < 0.2 < slopes.normalised


def test_both_libraries_build_the_same_five_tensors(walkthrough: ModuleType) -> None:
    ours, theirs = walkthrough.set_up().values()
    for (name, a), (_, b) in zip(ours.items(), theirs.items(), strict=True):
        assert a.dtype == b.dtype, name
        assert a.tolist() == b.tolist(), name


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_the_honest_computation_uses_less_than_the_whole_bound(
    walkthrough: ModuleType, part: str
) -> None:
    shares = getattr(walkthrough, part)()
    assert {"bn_spec", "torch"} <= shares.keys()
    assert all(0 < share < 1 for by_tensor in shares.values() for share in by_tensor.values())


def test_the_unbiased_output_is_beyond_the_bound_by_a_factor(walkthrough: ModuleType) -> None:
    on_tutorial, found = walkthrough.wrong_formula()
    assert on_tutorial.observable == found.discrepancy.observable == "output"
    assert 1 < on_tutorial.factor < found.discrepancy.factor
    assert next(found.case.forwards()).size == 2


def test_a_result_minus_itself_is_0_for_right_and_wrong_layers(walkthrough: ModuleType) -> None:
    checks = walkthrough.check_that_cannot_fail()
    assert checks.cannot_fail == (0, 0)
    assert checks.can_fail[0] <= 1 < checks.can_fail[1]


def test_the_mean_absolute_error_hides_what_the_worst_element_shows(
    walkthrough: ModuleType,
) -> None:
    errors = walkthrough.averaged_away()
    assert errors["by_hand"].worst_share < 1
    for hidden in ("unbiased_last_channel", "last_element_forgotten"):
        assert errors[hidden].mean_absolute < errors["unbiased"].mean_absolute
        assert errors[hidden].worst_share > 1


def test_friendly_values_hide_faults_that_drawn_values_show(walkthrough: ModuleType) -> None:
    found = walkthrough.hidden_by_friendly_values()
    assert {name: caught.discrepancy.observable for name, caught in found.items()} == {
        "affine_ignored": "output",
        "history_ignored": "running_mean",
        "momentum_inverted": "running_mean",
    }
    assert all(caught.discrepancy.factor > 1 for caught in found.values())


def test_misspelt_names_are_reported(walkthrough: ModuleType) -> None:
    ours, theirs, finding = walkthrough.misspelt_names()
    assert "'runing_var'" in ours
    assert "'runing_var'" in theirs
    assert "raised AttributeError" in finding
    assert "'maen'" in finding
