"""Sums are called exact only if they are exact in every order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config
from bn_spec.case.dtypes import DTYPES, Array, Bools, DType
from bn_spec.case.steps import Forward
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import (
    OWN_ERROR,
    Accuracy,
    Model,
    sums_exactly,
)
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import BALANCED, FAMILIES, cases, chosen, shapes, values
from tests.accuracy_cases import FLOAT32, OBSERVABLES, called, expected, parts
from tests.arithmetic import (
    statistics,
)
from tests.common import examples


def any_order(rng: np.random.Generator, terms: Array) -> Any:
    """Sum terms in a random order, rounding after each addition: random pairs, or a random line."""
    left = list(rng.permutation(terms))
    while len(left) > 1:
        i = int(rng.integers(len(left) - 1)) if rng.random() < 0.5 else 0
        left[i : i + 2] = [left[i] + left[i + 1]]
    return left[0]


@np.errstate(all="ignore")
def computed(rng: np.random.Generator, grade: str, values: Array) -> tuple[Any, Any]:
    """Return mean and variance of one channel, with every operation rounded to nearest."""
    n = values.dtype.type(len(values))
    mean = any_order(rng, values) / n
    if grade == "textbook":
        return mean, any_order(rng, values * values) / n - mean * mean
    return mean, any_order(rng, (values - mean) ** 2) / n


def exactly(row: Array) -> tuple[Fraction, Fraction]:
    numbers = [Fraction(float(x)) for x in row]
    mean = sum(numbers, Fraction()) / len(numbers)
    return mean, sum(((x - mean) ** 2 for x in numbers), Fraction()) / len(numbers)


def claimed_exact(model: Model, rows: Array) -> Bools:
    """Call ``sums_exactly`` as the expectation does: with the exact mean, rounded to float64."""
    means = [[float(exactly(row)[0])] for row in rows]
    return sums_exactly(model, rows.astype(np.float64), np.array(means))


@st.composite
def nearly_too_many_bits(draw: st.DrawFn, dtype: DType) -> Array:
    """Rows of integers whose sums or squares nearly overflow the significand, or overflow it."""
    n = 2 ** draw(st.integers(1, 4))
    bits = round(-np.log2(dtype.accumulation.u))
    levels = int(np.log2(n))
    lengths = (bits, bits - 1, bits - levels, bits // 2, bits // 2 - levels // 2)
    most = draw(st.sampled_from(lengths))
    near = (
        st.integers(2**most - 3, 2**most + 3)
        | st.integers(-3, 3)
        | st.integers(2 ** (most - 1), 2**most)
    )
    row = draw(st.lists(near, min_size=n, max_size=n))
    signs = draw(st.sampled_from(((1,), (1, -1), (-1,))))
    exponent = draw(st.sampled_from((0, -20, 9)))
    scaled = np.ldexp(np.array(row, np.float64) * np.resize(signs, n), exponent)
    return scaled[None].astype(dtype.accumulation.dtype)


CLAIMS_OF_EXACTNESS = [
    Accuracy("two-pass"),
    Accuracy("two-pass", "wide"),
    Accuracy("welford", direct_means=True),
    Accuracy("textbook", direct_means=True),
]


@pytest.mark.parametrize("accuracy", CLAIMS_OF_EXACTNESS, ids=called)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_called_exact_only_where_they_are_in_every_order(
    dtype: str, accuracy: Accuracy
) -> None:
    row, found, refused = DTYPES[dtype], 0, 0
    drawn = st.builds(
        lambda recipe, n: recipe.make((n, 3, 1, 1), row)[:, :, 0, 0].T,
        chosen(
            values((BALANCED, *FAMILIES), scales=(0, 10, -20), offsets=(0.0, 1.0, -10.0, 1e4, 1e6))
        ),
        st.sampled_from((2, 3, 4, 7, 8, 16, 32)),
    )

    @examples(260)
    @given(drawn | nearly_too_many_bits(row), st.integers(0, 2**16))
    def only_there(rows: Array, seed: int) -> None:
        nonlocal found, refused
        rng = np.random.default_rng(seed)
        claimed = claimed_exact(Model(row, rows.shape[1], accuracy), rows)[:, 0]
        refused += int((~claimed).sum())
        for values_of_channel in rows[claimed]:
            found += 1
            for _ in range(4):
                mean, var = computed(rng, accuracy.grade, values_of_channel)
                assert (Fraction(float(mean)), Fraction(float(var))) == exactly(values_of_channel)

    only_there()
    assert min(found, refused) > 50


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("grade", ["two-pass", "textbook"])
def test_a_sum_that_is_one_bit_too_long_is_not_called_exact(grade: str, dtype: str) -> None:
    """Seven times 2**50 plus 2**50 + 1 is 2**53 + 1, which float64 rounds to 2**53."""
    row = DTYPES[dtype]
    length = round(-np.log2(row.accumulation.u))
    x = np.full(8, 2.0 ** (length - 3))
    x[-1] += 1
    accuracy = Accuracy(grade, direct_means=True)
    assert not claimed_exact(Model(row, 8, accuracy), x[None]).any()
    case = Case(
        Config(1, momentum=1.0, dtype=dtype), None, (Forward(x.reshape(8, 1, 1, 1).astype(dtype)),)
    )
    for specimen in ("two-pass-sequential", "two-pass-pairwise", "two-pass-backward"):
        verdict = judge(case, play(case, SPECIMENS[specimen]), OBSERVABLES, accuracy)
        assert not verdict.discrepancies, specimen


@pytest.mark.parametrize("dtype", DTYPES)
def test_balanced_values_sum_exactly_and_leave_a_few_roundings(dtype: str) -> None:
    row, u = DTYPES[dtype], DTYPES[dtype].accumulation.u
    balanced = values((BALANCED,), scales=(0, 1, -3), offsets=(0.0, 1.0, -10.0, 100.0))

    @examples(35)
    @given(
        cases(
            dtype=dtype,
            shape=shapes("powers of two"),
            value=balanced,
            momentum=(1.0,),
            running=("initial",),
        )
    )
    def leave_few(case: Case) -> None:
        (x,) = case.forwards()
        rows = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)
        mean, var, _ = statistics(rows)
        assert sums_exactly(Model(row, rows.shape[1], Accuracy("two-pass")), rows, mean).all()
        due = parts(expected(case, Accuracy("two-pass")))
        buffers = row.parameters
        n = rows.shape[1]
        for name, size in (
            ("running_mean", np.abs(mean[:, 0])),
            ("running_var", 1 + var[:, 0] * n / (n - 1)),
        ):
            few = 10 * u * size + 20 * n * row.accumulation.smallest_subnormal
            cast = 1.01 * buffers.u * size + buffers.smallest_subnormal
            assert (due[name].bound <= OWN_ERROR * (few + cast)).all(), name

    leave_few()


def test_running_means_and_counts_that_are_no_power_of_two_are_never_exact() -> None:
    ones = np.ones((1, 64))
    mean = np.ones((1, 1))
    for grade in ("welford", "textbook"):
        exact = {
            n: sums_exactly(Model(FLOAT32, n, Accuracy(grade)), ones[:, :n], mean).item()
            for n in (2, 4, 64)
        }
        assert exact == {2: True, 4: False, 64: False}
    for n in (3, 6, 12, 63):
        assert not sums_exactly(Model(FLOAT32, n, Accuracy("two-pass")), ones[:, :n], mean).item()


def test_a_mean_that_does_not_survive_being_kept_is_not_exact() -> None:
    """257 does not fit bfloat16, so a kernel that keeps its mean in bfloat16 rounds it."""
    rows, mean = np.array([[256.0, 258.0]]), np.array([[257.0]])
    for statistics_kept, exact in (("accumulation", True), ("parameters", False)):
        accuracy = Accuracy("two-pass", statistics=statistics_kept)
        assert sums_exactly(Model(DTYPES["bfloat16"], 2, accuracy), rows, mean).item() is exact
