"""Cases, dtypes and shorthands that the tests of the error bounds share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from bn_spec import Case
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import (
    GRADES,
    Accuracy,
)
from bn_spec.oracle.expectation import Expectation, expect
from bn_spec.play.player import play
from bn_spec.specimens import Specimen

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]

VALUES = ("output", "running_mean", "running_var")

HALF = [name for name, row in DTYPES.items() if row.data.name in ("float16", "bfloat16")]

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

each_grade = pytest.mark.parametrize("grade", GRADES)


def judged(case: Case, specimen: Specimen, grade: str) -> Verdict:
    return judge(case, play(case, specimen), VALUES, replace(specimen.capabilities, grade=grade))


magnitudes = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)


def expected_of(case: Case, grade: str = "welford") -> Expectation:
    (step,) = case.steps
    return expect(
        case.config, case.state or initial_state(case.config), True, step, Accuracy(grade)
    )
