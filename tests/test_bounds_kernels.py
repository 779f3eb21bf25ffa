"""Every sound kernel stays within the error bounds; one that is worse than its claim does not."""

from __future__ import annotations

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from bn_spec import Case, Config
from bn_spec.case.dtypes import DTYPES
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.strategies import FAMILIES, MIXED, cases, values
from tests.bound_cases import (
    HALF,
    VALUES,
    each_grade,
    judged,
)
from tests.common import examples

OFFSETS = {
    "float32": (0.0, 1e3, -1e4, 1e6, 1.0, 3e7),
    "float64": (0.0, 1e3, -1e4, 1e6, 1.0, 1e9, -1e12, 1e16),
}
"""Offsets up to those that leave no digit of the data, by the format of the accumulation."""

each_full_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
"""Half-precision data have too few bits for a mean far above the standard deviation."""


def ill_conditioned(dtype: str, *history: str) -> st.SearchStrategy[Case]:
    """Cases whose mean is far above the standard deviation, also with a tiny eps and momentum 1."""
    value = values(
        (*FAMILIES, MIXED),
        scales=(0, 10, -10, 20, -20),
        offsets=OFFSETS[DTYPES[dtype].accumulation.name],
    )
    momenta = (1.0, 0.1, None, 0.999, 0.01)
    return cases(
        dtype=dtype, history=history, value=value, eps=(1e-5, 1e-12, 1e-20, 1.0), momentum=momenta
    )


def share(case: Case, specimen: str, grade: str, observable: str) -> float:
    return judged(case, SPECIMENS[specimen], grade).shares.get(observable, 0.0)


def some_dtypes(specimen: Specimen, place: int) -> tuple[str, ...]:
    """Return the first dtype of a specimen, and one more in turn; the soak covers all dtypes."""
    first, *others = specimen.capabilities.dtypes
    return (first, *others[place % max(len(others), 1) :][:1])


@pytest.mark.parametrize(
    ("history", "number", "observed"),
    [
        pytest.param(("forward",), 50, VALUES, id="training"),
        pytest.param(("eval", "forward"), 20, ("output",), id="eval"),
    ],
)
@pytest.mark.parametrize(
    ("specimen", "dtype"),
    [
        pytest.param(specimen, dtype, id=f"{specimen.name}-{dtype}")
        for place, specimen in enumerate(each for each in SPECIMENS.values() if each.sound)
        for dtype in some_dtypes(specimen, place)
    ],
)
def test_a_sound_kernel_stays_within_the_bound_of_its_grade(
    specimen: Specimen, dtype: str, history: tuple[str, ...], number: int, observed: tuple[str, ...]
) -> None:
    worst = dict.fromkeys(observed, 0.0)

    @examples(number if dtype in HALF else number // 2)
    @given(ill_conditioned(dtype, *history))
    def stays_within(case: Case) -> None:
        verdict = judged(case, specimen, specimen.capabilities.grade)
        assert not verdict.discrepancies
        for observable in observed:
            worst[observable] = max(worst[observable], verdict.shares.get(observable, 0.0))

    stays_within()
    assert all(0 < share <= 1 for share in worst.values()), worst
    claims = specimen.capabilities
    coarse = claims.dialect.output(Config(1, dtype=dtype)) == DTYPES[dtype].data and dtype in HALF
    if (
        observed == VALUES
        and coarse
        and claims.normalises_by_batch
        and claims.statistics == "accumulation"
        and claims.subnormals
    ):
        assert worst["output"] > 0.9  # one final rounding uses nearly its whole bound


@each_full_dtype
@pytest.mark.parametrize(
    ("specimen", "grade", "observable"),
    [
        ("textbook", "welford", "output"),
        ("textbook", "welford", "running_var"),
        ("welford", "two-pass", "running_var"),
        ("chan-merge", "two-pass", "running_var"),
    ],
)
def test_a_kernel_is_beyond_the_bound_of_the_grade_above_its_own(
    specimen: str, grade: str, observable: str, dtype: str
) -> None:
    beyond = find(
        ill_conditioned(dtype, "forward"),
        lambda case: share(case, specimen, grade, observable) > 1,
        settings=examples(600),
    )
    assert share(beyond, specimen, SPECIMENS[specimen].capabilities.grade, observable) <= 1


@each_grade
@pytest.mark.parametrize("observable", VALUES)
def test_sums_in_half_precision_are_beyond_every_bound(observable: str, grade: str) -> None:
    mild = cases(value=values(("gaussian",), scales=(0,), offsets=(0.0, 1.0)), momentum=(1.0,))
    beyond = find(
        mild,
        lambda case: share(case, "sums-in-half-precision", grade, observable) > 1,
        settings=examples(600),
    )
    assert share(beyond, "two-pass-sequential", grade, observable) <= 1
