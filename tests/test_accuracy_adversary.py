"""The bounds of every claim hold for an adversary that chooses the sign of every rounding."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import Array, DType, Floats
from bn_spec.oracle.bounds import (
    GRADES,
    SUMMATIONS,
    Accuracy,
    Model,
    batch_moments,
    output_bound,
    running_bound,
)
from bn_spec.strategies import FAMILIES, MIXED, Recipe, chosen, values
from tests.accuracy_cases import FLOAT64
from tests.arithmetic import (
    RULES,
    TOTALS,
    Arithmetic,
    Kernel,
    chan,
    one_by_one,
    statistics,
    textbook,
    two_pass,
    welford,
    wholly_wide,
)
from tests.common import examples

KERNELS: dict[str, tuple[str, str, Kernel]] = {
    **{
        f"{grade}, {summation}": (grade, summation, kernel)
        for grade, kernel in (("two-pass", two_pass), ("textbook", textbook))
        for summation in SUMMATIONS
    },
    "welford, any order": ("welford", "any order", welford),
    "chan, any order": ("welford", "any order", chan),
    "chan, pairwise": ("welford", "pairwise", chan),
    **{
        f"{grade}, wholly wide": (grade, "wide", partial(wholly_wide, kernel))
        for grade, kernel in (
            ("two-pass", two_pass),
            ("welford", welford),
            ("welford", chan),
            ("textbook", textbook),
        )
    },
}
"""Grade, class of summation, and a kernel that satisfies both."""

each_kernel = pytest.mark.parametrize(
    ("grade", "summation", "kernel"), KERNELS.values(), ids=KERNELS
)

PRECISE = replace(FLOAT64.data, name="precise", u=2.0**-12)

ROUGH = replace(FLOAT64.data, name="rough", u=2.0**-7)

FINE = replace(PRECISE, name="fine", smallest_normal=2.0**-6, smallest_subnormal=2.0**-17)

SHORT = replace(ROUGH, name="short", smallest_normal=2.0**-6, smallest_subnormal=2.0**-12)
"""Formats so coarse that the roundings of float64 are negligible; the last two underflow."""

conditions = values((*FAMILIES, MIXED), scales=(0,), offsets=(0.0, 1.0, -10.0, 100.0, 1e3, -1e4))


def rows_of(recipe: Recipe, n: int) -> Floats:
    rows: Floats = recipe.make((n, 4, 1, 1), FLOAT64)[:, :, 0, 0].T
    return rows


@each_kernel
def test_batch_statistics_stay_within_the_bounds_of_their_summation_however_they_are_rounded(
    grade: str, summation: str, kernel: Kernel
) -> None:
    row = DType("coarse", PRECISE, PRECISE, PRECISE)
    worst = [0.0, 0.0]

    @examples(70)
    @given(chosen(conditions), st.integers(2, 400), st.sampled_from(sorted(RULES)))
    def stay_within(recipe: Recipe, n: int, rule: str) -> None:
        rows = rows_of(recipe, n)
        bound = batch_moments(Model(row, n, Accuracy(grade, summation)), *statistics(rows))
        fl = Arithmetic(PRECISE, RULES[rule], np.random.default_rng(recipe.seed))
        for i, (got, exact, due) in enumerate(
            zip(
                kernel(rows, TOTALS[summation], fl),
                (bound.mean, bound.var),
                (bound.dmean, bound.dvar),
                strict=True,
            )
        ):
            share = np.abs(got[:, None] - exact) / due
            assert (share <= 1).all()
            worst[i] = max(worst[i], float(share.max()))

    stay_within()
    assert min(worst) > 0.03  # a bound that is far from every kernel would prove nothing


MOMENTUM, OLD, WEIGHT = 0.3, 2.0, -3.0


class Chosen(NamedTuple):
    """The constants that amplify roundings (a small eps) or hide them (a large bias)."""

    eps: float = 1e-3
    bias: float = 5.0


Answers: TypeAlias = tuple[Array, ...]
"""Output, running mean and running variance."""


def finished(
    rows: Array, mean: Array, var: Array, kept: Arithmetic, done: Arithmetic, chosen: Chosen
) -> Answers:
    """Return the answers from statistics, with the whole budget of each expression spent."""
    n = rows.shape[1]
    m = kept(np.full(len(rows), MOMENTUM))
    s = kept(1 / np.sqrt(kept.add(np.maximum(var, 0) + kept(np.full(len(rows), chosen.eps)))))
    for _ in range(3):
        s = kept.add(s)  # only the division, one of the four roundings, can underflow
    # A difference of two numbers of a format cannot underflow in it; one from a finer mean can.
    subtract = done if done.format.u > kept.format.u else done.add
    x_hat = done(subtract(done.read(rows) - mean[:, None]) * s[:, None])
    y = done.add(done(x_hat * WEIGHT) + chosen.bias)
    unbiased = kept(var * kept(np.asarray(n / (n - 1))))
    blended = [
        kept.add(kept(kept.add(1 - m) * kept.read(np.full(len(rows), OLD))) + kept(m * b))
        for b in (mean, unbiased)
    ]
    return y, blended[0], blended[1]


def exact_answers(rows: Array, chosen: Chosen) -> Answers:
    n, (mean, var, _) = rows.shape[1], statistics(rows)
    y = (rows - mean) / np.sqrt(var + chosen.eps) * WEIGHT + chosen.bias
    blended = [(1 - MOMENTUM) * OLD + MOMENTUM * b[:, 0] for b in (mean, var * n / (n - 1))]
    return y, blended[0], blended[1]


def bounds_due(model: Model, rows: Array, chosen: Chosen) -> Answers:
    n, (mean, var, mean_abs) = rows.shape[1], statistics(rows)
    moments = batch_moments(model, mean, var, mean_abs)
    x_hat, one = (rows - mean) / np.sqrt(var + chosen.eps), np.ones((1, 1))
    largest = np.abs(rows).max(axis=1, keepdims=True)
    y = output_bound(model, moments, chosen.eps, largest, x_hat, WEIGHT * one, chosen.bias * one)
    _, new_mean, new_var = exact_answers(rows, chosen)
    unbiased, error = (v * n / (n - 1) for v in (var, moments.dvar))
    running = [
        running_bound(model, OLD * one, batch, due, MOMENTUM, new[:, None])[:, 0]
        for batch, due, new in ((mean, moments.dmean, new_mean), (unbiased, error, new_var))
    ]
    return y, running[0], running[1]


def largest_shares(model: Model, rows: Array, answers: Answers, chosen: Chosen) -> list[float]:
    wanted = zip(answers, exact_answers(rows, chosen), bounds_due(model, rows, chosen), strict=True)
    return [float((np.abs(got - exact) / due).max()) for got, exact, due in wanted]


KEPT = {
    "statistics": Accuracy(statistics="parameters"),
    "elementwise": Accuracy(elementwise="parameters"),
    "both": Accuracy(statistics="parameters", elementwise="parameters"),
    "neither": Accuracy(),
}


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("grade", GRADES)
def test_all_results_stay_within_their_bounds_where_statistics_or_steps_are_kept_coarsely(
    grade: str, kept: str
) -> None:
    claims = replace(KEPT[kept], grade=grade)
    row = DType("coarse", ROUGH, ROUGH, PRECISE)
    kernel = {"two-pass": two_pass, "welford": welford, "textbook": textbook}[grade]
    worst = [0.0, 0.0, 0.0]

    @examples(50)
    @given(
        chosen(conditions), st.integers(2, 100), st.tuples(*[st.sampled_from(sorted(RULES))] * 4)
    )
    def stay_within(recipe: Recipe, n: int, rules: tuple[str, ...]) -> None:
        rows, rng = rows_of(recipe, n), np.random.default_rng(recipe.seed)
        model = Model(row, n, claims)
        summed, kept_fl, stepped, cast = (
            Arithmetic(format, RULES[rule], rng)
            for format, rule in zip(
                (PRECISE, model.statistics, model.elementwise, ROUGH), rules, strict=True
            )
        )
        mean, var = kernel(rows, one_by_one, summed)
        if model.keeps_coarsely:
            mean, var = kept_fl.add(mean), kept_fl(kept_fl(kept_fl.add(var)))
        answers = finished(rows, mean, var, kept_fl, stepped, Chosen())
        shares = largest_shares(model, rows, tuple(map(cast.add, answers)), Chosen())
        assert max(shares) <= 1
        worst[:] = map(max, worst, shares)

    stay_within()
    assert min(worst) > 0.1


@pytest.mark.parametrize("flushes", [True, False], ids=["flushed", "not flushed"])
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("grade", GRADES)
def test_all_results_stay_within_their_bounds_where_everything_underflows(
    grade: str, kept: str, flushes: bool
) -> None:
    row = (
        DType("fine", FINE, FINE, FINE)
        if kept == "neither"
        else DType("short", SHORT, SHORT, PRECISE)
    )
    claims = replace(KEPT[kept], grade=grade, subnormals=not flushes)
    kernel = {"two-pass": two_pass, "welford": welford, "textbook": textbook}[grade]
    tiny = values((*FAMILIES, MIXED), scales=(0, -3, -6, -8, -12, -17), offsets=(0.0, 1.0, -10.0))
    eps = 1e-3 if Model(row, 2, claims).statistics is PRECISE else 0.5
    lost = 0

    @examples(70)
    @given(
        chosen(tiny),
        st.integers(2, 60),
        st.tuples(*[st.sampled_from(sorted(RULES))] * 4),
        st.builds(Chosen, st.just(eps), st.sampled_from((0.0, 5.0))),
    )
    def stay_within(recipe: Recipe, n: int, rules: tuple[str, ...], chosen: Chosen) -> None:
        nonlocal lost
        rows, rng, model = (
            rows_of(recipe, n),
            np.random.default_rng(recipe.seed),
            Model(row, n, claims),
        )
        formats = (row.accumulation, model.statistics, model.elementwise, row.data)
        summed, kept_fl, stepped, cast = (
            Arithmetic(format, RULES[rule], rng, flushes)
            for format, rule in zip(formats, rules, strict=True)
        )
        seen = cast.read(rows)
        mean, var = kernel(seen, one_by_one, summed)
        if model.keeps_coarsely:
            mean, var = kept_fl(mean), kept_fl(kept_fl(kept_fl(var)))
        answers = tuple(map(cast, finished(seen, mean, var, kept_fl, stepped, chosen)))
        assert max(largest_shares(model, rows, answers, chosen)) <= 1
        keeping = Model(row, n, replace(claims, subnormals=True))
        lost += max(largest_shares(keeping, rows, answers, chosen)) > 1

    stay_within()
    assert (lost > 0) is flushes  # a kernel that flushes must say so
