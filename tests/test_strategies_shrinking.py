"""Cases shrink to ramps of two values and to the shortest history that shows a fault."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import count
from math import prod
from typing import Any

import pytest
from hypothesis import find

from bn_spec import Case, Config, Layer, State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.dtypes import Array
from bn_spec.case.script import identical
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    Backward,
    Forward,
    ResetRunningStats,
    Restore,
    Save,
    Set,
)
from bn_spec.strategies import REGIONS, Recipe, among, cases, chosen, histories, shapes, values
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from tests.common import examples
from tests.draws import RAMP, shape_of


def test_a_case_shrinks_to_a_ramp_of_two_values_on_a_layer_of_defaults() -> None:
    assert identical(
        find(cases(), lambda _: True, settings=examples(10)),
        Case(Config(1), None, (Forward(RAMP),)),
    )


def test_values_shrink_to_a_plain_ramp() -> None:
    assert find(chosen(values()), lambda _: True, settings=examples(10)) == Recipe(
        "ramp", 0, 0.0, 0
    )


@pytest.mark.parametrize("name", REGIONS)
def test_shapes_shrink_to_the_smallest_of_the_first_region(name: str) -> None:
    smallest = min(REGIONS[name], key=prod)
    assert find(chosen(shapes(name)), lambda _: True, settings=examples(10)) == smallest


@pytest.mark.parametrize("specimen", ["runvar-bias", "normalised-by-unbiased-variance"])
def test_a_fault_of_every_shape_is_shown_on_two_values(specimen: str) -> None:
    backend = f"bn_spec.specimens:{specimen.replace('-', '_')}"
    strategy = cases(momentum=(0.5,), shape=shapes("small", "spatial edge"))
    found = find(strategy, lambda case: bool(check(case, backend)), settings=examples(30))
    assert shape_of(found) == (2, 1, 1, 1)


def test_a_fault_of_several_channels_is_shown_on_the_smallest_of_them() -> None:
    found = find(cases(), lambda case: case.config.num_features > 1, settings=examples(120))
    assert sorted(shape_of(found)) == [1, 1, 2, 2]


def test_a_gradient_shrinks_to_a_ramp_in_c_order() -> None:
    smallest = find(
        cases(history=("forward with gradients", "backward")), lambda _: True, settings=examples(10)
    )
    assert identical(
        smallest, Case(Config(1), None, (Forward(RAMP, DIFFERENTIABLE), Backward(RAMP)))
    )


def test_a_history_shrinks_to_a_single_forward() -> None:
    assert find(chosen(histories()), lambda _: True, settings=examples(10)) == ["forward"]


@pytest.mark.parametrize(
    ("wanted", "shortest"),
    [
        pytest.param((Save, Forward, Restore), 3, id="back to a checkpoint"),
        pytest.param((Set, ResetRunningStats), 2, id="a reset after a change"),
    ],
)
def test_a_history_shrinks_to_the_shortest_that_has_what_is_looked_for(
    wanted: tuple[type, ...], shortest: int
) -> None:
    def has(case: Case) -> bool:
        steps = iter(case.steps)
        return all(any(isinstance(step, kind) for step in steps) for kind in wanted)

    found = find(
        cases(history=histories(), shape=among([(2, 1, 1, 1)])), has, settings=examples(300)
    )
    assert len(found.steps) == shortest


class Planted(Reference):
    """The reference with something wrong in each layer."""

    def __init__(self, fault: Callable[[Any], None]) -> None:
        self.fault = fault

    def layer(self, config: Config, state: State | None) -> Layer:
        layer = super().layer(config, state)
        self.fault(layer)
        return layer


def reset_forgets_the_counter(layer: Any) -> None:
    reset = layer.reset_running_stats

    def forgetful() -> None:
        count = layer.layer.num_batches_tracked
        reset()
        layer.layer.num_batches_tracked = count

    layer.reset_running_stats = forgetful


def the_fifth_batch_is_not_counted(layer: Any) -> None:
    record, batches = layer.layer.record, count(1)

    def forgetful(x: Array) -> Any:
        before = layer.layer.num_batches_tracked
        answer = record(x)
        if next(batches) == 5:
            layer.layer.num_batches_tracked = before
        return answer

    layer.layer.record = forgetful


def a_refusal_leaves_eval_mode(layer: Any) -> None:
    record = layer.layer.record

    def forgetful(x: Array) -> Any:
        try:
            return record(x)
        except ValueError:
            layer.layer.train()
            raise

    layer.layer.record = forgetful


def loading_into_an_eval_layer_does_nothing(layer: Any) -> None:
    load = layer.load

    def forgetful(tensors: Any, *, strict: bool) -> None:
        if layer.layer.training:
            load(tensors, strict=strict)

    layer.load = forgetful


@pytest.mark.parametrize(
    ("fault", "requirement", "shortest"),
    [
        (reset_forgets_the_counter, "STA-09", 2),
        (the_fifth_batch_is_not_counted, "STA-09", 5),
        (loading_into_an_eval_layer_does_nothing, "STA-09", 4),
        (a_refusal_leaves_eval_mode, "ERR-08", 6),
    ],
)
def test_a_fault_that_needs_a_past_is_shown_with_a_short_one(
    fault: Callable[[Any], None], requirement: str, shortest: int
) -> None:
    import_module(f"conformance.test_{requirement[:3].lower()}")
    prop = PROPERTIES[requirement]
    with pytest.raises(Violation) as found:
        Search(Cell(prop, Planted(fault), "float32"), PROFILES["ci"].settings(300)).examine()
    assert len(found.value.finding.case.steps) <= shortest
