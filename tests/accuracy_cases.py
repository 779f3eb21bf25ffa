"""The expectation of a single forward under a claim, for the tests of claims."""

from __future__ import annotations

from bn_spec import Case
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.steps import Forward
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import (
    Accuracy,
)
from bn_spec.oracle.expectation import Expectation, expect

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]

OBSERVABLES = ("output", "running_mean", "running_var")


def called(accuracy: Accuracy) -> str:
    departures = [
        str(v) if isinstance(v, str) else k
        for k, v in vars(accuracy).items()
        if v != vars(Accuracy())[k]
    ]
    return "-".join(departures) or "default"


def expected(case: Case, accuracy: Accuracy, training: bool = True) -> Expectation:
    (step,) = (step for step in case.steps if isinstance(step, Forward))
    return expect(case.config, case.state or initial_state(case.config), training, step, accuracy)


def parts(expectation: Expectation) -> dict[str, Bounded]:
    return {name: part for name in OBSERVABLES if (part := getattr(expectation, name)) is not None}
