"""The table of steps: one row for each class, and what follows from it elsewhere."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pytest

import bn_spec.case
from bn_spec.backend.claims import EVERYTHING
from bn_spec.backend.needs import is_claimed
from bn_spec.case import Case, Config
from bn_spec.case.encoding import decode, encode, fetch_inline, place_inline
from bn_spec.case.script import identical
from bn_spec.case.steps import (
    STEP_KINDS,
    STEPS,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    StepKind,
    Train,
)
from bn_spec.strategies import WORDS
from bn_spec.suite.regions import REGIONS

X = np.arange(4, dtype=np.float32).reshape(2, 1, 1, 2)
KERNEL = np.ones((1, 1, 1, 1), np.float32)
EXAMPLES: dict[type[Any], tuple[Step, ...]] = {
    Train: (Train(),),
    Eval: (Eval(),),
    Forward: (Forward(X),),
    Backward: (Forward(X, ("input",)), Backward(X)),
    DoubleBackward: (Forward(X, ("input",)), DoubleBackward(X, X)),
    ResetRunningStats: (ResetRunningStats(),),
    ResetParameters: (ResetParameters(),),
    Save: (Save(),),
    Restore: (Save(), Restore()),
    Load: (Load(weight=np.ones(1, np.float32), strict=False),),
    Set: (Set("eps", 0.5),),
    Fold: (Eval(), Fold(KERNEL)),
}
"""Histories that end with a step of each kind."""

each_kind = pytest.mark.parametrize(
    "kind", STEP_KINDS.values(), ids=lambda kind: kind.step.__name__
)


def test_every_step_has_a_row() -> None:
    assert set(STEP_KINDS) == set(get_args(Step)) == set(EXAMPLES)
    assert list(STEPS.values()) == list(STEP_KINDS)


@each_kind
def test_a_step_needs_the_claim_of_its_row(kind: StepKind) -> None:
    case = Case(Config(1), steps=EXAMPLES[kind.step])
    assert is_claimed(case, EVERYTHING)
    if kind.claim:
        lacking: Any = () if isinstance(getattr(EVERYTHING, kind.claim), tuple) else False
        assert not is_claimed(case, replace(EVERYTHING, **{kind.claim: lacking}))


@each_kind
def test_a_wording_tells_one_step_from_all_others(kind: StepKind) -> None:
    wordings = {other: STEP_KINDS[other].wording(steps[-1], 1) for other, steps in EXAMPLES.items()}
    own = wordings.pop(kind.step)
    assert own
    assert own not in wordings.values()


@each_kind
def test_a_step_is_encoded_with_all_its_fields(kind: StepKind) -> None:
    case = Case(Config(1), steps=EXAMPLES[kind.step])
    script = encode(case, place_inline)
    names = {field.name for field in fields(kind.step)}
    assert script["steps"][-1].keys() == names | {"step"}
    assert identical(decode(script, fetch_inline), case)


@each_kind
def test_a_step_is_a_region(kind: StepKind) -> None:
    assert kind.step.__name__ in REGIONS


@each_kind
def test_the_word_of_a_row_is_a_word_of_histories(kind: StepKind) -> None:
    assert not kind.word or WORDS[kind.word].claims == ((kind.claim,) if kind.claim else ())


@each_kind
def test_a_printed_case_can_name_the_step(kind: StepKind) -> None:
    assert kind.step.__name__ in bn_spec.case.__all__
    assert getattr(bn_spec.case, kind.step.__name__) is kind.step
