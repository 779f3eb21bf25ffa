"""The error bounds hold for an adversary that chooses the sign of every rounding."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import Array, DType
from bn_spec.oracle.bounds import (
    Accuracy,
    Model,
    batch_moments,
    inverse_std_error,
    output_bound,
    running_bound,
    stored_moments,
)
from bn_spec.strategies import FAMILIES, MIXED, Recipe, chosen, values
from tests.arithmetic import (
    RULES,
    Arithmetic,
    Kernel,
    chan,
    one_by_one,
    statistics,
    textbook,
    two_pass,
    welford,
)
from tests.bound_cases import (
    FLOAT32,
    FLOAT64,
    magnitudes,
)
from tests.common import examples

U = 2.0**-12

COARSE_FORMAT = replace(FLOAT32.data, name="coarse", u=U)

COARSE = DType("coarse", COARSE_FORMAT, COARSE_FORMAT, COARSE_FORMAT)
"""Row of dtypes so coarse that the roundings of float64 are negligible beside those of the row."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("grade", "kernel"),
    [
        ("two-pass", two_pass),
        ("welford", welford),
        ("welford", partial(chan, smallest=1)),
        ("textbook", textbook),
    ],
    ids=["two-pass", "welford", "chan", "textbook"],
)
def test_batch_statistics_stay_within_their_bounds_however_each_operation_is_rounded(
    grade: str, kernel: Kernel, rule: str
) -> None:
    value = values((*FAMILIES, MIXED), scales=(0,), offsets=(0.0, 1.0, -10.0, 100.0, 1e3, -1e4))

    @examples(70)
    @given(chosen(value), st.integers(2, 130))
    def stay_within(recipe: Recipe, n: int) -> None:
        rows = recipe.make((n, 4, 1, 1), FLOAT64)[:, :, 0, 0].T
        bound = batch_moments(Model(COARSE, n, Accuracy(grade)), *statistics(rows))
        mean, var = kernel(
            rows,
            one_by_one,
            Arithmetic(COARSE_FORMAT, RULES[rule], np.random.default_rng(recipe.seed)),
        )
        assert (np.abs(mean[:, None] - bound.mean) <= bound.dmean).all()
        assert (np.abs(var[:, None] - bound.var) <= bound.dvar).all()

    stay_within()


def unlucky(roundings: int) -> Array:
    """Return factors 1 ± u in every combination, as one array per rounding."""
    return 1 + U * np.array(list(product((-1, 1), repeat=roundings))).T


numbers = st.floats(-1e3, 1e3)

MODEL = Model(COARSE, 2, Accuracy("two-pass"))


@examples(180)
@given(var=magnitudes, eps=magnitudes)
def test_the_budget_of_the_inverse_std_pays_for_the_worst_roundings(var: float, eps: float) -> None:
    eps_rounded, added, _ = unlucky(3)
    rsqrt = np.array([1 - 4 * U, 1 + 4 * U])[:, None]
    s = rsqrt / np.sqrt((var + eps * eps_rounded) * added)
    due = inverse_std_error(MODEL, stored_moments(MODEL, np.zeros(1), np.array([var])), eps)
    assert (np.abs(s * np.sqrt(var + eps) - 1) <= due).all()


@pytest.mark.parametrize("folded", [False, True], ids=["direct", "folded"])
def test_the_budget_of_the_output_pays_for_the_worst_roundings_of_either_form(folded: bool) -> None:
    @examples(180)
    @given(x=numbers, mu=numbers, var=magnitudes, eps=magnitudes, weight=numbers, bias=numbers)
    def pays(x: float, mu: float, var: float, eps: float, weight: float, bias: float) -> None:
        exact_s = 1 / np.sqrt(var + eps)
        x_hat = (x - mu) * exact_s
        r1, r2, r3, r4, r5, toward_s, cast = unlucky(7)
        s = exact_s * (1 + np.sign(toward_s - 1) * MODEL.spent("inverse std"))
        if folded:
            a = s * weight * r1
            y = (x * a * r2 + (bias - mu * a * r3) * r4) * r5 * cast
        else:
            y = ((x - mu) * r1 * s * r2 * weight * r3 + bias) * r4 * cast
        column = [np.array([[value]]) for value in (mu, var, x, x_hat, weight, bias)]
        bound = output_bound(MODEL, stored_moments(MODEL, *column[:2]), eps, *column[2:])
        assert (np.abs(y - (x_hat * weight + bias)) <= bound).all()

    pays()


@pytest.mark.parametrize("by_difference", [False, True], ids=["direct", "by difference"])
def test_the_budget_of_the_running_statistics_pays_for_the_worst_roundings_of_either_form(
    by_difference: bool,
) -> None:
    @examples(180)
    @given(old=numbers, batch=numbers, momentum=st.floats(0, 1))
    def pays(old: float, batch: float, momentum: float) -> None:
        r1, r2, r3, r4, r5, r6, r7, cast = unlucky(8)
        m, b = momentum * r1, batch * r2 * r3
        if by_difference:
            new = (old + m * ((b - old) * r4) * r5) * r6 * cast
        else:
            new = ((1 - m) * r4 * old * r5 + m * b * r6) * r7 * cast
        exact = (1 - momentum) * old + momentum * batch
        stored, seen, blended = (np.array([[value]]) for value in (old, batch, exact))
        bound = running_bound(MODEL, stored, seen, np.zeros((1, 1)), momentum, blended)
        assert (np.abs(new - exact) <= bound).all()

    pays()
