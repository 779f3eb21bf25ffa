"""The bound of running statistics after many batches holds for every choice of roundings."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case
from bn_spec.case.dtypes import DTYPES
from bn_spec.oracle.bounds import (
    OWN_ERROR,
    Accuracy,
    Model,
    running_bound,
)
from bn_spec.strategies import FAMILIES, MIXED, RUNNING_STYLES, cases, histories, shapes, values
from tests.arithmetic import RULES
from tests.common import examples
from tests.drift_cases import (
    MOMENTA,
    STATISTICS,
    STEP,
    TWO_PASS,
    X,
    drifted,
    each_dtype,
    each_row,
    repeated,
)
from tests.drift_recurrence import (
    KERNELS,
    ByComplement,
    ByDifference,
    ByTheWholeBound,
    Unlucky,
    blended,
    exactly,
    expected_numbers,
    largest_share,
)


def drifting(dtype: str, most: int) -> st.SearchStrategy[Case]:
    """Cases of several batches, with resets, changes of momentum and eval forwards between them."""
    words = (
        "forward",
        "forward",
        "forward",
        "eval",
        "train",
        "train",
        "set momentum",
        "reset running statistics",
        "reset parameters",
    )
    return cases(
        dtype=dtype,
        history=histories(*words, most=most, before=("forward",), after=("train", "forward")),
        shape=shapes("tiny"),
        layouts=("contiguous",),
        value=values((*FAMILIES, MIXED), scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0, 100.0)),
        momentum=MOMENTA,
        running=RUNNING_STYLES,
    )


@each_row
@pytest.mark.parametrize("rule", RULES)
def test_a_kernel_stays_within_the_bound_however_each_operation_is_rounded(
    rule: str, dtype: str, accuracy: Accuracy
) -> None:
    worst = Fraction(0)

    @examples(10)
    @given(drifting(dtype, 10), st.sampled_from(KERNELS), st.integers(0, 99))
    def stays(case: Case, kernel: type[Unlucky], seed: int) -> None:
        nonlocal worst
        unlucky = kernel(Model(case.config.arithmetic, 2, accuracy), rule, seed)
        due = drifted(case, accuracy)
        got, right = blended(case, unlucky, accuracy), blended(case, exactly, accuracy)
        share = max(largest_share(due, name, got[name], right[name]) for name in STATISTICS)
        assert share <= 1
        worst = max(worst, share)

    stays()
    assert worst > 0.7


@each_dtype
def test_the_expected_statistics_are_those_of_the_recurrence(dtype: str) -> None:
    @examples(15)
    @given(drifting(dtype, 16))
    def are(case: Case) -> None:
        due, exact = drifted(case), blended(case, exactly)
        for name in STATISTICS:
            assert (
                largest_share(due, name, expected_numbers(due, name), exact[name]) <= OWN_ERROR - 1
            )

    are()


@each_dtype
@pytest.mark.parametrize("subnormals", [True, False])
def test_the_bound_of_one_step_is_largest_at_an_end_of_the_interval_of_the_stored_value(
    subnormals: bool, dtype: str
) -> None:
    model = Model(DTYPES[dtype], 4, replace(TWO_PASS, subnormals=subnormals))
    numbers, share = st.floats(-1e3, 1e3), st.floats(0, 1)

    @examples(60)
    @given(old=numbers, off=st.floats(0, 1e3), inside=share, batch=numbers, dbatch=share, m=share)
    def is_largest(
        old: float, off: float, inside: float, batch: float, dbatch: float, m: float
    ) -> None:
        new = abs((1 - m) * old + m * batch) + (1 - m) * off
        stored = np.array([[old - off], [old + off], [old + (2 * inside - 1) * off]])
        *ends, between = running_bound(
            model, stored, np.array(batch), np.array(dbatch), m, np.array(new)
        ).ravel()
        assert between <= max(ends) * (1 + 2.0**-40)

    is_largest()


@each_row
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize(
    ("kernel", "least"),
    [(ByTheWholeBound, 0.999), (Unlucky, 0.45), (ByComplement, 0.3), (ByDifference, 0.2)],
)
def test_a_kernel_that_always_rounds_up_uses_its_share_of_the_bound_after_many_steps(
    kernel: type[Unlucky], least: float, momentum: float | None, dtype: str, accuracy: Accuracy
) -> None:
    case = repeated(*(STEP,) * 20, momentum=momentum, dtype=dtype)
    up = kernel(Model(case.config.arithmetic, X.shape[0], accuracy), "up")
    due = drifted(case, accuracy)
    got, right = blended(case, up, accuracy), blended(case, exactly, accuracy)
    assert all(least < largest_share(due, name, got[name], right[name]) <= 1 for name in STATISTICS)
