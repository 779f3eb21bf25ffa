"""A layer of two channels, a step of every kind, and helpers to compare what was observed."""

from typing import Any

import numpy as np

from bn_spec import Case, Config, State
from bn_spec.case.arrays import same_bits
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED, spread
from bn_spec.case.steps import (
    DIFFERENTIABLE,
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
    Train,
)
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.observation import Answer, Observation

X = PLACED["cropped"](np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
OTHER = PLACED["cropped"](X + 1)
DY = PLACED["cropped"](X[::-1])
KERNEL = PLACED["cropped"](np.arange(4, dtype=np.float32).reshape(2, 1, 2, 1))
ONE, TWO, THREE, FOUR = (spread(np.full(2, number, np.float32), 3) for number in (1, 2, 3, 4))
"""All with gaps between their elements."""

STATE = State(ONE, TWO, THREE, FOUR, np.array(5))
ASKED = Forward(X, DIFFERENTIABLE)
DOUBLE = DoubleBackward(DY, X, ONE, TWO)
LOAD = Load(ONE, bias=TWO, strict=False)
FOLD = Fold(KERNEL, ONE)

SILENT = (
    *(
        Train(),
        Eval(),
        ResetRunningStats(),
        ResetParameters(),
        Save(),
        Restore(),
        Restore(0, ("bias",)),
    ),
    *(Restore(fresh=True), Set("eps", 0.5), Load(strict=False)),
)
"""Steps that hand no tensors over."""

EACH = (
    ASKED,
    Backward(DY),
    DOUBLE,
    *SILENT[:4],
    Save(),
    Restore(),
    LOAD,
    Set("eps", 0.5),
    FOLD,
    Forward(OTHER),
)
"""A step of each kind."""


def case_of(*steps: Step) -> Case:
    return Case(Config(2), STATE, steps)


def found(case: Case, observation: Observation, observable: str) -> list[tuple[int, str]]:
    """Return the steps at which an observable is not as it should be, and what was got there."""
    verdict = judge(case, observation, [observable], Accuracy("two-pass"))
    assert {d.observable for d in verdict.discrepancies} <= {observable}
    return [(d.step, d.got) for d in verdict.discrepancies]


def root_of(tensor: Array) -> Array:
    """Return the whole memory in which a tensor lies."""
    while isinstance(tensor.base, np.ndarray):
        tensor = tensor.base
    return tensor


def answer_without_memory(answer: Answer) -> dict[str, Any]:
    """What an answer tells, memory aside."""
    states = (
        {f"{name} after": a for name, a in answer.after.items()}
        if isinstance(answer.after, State)
        else {}
    )
    return answer.returned() | states


def assert_same_answers(one: Answer, other: Answer) -> None:
    assert answer_without_memory(one).keys() == answer_without_memory(other).keys()
    for name, value in answer_without_memory(one).items():
        if isinstance(value, np.ndarray):
            assert same_bits(value, answer_without_memory(other)[name]), name
        else:
            assert type(value) is type(answer_without_memory(other)[name]), name
