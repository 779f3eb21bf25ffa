"""Cases with gradients of a small layer, and how their answers are judged."""

from dataclasses import replace

from bn_spec import Backend, Case, Config
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Forward,
)
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play
from tests.spoilt_backends import TRAINING, Row, X

DY = X[::-1].copy()
GRADIENT = Case(Config(2), None, (Forward(X, DIFFERENTIABLE), Backward(DY)))

TWICE = Case(
    Config(2),
    None,
    (Forward(X, DIFFERENTIABLE), DoubleBackward(DY, X, X[0, :, 0, 0], X[1, :, 0, 0])),
)
OF_GRADIENTS = (*GRADIENTS, *DOUBLE_GRADIENTS, "gradient_form", "handed", "output", *STATE_FIELDS)


def judged(case: Case, backend: Backend) -> list[Discrepancy]:
    return judge(case, play(case, backend), OF_GRADIENTS, Accuracy("two-pass")).discrepancies


def of_gradients(rows: tuple[Row, ...]) -> list[Row]:
    """Return the rows, with a backward in the case of each that names no case."""
    return [replace(row, case=GRADIENT) if row.case is TRAINING else row for row in rows]
