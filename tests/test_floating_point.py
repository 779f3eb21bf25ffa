"""The floating-point mode of the process: changes are noticed, attributed and undone."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bn_spec import BnSpecError, BrokenBackend, Case, Config, Layer, State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import Gradients
from bn_spec.backend.floating_point import departures, restore
from bn_spec.backend.registry import load
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Backward, Eval, Forward, Step, Train
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.specimens.inaccurate import TOWARDS_ZERO
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

import_module("conformance.test_num")  # declares its properties

needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in TOWARDS_ZERO,
    reason="the modes of fesetround are those of glibc on x86 and ARM, where bn-spec restores them",
)
NOT_NEAREST = ("does not round to nearest",)
FLUSHED = ("flushes subnormal results to zero", "takes subnormal operands for zero")
X = np.arange(4, dtype=np.float32).reshape(2, 2, 1, 1)


def round_towards_zero() -> None:
    assert ctypes.CDLL(None).fesetround(TOWARDS_ZERO[platform.machine()]) == 0


@pytest.fixture(autouse=True)
def _default_mode() -> Iterator[None]:
    """Check that the mode is the default before a test, and restore the default after it."""
    assert departures() == ()
    yield
    restore()


class Flipping(Reference):
    """The reference, except that one of its parts makes the processor round towards zero."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.name = f"flipping-in-{part}".replace("_", "-")

    def flip_in(self, part: str) -> None:
        if part == self.part:
            round_towards_zero()

    def layer(self, config: Config, state: State | None) -> Layer:
        self.flip_in("layer")
        return _FlippingLayer(self, super().layer(config, state))

    def to_native(self, array: Array) -> Array:
        self.flip_in("to_native")
        return array


class _FlippingLayer:
    def __init__(self, backend: Flipping, layer: Any) -> None:
        self.flip_in = backend.flip_in
        self.layer = layer
        self.state = layer.state
        self.reset_running_stats = layer.reset_running_stats
        self.reset_parameters = layer.reset_parameters

    def train(self, mode: bool) -> None:
        self.flip_in("train")
        self.layer.train(mode)

    def forward(self, x: Array) -> Array:
        y: Array = self.layer.forward(x)
        self.flip_in("forward")
        return y

    def record(self, x: Array, wrt: tuple[str, ...]) -> tuple[Array, Any]:
        recorded: tuple[Array, Any] = self.layer.record(x, wrt)
        self.flip_in("record")
        return recorded

    def backward(self, record: Any, dy: Array) -> Gradients:
        gradients: Gradients = self.layer.backward(record, dy)
        self.flip_in("backward")
        return gradients


# The probe ----------------------------------------------------------------------------


def test_usually_nothing_departs() -> None:
    assert departures() == ()
    restore()
    assert departures() == ()


@needs_linux
def test_each_way_to_round_but_to_nearest_is_seen_and_set_back() -> None:
    library = ctypes.CDLL(None)
    # The mode has two bits; their place depends on the processor. Rounding towards zero sets both.
    shift = TOWARDS_ZERO[platform.machine()] // 3
    for mode in (1, 2, 3):
        assert library.fesetround(mode * shift) == 0
        assert departures() == NOT_NEAREST
        restore()
        assert departures() == ()


@needs_linux
def test_a_changed_mode_is_a_changed_result_until_it_is_set_back() -> None:
    one, sliver = np.float32(1), np.float32(2.0**-24 + 2.0**-26)
    assert one + sliver > 1
    round_towards_zero()
    truncated = one + sliver
    restore()
    assert truncated == 1 < one + sliver


@needs_linux
def test_flushed_subnormals_are_seen_and_set_back() -> None:
    torch = pytest.importorskip("torch", reason="it can flush subnormal numbers, and NumPy cannot")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    assert departures() == FLUSHED
    assert np.float32(2.0**-126) * np.float32(0.5) == 0
    restore()
    assert departures() == ()
    assert np.float32(2.0**-126) * np.float32(0.5) == 2.0**-127


# The step that is blamed --------------------------------------------------------------


@needs_linux
@pytest.mark.parametrize(
    ("part", "blamed"),
    [
        ("forward", [0, 3]),
        ("to_native", [0, 3, 4, 5]),
        ("train", [1, 2]),
        ("record", [4]),
        ("backward", [5]),
        ("nothing", []),
    ],
)
def test_a_change_is_noted_on_the_step_that_made_it_and_set_back(
    part: str, blamed: list[int]
) -> None:
    recorded = Forward(X + 2, ("input",)), Backward(X)
    case = Case(Config(2), None, (Forward(X), Eval(), Train(), Forward(X + 1), *recorded))
    answers = play(case, Flipping(part)).answers
    assert [answer.mode for answer in answers] == [
        NOT_NEAREST if i in blamed else () for i in range(6)
    ]
    assert departures() == ()


