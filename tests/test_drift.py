"""The bound of running statistics after many batches: its growth, its limit, and its resets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Case
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.steps import (
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Set,
    Step,
    Train,
)
from bn_spec.oracle.bounds import (
    OWN_ERROR,
)
from bn_spec.oracle.expectation import expect
from bn_spec.strategies import RUNNING_STYLES, cases, shapes
from tests.common import examples
from tests.drift_cases import (
    MOMENTA,
    STATISTICS,
    STEP,
    TWO_PASS,
    X,
    bound_of,
    drifted,
    each_dtype,
    repeated,
    state_of,
)


@each_dtype
def test_the_bound_of_a_single_step_is_that_of_the_step(dtype: str) -> None:
    @examples(20)
    @given(
        cases(
            dtype=dtype, momentum=MOMENTA, running=RUNNING_STYLES, shape=shapes("tiny", "different")
        )
    )
    def is_that(case: Case) -> None:
        once = expect(case.config, state_of(case), True, case.steps[0], TWO_PASS)
        for name in STATISTICS:
            due, step = getattr(drifted(case), name), getattr(once, name)
            assert np.array_equal(due.bound, step.bound)
            assert np.array_equal(due.value.hi, step.value.hi, equal_nan=True)

    is_that()


@pytest.mark.parametrize(
    ("momentum", "steps", "growth"),
    [
        pytest.param(0.1, 1000, 10.0, id="a momentum divides the bound of a step"),
        pytest.param(0.01, 1000, 100.0, id="a small momentum divides it likewise"),
        pytest.param(0.1, 7, (1 - 0.9**7) / 0.1, id="or by less, after few steps"),
        pytest.param(1.0, 30, 1.0, id="a whole momentum forgets"),
        pytest.param(0.0, 100, 100.0, id="a momentum of zero adds up"),
    ],
)
def test_the_bound_grows_as_the_sum_of_the_remaining_error_of_each_step(
    momentum: float, steps: int, growth: float
) -> None:
    once, many = (bound_of(repeated(*(STEP,) * k, momentum=momentum)) for k in (1, steps))
    assert many == pytest.approx(growth * once, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_bound_of_a_cumulative_mean_grows_with_half_the_number_of_batches(dtype: str) -> None:
    """After k batches, j / k of the error of batch j remains."""
    many = bound_of(repeated(*(STEP,) * 60, momentum=None, dtype=dtype))
    of_first, of_last = (bound_of(repeated(STEP, momentum=m, dtype=dtype)) for m in (1.0, 1 / 60))
    halves = 61 / 2 * np.array([of_first, of_last])
    assert (0.99 * halves.min(axis=0) <= many).all()
    assert (many <= 1.05 * halves.max(axis=0)).all()


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 60), (0.01, 400), (0.5, 20), (0.9, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_bound_stays_below_that_of_a_step_divided_by_momentum_less_the_roundoff_of_the_buffers(
    dtype: str, momentum: float, steps: int
) -> None:
    """Each step adds one roundoff of the buffers and a few of the accumulation to old errors."""
    row = DTYPES[dtype]
    slope = (1 - momentum) * row.parameters.u + 8 * row.accumulation.u + (OWN_ERROR - 1)
    once, many = (
        bound_of(repeated(*(STEP,) * k, momentum=momentum, dtype=dtype)) for k in (1, steps)
    )
    assert (many <= once / (momentum - slope)).all()
    assert (many >= 0.97 * (1 - (1 - momentum) ** steps) * once / momentum).all()


@each_dtype
@pytest.mark.parametrize("reset", [ResetRunningStats(), ResetParameters()])
def test_a_reset_forgets_all_errors(reset: Step, dtype: str) -> None:
    fresh = np.array([[0, 0], [1, 1]])
    for momentum in (0.1, None):
        after = repeated(STEP, STEP, STEP, reset, STEP, STEP, momentum=momentum, dtype=dtype)
        alone = repeated(STEP, STEP, momentum=momentum, dtype=dtype, stored=fresh)
        assert np.array_equal(bound_of(after), bound_of(alone))
        assert drifted(after).state.num_batches_tracked == 2


def test_neither_eval_forwards_nor_modes_make_a_difference() -> None:
    between = Eval(), Forward(X * 100), Train()
    assert np.array_equal(bound_of(repeated(STEP, *between, STEP)), bound_of(repeated(STEP, STEP)))
    assert drifted(repeated(STEP, *between, STEP)).state.num_batches_tracked == 2


def test_a_new_momentum_counts_from_then_on() -> None:
    changed = repeated(STEP, STEP, Set("momentum", 1.0), STEP, momentum=0.1)
    assert bound_of(changed) == pytest.approx(bound_of(repeated(STEP, momentum=1.0)), rel=1e-3)


def test_once_outside_the_domain_the_bound_stays_infinite_until_a_reset() -> None:
    enormous = Forward(np.array([3e38, -3e38] * 5).reshape(5, 2, 1, 1))
    assert np.isinf(bound_of(repeated(enormous, momentum=1.0))).all()
    assert np.isinf(bound_of(repeated(enormous, STEP, momentum=1.0))).all()
    reset = bound_of(repeated(enormous, ResetRunningStats(), STEP, momentum=1.0))
    fresh = np.array([[0, 0], [1, 1]])
    assert np.array_equal(reset, bound_of(repeated(STEP, momentum=1.0, stored=fresh)))
