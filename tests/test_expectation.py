"""An expectation depends neither on the arithmetic of the reference nor on the size of blocks."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.steps import Eval, Forward
from bn_spec.oracle import block, expectation
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import GRADES, OWN_ERROR, SUMMATIONS, Accuracy
from bn_spec.oracle.expectation import Context, Expectation, Past, expect
from bn_spec.oracle.reference import Extended
from bn_spec.strategies import BALANCED, FAMILIES, MIXED, WIDE, cases, shapes, values
from tests.common import examples

NARROW = [name for name, row in DTYPES.items() if row.accumulation.name == "float32"]
OBSERVABLES = ("output", "running_mean", "running_var")
SHARPEST = Accuracy("two-pass", "wide")
"""Claims with the narrowest bounds, which leave the reference itself the least room."""


HISTORIES = (
    ("forward with gradients",),
    ("forward with gradients", "backward"),
    ("eval", "forward with gradients", "backward"),
    ("forward with gradients", "double backward"),
    ("eval", "forward with gradients", "double backward"),
)


each_history = pytest.mark.parametrize("history", HISTORIES, ids=" ".join)


def expected(case: Case, accuracy: Accuracy) -> Expectation:
    """Return the expectation of the last step; every forward starts from the state of the case."""
    before = case.state or initial_state(case.config)
    training = not any(isinstance(step, Eval) for step in case.steps)
    forwards = [
        Context(case.config, before, training, step)
        for step in case.steps
        if isinstance(step, Forward)
    ]
    return expect(case.config, before, training, case.steps[-1], accuracy, Past(forwards))


def bounded(expectation: Expectation) -> dict[str, Bounded]:
    parts = {name: getattr(expectation, name) for name in OBSERVABLES} | dict(expectation.results)
    return {name: part for name, part in parts.items() if part is not None}


def difference(a: Bounded, b: Bounded) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.abs((a.value.hi - b.value.hi) + (np.asarray(a.value.lo) - b.value.lo))


@each_history
@pytest.mark.parametrize("dtype", NARROW)
def test_the_bound_pays_for_the_error_of_the_reference_in_float64(
    dtype: str, history: tuple[str, ...]
) -> None:
    hard = values(
        (*FAMILIES, MIXED, BALANCED), scales=(0, 10, -10, *WIDE), offsets=(0.0, 1.0, -1e3, 1e6, 3e7)
    )

    @examples(90 if history == ("forward with gradients",) else 25)
    @given(
        cases(dtype=dtype, history=history, value=hard, eps=(1e-5, 1e-20, 1.0)),
        st.builds(Accuracy, st.sampled_from(GRADES), st.sampled_from(sorted(SUMMATIONS)))
        | st.just(SHARPEST),
    )
    def is_paid(case: Case, accuracy: Accuracy) -> None:
        plain = bounded(expected(case, accuracy))
        with patch.object(block, "Double", Extended):
            precise = bounded(expected(case, accuracy))
        assert plain.keys() == precise.keys() != set()
        for name, part in plain.items():
            inside = part.inside & precise[name].inside
            allowed = (OWN_ERROR - 1) * np.minimum(part.bound, precise[name].bound)
            assert (difference(part, precise[name])[inside] <= allowed[inside]).all(), name

    is_paid()


@each_history
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16"])
@pytest.mark.parametrize("values_at_once", [1, 7, 100])
def test_blocks_of_channels_make_no_difference(
    dtype: str, values_at_once: int, history: tuple[str, ...]
) -> None:
    @examples(35 if history == ("forward with gradients",) else 15)
    @given(cases(dtype=dtype, history=history, shape=shapes("tiny", "different", "small")))
    def make_none(case: Case) -> None:
        whole = bounded(expected(case, Accuracy()))
        with patch.object(expectation, "BLOCK", values_at_once):
            joined = bounded(expected(case, Accuracy()))
        for name, part in whole.items():
            other = joined[name]
            assert np.array_equal(part.value.hi, other.value.hi, equal_nan=True)
            assert np.array_equal(
                np.broadcast_to(part.value.lo, part.bound.shape),
                np.broadcast_to(other.value.lo, part.bound.shape),
            )
            assert np.array_equal(part.bound, other.bound)
            assert np.array_equal(part.demanded, other.demanded)

    make_none()
