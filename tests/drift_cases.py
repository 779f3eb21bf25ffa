"""Cases of many batches, and their expected running statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bn_spec import Case, Config, State
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES, Array, Floats
from bn_spec.case.steps import (
    Forward,
    Step,
)
from bn_spec.oracle.bounds import (
    Accuracy,
)
from bn_spec.oracle.expectation import Expectation, drift

STATISTICS = ("running_mean", "running_var")

MOMENTA = (0.1, 0.01, 1.0, 0.0, None, 0.5, 0.9)

TWO_PASS = Accuracy("two-pass")

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def state_of(case: Case) -> State:
    return case.state or initial_state(case.config)


@np.errstate(all="ignore")  # float16 overflows, and the judge ignores it too
def drifted(case: Case, accuracy: Accuracy = TWO_PASS) -> Expectation:
    return drift(case, state_of(case), accuracy)


IN_HALF = Accuracy("two-pass", statistics="parameters")

each_row = pytest.mark.parametrize(
    ("dtype", "accuracy"),
    [
        *(pytest.param(dtype, TWO_PASS, id=dtype) for dtype in DTYPES),
        *(
            pytest.param(dtype, IN_HALF, id=f"{dtype}, statistics in half")
            for dtype in ("float16", "bfloat16")
        ),
    ],
)

X = np.array([[0, 2, 4, 6, 8], [-2, 0, 1, 3, 8]]).T.reshape(5, 2, 1, 1)

STORED = np.array([[4, 2], [10, 14.5]])
"""Running mean and running variance that the batch ``X`` does not change."""


def repeated(
    *steps: Step, momentum: float | None = 0.1, dtype: str = "float32", stored: Array = STORED
) -> Case:
    """Return a case of some steps that starts from running statistics, by default ``STORED``."""
    row = DTYPES[dtype]
    weight, bias, mean, var = np.array([[1, 1], [0, 0], *stored]).astype(row.parameters.dtype)
    moved = (
        replace(s, x=s.x.astype(row.data.dtype)) if isinstance(s, Forward) else s for s in steps
    )
    return Case(
        Config(2, momentum=momentum, dtype=dtype),
        State(weight, bias, mean, var, np.array(0)),
        tuple(moved),
    )


def bound_of(case: Case, accuracy: Accuracy = TWO_PASS) -> Floats:
    return np.array([getattr(drifted(case, accuracy), name).bound for name in STATISTICS])


STEP = Forward(X)
