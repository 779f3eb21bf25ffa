"""Cases are counted by the regions that they reach; a property that misses its own is vacuous."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Capabilities, Case, Config, ConfigError
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import LAYOUTS, PLACED, layout_of
from bn_spec.case.steps import Backward, Eval, Forward, Restore, Save, Set, Step
from bn_spec.report.records import PASS, Record, Run
from bn_spec.report.table import summary
from bn_spec.specification.requirement import CHAPTERS
from bn_spec.strategies import cases, histories, shapes
from bn_spec.strategies.case_choices import Choices
from bn_spec.suite.cell import Cell
from bn_spec.suite.chapters import requirement_named
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES, Property
from bn_spec.suite.regions import (
    AXES,
    CONSTANT,
    NOT_FINITE,
    REGIONS,
    Wanted,
    alternatives,
    decades,
    reached,
    unreached,
)
from bn_spec.suite.search import Search, Vacuous
from tests.common import examples

for _chapter in CHAPTERS:  # importing a chapter declares its properties
    import_module(f"conformance.test_{_chapter.lower()}")


def forward(values: Any, shape: tuple[int, ...]) -> Forward:
    return Forward(np.resize(np.array(values, np.float32), shape))


PLAIN = forward([0, 1], (2, 1, 1, 1))


def of_axis(axis: str, case: Case) -> set[str]:
    return reached(case) & set(AXES[axis].regions)


def case_of(*steps: Step, channels: int = 1, **arguments: Any) -> Case:
    return Case(Config(channels, **arguments), steps=steps)


@pytest.mark.parametrize(
    ("values", "regions"),
    [
        ([-1, 1], {"mean/σ 1e-8"}),
        ([0, 2], {"mean/σ 1e0"}),
        ([99, 101], {"mean/σ 1e2"}),
        ([-99_999, -100_001], {"mean/σ 1e5"}),
        ([7, 7], {CONSTANT}),
        ([np.nan, 1], {NOT_FINITE}),
        ([np.inf, 1], {NOT_FINITE}),
    ],
)
def test_the_mean_is_told_in_decades_of_the_standard_deviation(
    values: list[float], regions: set[str]
) -> None:
    assert of_axis("mean/σ", case_of(forward(values, (2, 1, 1, 1)))) == regions


@pytest.mark.parametrize(
    ("half", "eps", "region"),
    [(1, 1.0, "1e0"), (1, 100.0, "1e-2"), (1e3, 1e-3, "1e8"), (1e-6, 1.0, "1e-8")],
)
def test_the_variance_is_told_in_decades_of_eps(half: float, eps: float, region: str) -> None:
    case = case_of(forward([-half, half], (2, 1, 1, 1)), eps=eps)
    assert of_axis("var/eps", case) == {f"var/eps {region}"}


def test_an_eps_that_is_set_counts_for_the_inputs_after_it() -> None:
    step = forward([-1, 1], (2, 1, 1, 1))
    assert of_axis("var/eps", case_of(step, Set("eps", 100.0), step, eps=1.0)) == {
        "var/eps 1e0",
        "var/eps 1e-2",
    }


def test_each_channel_is_told_by_itself() -> None:
    x = np.array([[0, 99, 7], [2, 101, 7]], np.float32).reshape(2, 3, 1, 1)
    assert of_axis("mean/σ", case_of(Forward(x), channels=3)) == {
        "mean/σ 1e0",
        "mean/σ 1e2",
        CONSTANT,
    }


@pytest.mark.parametrize(
    ("shape", "n", "c"),
    [
        ((1, 1, 1, 1), "n = 1", "C = 1"),
        ((2, 2, 1, 1), "n = 2", "C = 2"),
        ((1, 64, 4, 4), "n 3-16", "C 17-64"),
        ((1, 65, 1, 17), "n 17-64", "C 65-256"),
        ((4097, 1, 1, 1), "n > 4096", "C = 1"),
    ],
)
def test_values_and_channels_are_counted(shape: tuple[int, ...], n: str, c: str) -> None:
    case = case_of(forward([0, 1], shape), channels=shape[1])
    assert (of_axis("n", case), of_axis("C", case)) == ({n}, {c})


def test_a_single_value_is_no_constant_channel() -> None:
    assert of_axis("mean/σ", case_of(forward([3], (1, 1, 1, 1)))) == set()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_by_its_strides(layout: str) -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert layout_of(PLACED[layout](x[:, :, :1] if layout == "ambiguous" else x)) == layout


def test_the_layout_of_a_gradient_counts_too() -> None:
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    case = case_of(Forward(x, ("input",)), Backward(PLACED["cropped"](x)), channels=3)
    assert of_axis("layout", case) == {"contiguous", "cropped"}


def test_a_gradient_that_is_not_finite_counts_too() -> None:
    x = np.ones((2, 1, 1, 1), np.float32)
    case = case_of(Forward(x, ("input",)), Backward(x * np.float32(np.nan)))
    assert NOT_FINITE in reached(case)


@pytest.mark.parametrize(
    ("momentum", "region"),
    [(None, "None"), (0.0, "0"), (0, "0"), (1, "1"), (0.1, "between"), (0.999, "between")],
)
def test_momenta_fall_into_four_classes(momentum: float | None, region: str) -> None:
    assert of_axis("momentum", case_of(PLAIN, momentum=momentum)) == {f"momentum {region}"}


def test_a_momentum_that_is_set_counts_beside_the_one_before() -> None:
    case = case_of(PLAIN, Set("momentum", 0.0), PLAIN)
    assert of_axis("momentum", case) == {"momentum between", "momentum 0"}


@pytest.mark.parametrize(
    ("steps", "region"),
    [
        (1, "1 step"),
        (2, "2-5 steps"),
        (5, "2-5 steps"),
        (6, "6-10 steps"),
        (20, "11-20 steps"),
        (21, "> 20 steps"),
    ],
)
def test_histories_are_told_by_their_length(steps: int, region: str) -> None:
    assert of_axis("history", case_of(*[PLAIN] * steps)) == {region}


def test_the_kinds_of_steps_are_counted_once_each() -> None:
    case = case_of(PLAIN, Save(), Eval(), PLAIN, Restore())
    assert of_axis("step", case) == {"Forward", "Save", "Eval", "Restore"}


@pytest.mark.parametrize("x", [np.zeros((0, 1, 1, 1), np.float32), np.zeros((2, 1, 1), np.float32)])
def test_an_input_that_is_empty_or_refused_reaches_no_region_of_values(x: Array) -> None:
    assert not any(
        of_axis(axis, case_of(Forward(x))) for axis in ("mean/σ", "var/eps", "n", "C", "layout")
    )


@examples(100)
@given(cases(history=histories(), layouts=LAYOUTS))
def test_any_case_reaches_regions_that_there_are(case: Case) -> None:
    assert reached(case) <= REGIONS
    assert of_axis("dtype", case) == {"float32"}
    assert of_axis("momentum", case)


def test_no_two_axes_share_a_region() -> None:
    assert len(REGIONS) == sum(len(axis.regions) for axis in AXES.values())


# What a property is about -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "claims", "dtype", "missed"),
    [
        ("n = 2", {}, "float32", True),
        ("sliced", {}, "float32", True),
        ("sliced", {"layouts": ("contiguous",)}, "float32", False),
        ("momentum None", {}, "float32", True),
        ("momentum None", {"cumulative_momentum": False}, "float32", False),
        ("Backward", {"gradients": False}, "float32", False),
        ("Restore", {"checkpoints": False}, "float32", False),
        ("mean/σ 1e5", {}, "float32", True),
        ("mean/σ 1e5", {}, "bfloat16", False),
        ("mean/σ 1e2", {}, "bfloat16", False),
        ("mean/σ 1e1", {}, "float16", True),
        (decades("mean/σ", 1, 5), {}, "float16", True),
        (decades("mean/σ", 4, 5), {}, "float16", False),
    ],
)
def test_a_region_is_missed_only_where_it_could_be_reached(
    region: Wanted, claims: dict[str, Any], dtype: str, missed: bool
) -> None:
    assert unreached([region], {}, replace(EVERYTHING, **claims), dtype) == [region] * missed


def test_one_of_several_regions_is_enough() -> None:
    wanted = decades("var/eps", -2, 0)
    assert wanted == ("var/eps 1e-2", "var/eps 1e-1", "var/eps 1e0")
    assert unreached([wanted], {"var/eps 1e-1": 1}, EVERYTHING, "float32") == []
    assert unreached([wanted], {"var/eps 1e1": 1}, EVERYTHING, "float32") == [wanted]


def search_of(reaches: tuple[Wanted, ...], examples: int = 100, share: float = 1.0) -> Search:
    choices = Choices(shape=shapes("tiny"), momentum=(1.0,))
    prop = Property(
        requirement_named("RUN-03"),
        lambda cell, case: cell.judge(case, "running_var"),
        choices,
        reaches=reaches,
    )
    return Search(
        Cell(prop, Reference(), "float32"), PROFILES["ci"].settings(examples), share=share
    )


def test_a_property_that_never_reaches_its_region_is_vacuous() -> None:
    with pytest.raises(
        Vacuous, match=r"RUN-03: 100 examples, none of which reached n > 4096, or momentum 0"
    ):
        search_of(("n > 4096", "momentum 1", "momentum 0")).examine()


@pytest.mark.parametrize(
    "search",
    [
        search_of(("n 3-16", "momentum 1")),
        search_of((("n > 4096", "n 3-16"),)),
        search_of(("n > 4096",), examples=99),
        search_of(("n > 4096",), share=0.3),
    ],
    ids=[
        "reached",
        "one of two reached",
        "fewer examples than in ci",
        "another dtype has them all",
    ],
)
def test_it_is_not_where_it_did_or_where_too_little_was_looked_at(search: Search) -> None:
    search.examine()
    assert search.tally.reached["momentum 1"] == search.tally.examples > 0


def test_a_region_that_is_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"region 'n = 3' is not known; .*; did you mean 'n = "):
        search_of((("n = 2", "n = 3"),))


def test_what_the_properties_of_the_suite_are_about_can_be_reached() -> None:
    named = {
        region
        for prop in PROPERTIES.values()
        for wanted in prop.reaches
        for region in alternatives(wanted)
    }
    assert len(named) > 25
    assert named <= REGIONS
    assert {
        "expanded",
        "momentum None",
        "n = 1",
        CONSTANT,
        NOT_FINITE,
        "11-20 steps",
        "DoubleBackward",
    } <= named


# The report ---------------------------------------------------------------------------------------


def test_the_summary_adds_up_what_all_cells_reached_and_shows_what_none_did() -> None:
    counts = [{"n = 2": 1200, "momentum 0": 1, "Save": 2}, {"n = 2": 34, "float64": 5}]
    run = Run(
        [Record("RUN-01", "mine", "float32", PASS, examples=1000, reached=one) for one in counts]
    )
    lines = [" ".join(line.split()) for line in summary(run)]
    assert "regions, and how many of 2,000 cases reached each:" in lines
    assert (
        "n: = 1 (0), = 2 (1,234), 3-16 (0), 17-64 (0), 65-256 (0), 257-4096 (0), > 4096 (0)"
        in lines
    )
    assert "momentum: 0 (1), 1 (0), None (0), between (0)" in lines


def test_a_backend_of_few_claims_is_not_vacuous() -> None:
    claims = Capabilities(layouts=("contiguous",), cumulative_momentum=False)
    search = search_of(("sliced", "momentum None", "momentum 1"))
    search.cell.backend = _Modest(claims)
    search.examine()
    assert not search.unreached


class _Modest(Reference):
    def __init__(self, claims: Capabilities) -> None:
        self.capabilities = claims