@needs_linux
@pytest.mark.parametrize("steps", [(), (Forward(X),)], ids=["no steps", "a step"])
def test_a_change_made_while_the_layer_is_built_is_set_back(steps: tuple[Step, ...]) -> None:
    answers = play(Case(Config(2), None, steps), Flipping("layer")).answers
    assert departures() == ()
    assert [answer.mode for answer in answers] == [NOT_NEAREST for _ in steps]


@needs_linux
def test_the_change_is_judged_where_it_happened_and_told() -> None:
    case = Case(Config(2), None, (Eval(), Forward(X)))
    verdict = judge(case, play(case, Flipping("forward")), ["floating_point_mode"], Accuracy())
    (found,) = verdict.discrepancies
    assert (found.observable, found.step) == ("floating_point_mode", 1)
    assert found.expected == "the floating-point mode of the process stays as it was"
    assert found.got == "after the call the process does not round to nearest"
    assert not judge(
        case, play(case, Reference()), ["floating_point_mode"], Accuracy()
    ).discrepancies


@needs_linux
def test_what_one_backend_does_to_the_mode_does_not_reach_the_next_one() -> None:
    case = Case(Config(2), None, (Forward(X),))
    play(case, SPECIMENS["rounding-mode-left-changed"])
    assert departures() == ()
    assert check(case, Reference()) == []


@needs_linux
@pytest.mark.parametrize("flip", [round_towards_zero, None], ids=["already changed", "as usual"])
def test_a_backend_that_leaves_a_mode_as_it_found_it_is_not_blamed(
    flip: Callable[[], None] | None,
) -> None:
    if flip:
        flip()
    before = departures()
    answers = play(Case(Config(2), None, (Forward(X), Forward(X))), Reference()).answers
    assert [answer.mode for answer in answers] == [(), ()]
    assert departures() == before


# Loading ------------------------------------------------------------------------------

FLIPS_WHEN_IMPORTED = f"""
import ctypes
from bn_spec.backend.adapters.reference_backend import Reference
ctypes.CDLL(None).fesetround({TOWARDS_ZERO.get(platform.machine(), 0)})
backend = Reference()
"""
FLIPS_WHEN_CALLED = f"""
import ctypes
from bn_spec.backend.adapters.reference_backend import Reference

def backend():
    ctypes.CDLL(None).fesetround({TOWARDS_ZERO.get(platform.machine(), 0)})
    return Reference()
"""


@needs_linux
@pytest.mark.parametrize(
    "text", [FLIPS_WHEN_IMPORTED, FLIPS_WHEN_CALLED], ids=["imported", "called"]
)
def test_a_backend_whose_loading_changes_the_mode_is_refused_with_what_to_do(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "fast_math.py"
    path.write_text(text)
    name = f"{path}:backend"
    with pytest.raises(BrokenBackend) as refused:
        load(name)
    assert str(refused.value) == (
        f"backend {name!r}: since it was loaded, this process does not round to nearest;"
        " a library built with -ffast-math does that. Build the library without this option"
    )
    assert departures() == ()


@needs_linux
def test_a_backend_that_leaves_a_changed_mode_alone_is_loaded() -> None:
    round_towards_zero()
    assert load("bn_spec.backend.adapters.reference_backend:Reference").name == "reference"
    assert departures() == NOT_NEAREST


# Judging ------------------------------------------------------------------------------


def search_of(backend: str) -> Search:
    prop = PROPERTIES["NUM-12"]
    return Search(Cell(prop, SPECIMENS[backend], "float32"), PROFILES["smoke"].settings())


@needs_linux
@pytest.mark.parametrize("backend", ["two-pass-sequential", "flushes-subnormals"])
def test_a_cell_refuses_to_judge_in_a_process_whose_mode_departs(backend: str) -> None:
    search = search_of(backend)
    round_towards_zero()
    with pytest.raises(
        BnSpecError, match="before any call, this process does not round to nearest: "
    ):
        search.examine()
    assert search.tally.examples == 0
    restore()
    search.examine()
    assert search.tally.judged > 0


@needs_linux
def test_a_backend_that_changes_the_mode_is_caught_by_its_requirement_and_by_no_other() -> None:
    with pytest.raises(Violation) as found:
        search_of("rounding-mode-left-changed").examine()
    assert found.value.finding.discrepancy.observable == "floating_point_mode"
    assert departures() == ()
