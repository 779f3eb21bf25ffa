"""Words that change a layer: checkpoints, loads, new attributes and folds."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.steps import Fold, Load, Restore, Set
from bn_spec.oracle.expectation import refusal_to_load
from bn_spec.strategies import ABSENT, EPS, MOMENTA, RUNNING_STYLES, cases, shapes
from tests.draws import cases_of_history, drawn, each_dtype


@pytest.mark.parametrize(
    ("word", "step"),
    [
        ("restore", Restore(-1)),
        ("restore the first", Restore(0)),
        ("restore into a new layer", Restore(-1, fresh=True)),
    ],
)
def test_a_checkpoint_is_restored_whole(word: str, step: Restore) -> None:
    assert {case.steps[-1] for case in cases_of_history("save", "forward", "save", word)} == {step}


def test_each_tensor_is_restored_alone_and_beside_others_and_only_those_that_the_layer_has() -> (
    None
):
    met = set()
    for case in drawn(
        cases(history=("save", "restore some tensors"), running=(*RUNNING_STYLES, ABSENT)), 150
    ):
        for step in case.steps[1:]:
            assert isinstance(step, Restore)
            assert step.of == -1
            assert not step.fresh
            assert set(step.only) <= initial_state(case.config).tensors().keys()
            met.add(step.only)
    assert {(name,) for name in STATE_FIELDS} <= met
    assert {len(names) for names in met} == {1, 2}


@each_dtype
def test_a_state_that_is_loaded_is_one_that_the_layer_can_be_built_with(dtype: str) -> None:
    met = drawn(cases(dtype=dtype, history=("load",), running=(*RUNNING_STYLES, ABSENT)), 50)
    for case in met:
        held = initial_state(case.config).tensors()
        for step in case.steps:
            assert isinstance(step, Load)
            assert step.strict
            given = {name: (a.shape, a.dtype) for name, a in step.tensors().items()}
            assert given == {name: (a.shape, a.dtype) for name, a in held.items()}
    assert sum(bool(case.steps) for case in met) > len(met) / 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("load without one tensor", "is missing"),
        ("load another size", r"has shape \(4,\), the layer's \(3,\)"),
        ("load another rank", r"has shape \(2, 3\), the layer's \(3,\)"),
    ],
)
def test_each_tensor_but_the_counter_is_wrong_in_turn_and_must_be_refused(
    word: str, reason: str
) -> None:
    met = set()
    for case in cases_of_history(word, number=60):
        (step,) = case.steps
        assert isinstance(step, Load)
        refusal = refusal_to_load(initial_state(case.config), step)
        assert refusal is not None
        name, _, why = refusal.reason.partition(" ")
        assert re.fullmatch(reason, why)
        met.add(name)
    assert met == set(STATE_FIELDS[:4])


@pytest.mark.parametrize(
    ("word", "name", "choices"),
    [("set eps", "eps", EPS[:3]), ("set momentum", "momentum", MOMENTA[:4])],
)
def test_an_attribute_is_set_to_one_of_the_choices(
    word: str, name: str, choices: tuple[float | None, ...]
) -> None:
    met = {case.steps[0] for case in cases_of_history(word, number=50, **{name: choices})}
    assert met == {Set(name, value) for value in choices}


def test_momentum_is_not_set_to_none_where_that_is_not_claimed() -> None:
    claims = replace(EVERYTHING, cumulative_momentum=False)
    assert Set("momentum", None) not in {
        case.steps[0] for case in cases_of_history("set momentum", number=50, claims=claims)
    }


@each_dtype
def test_a_layer_is_folded_into_convolutions_of_every_form(dtype: str) -> None:
    met = set()
    for case in drawn(cases(dtype=dtype, history=("eval", "fold"), shape=shapes("tiny")), 60):
        step = case.steps[-1]
        assert isinstance(step, Fold)
        channels = case.config.num_features
        assert len(step.weight) == channels
        assert step.weight.dtype == DTYPES[dtype].data.dtype
        assert step.bias is None or (step.bias.shape, step.bias.dtype) == (
            (channels,),
            step.weight.dtype,
        )
        met.add((step.weight.shape[1:], step.bias is None))
    assert met == {
        (kernel, bare) for kernel in ((1, 1, 1), (2, 3, 3), (3, 1, 2)) for bare in (True, False)
    }
