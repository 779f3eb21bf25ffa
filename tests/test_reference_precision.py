"""The reference against exact arithmetic: its errors are a tiny share of every bound."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest
from hypothesis import given

from bn_spec import Case
from bn_spec.case.config import State
from bn_spec.case.dtypes import DTYPES, Array, Floats, Format
from bn_spec.case.steps import Forward
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import Model, batch_moments
from bn_spec.oracle.expectation import expect
from bn_spec.oracle.reference import Extended
from bn_spec.oracle.reference import formulas as f
from bn_spec.strategies import (
    EPS,
    RUNNING_STYLES,
    values,
)
from tests.common import examples
from tests.rational import (
    OWN,
    PRECISION,
    TWO_PASS,
    Exact,
    arb,
    batch_statistics,
    channel_rows,
    drawn,
    every_dtype,
    exact,
    first,
    normalised,
    statistics_used,
    tracked,
)
from tests.reference_layers import loaded


@pytest.fixture(autouse=True)
def _precise_balls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flint.ctx, "prec", PRECISION)


def assert_within_own_error(got: Extended, wanted: Exact, bound: Floats) -> None:
    assert wanted.shape == got.hi.shape == bound.shape
    error = abs(exact(got) - wanted)
    for index in zip(*np.nonzero(np.isfinite(bound)), strict=True):
        assert error[index] <= OWN * Fraction(bound[index]), index


@every_dtype
def test_the_error_of_batch_statistics_is_a_tiny_share_of_their_bounds(dtype: str) -> None:
    @examples(55)
    @given(drawn(dtype))
    def judge(case: Case) -> None:
        _, x = first(case)
        rows = f.by_channel(x)
        n = rows.hi.shape[1]
        mean, var, unbiased = batch_statistics(channel_rows(x))
        mu = f.mean(rows)
        biased = f.biased_variance(rows, mu)
        mean_abs = np.abs(rows.hi).mean(axis=1, keepdims=True)
        moments = batch_moments(Model(DTYPES[dtype], n, TWO_PASS), mu.hi, biased.hi, mean_abs)
        assert_within_own_error(mu, mean, moments.dmean)
        assert_within_own_error(biased, var, moments.dvar)
        assert_within_own_error(f.unbiased_variance(biased, n), unbiased, moments.dvar)

    judge()


@every_dtype
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_the_error_of_an_output_is_a_tiny_share_of_its_bound(dtype: str, training: bool) -> None:
    judged = 0

    @examples(40)
    @given(drawn(dtype, least=2 if training else 1))
    def judge(case: Case) -> None:
        nonlocal judged
        state, x = first(case)
        if not training and state.running_mean is None and x.size == x.shape[1]:
            return
        output = expect(case.config, state, training, Forward(x), TWO_PASS).output
        assert output is not None
        wanted = normalised(state, x, statistics_used(state, x, training), case.config.eps)
        bounds = output.bound.ravel()
        for got, ball, bound in zip(exact(output.value).ravel(), wanted, bounds, strict=True):
            if np.isfinite(bound):
                judged += 1
                assert abs(arb(got) - ball) <= arb(OWN * Fraction(bound))

    judge()
    assert judged > 1000


@every_dtype
def test_the_error_of_running_statistics_is_a_tiny_share_of_their_bounds(dtype: str) -> None:
    judged = 0

    @examples(55)
    @given(drawn(dtype, running=RUNNING_STYLES))
    def judge(case: Case) -> None:
        nonlocal judged
        state, x = first(case)
        expected = expect(case.config, state, True, Forward(x), TWO_PASS)
        for name, wanted in tracked(case.config, state, x).items():
            bounded: Bounded = getattr(expected, name)
            judged += int(np.isfinite(bounded.bound).sum())
            assert_within_own_error(bounded.value, wanted, bounded.bound)

    judge()
    assert judged > 200


@every_dtype
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_an_answer_of_the_layer_is_the_exact_one_rounded_once(dtype: str, training: bool) -> None:
    def assert_rounded_once(
        got: Array, kind: Format, wanted: list[Any], bounded: Bounded | None
    ) -> None:
        assert bounded is not None
        assert got.dtype == kind.dtype
        rounding = Fraction(kind.u) * (
            1 + Fraction(1, 2**15)
        )  # bfloat16 is rounded by way of float32
        for number, ball, bound in zip(got.ravel(), wanted, bounded.bound.ravel(), strict=True):
            if np.isfinite(bound):
                allowed = arb(OWN * Fraction(bound) + Fraction(kind.smallest_subnormal)) + arb(
                    rounding
                ) * abs(ball)
                assert abs(arb(Fraction(float(number))) - ball) <= allowed

    @examples(25)
    @given(drawn(dtype))
    def judge(case: Case) -> None:
        state, x = first(case)
        layer = loaded(case).train(training)
        expected = expect(case.config, state, training, Forward(x), TWO_PASS)
        wanted = normalised(state, x, statistics_used(state, x, training), case.config.eps)
        row = case.config.arithmetic
        assert_rounded_once(layer(x), row.data, wanted, expected.output)
        if training and state.running_mean is not None:
            for name, numbers in tracked(case.config, state, x).items():
                assert_rounded_once(
                    getattr(layer, name),
                    row.parameters,
                    list(map(arb, numbers)),
                    getattr(expected, name),
                )

    judge()


@every_dtype
def test_a_folded_convolution_is_the_exact_one_rounded_once(dtype: str) -> None:
    kind, judged = DTYPES[dtype].data, 0

    def assert_rounded_once(got: Array, wanted: list[Any], products: list[Any]) -> None:
        nonlocal judged
        assert got.dtype == kind.dtype
        rounding = Fraction(kind.u) * (
            1 + Fraction(1, 2**15)
        )  # bfloat16 is rounded by way of float32
        for number, ball, product in zip(got.ravel(), wanted, products, strict=True):
            if abs(ball) < arb(Fraction(kind.largest) / 2):
                judged += 1
                own = arb(Fraction(kind.smallest_subnormal)) + arb(Fraction(1, 2**90)) * abs(
                    product
                )
                assert abs(arb(Fraction(float(number))) - ball) <= own + arb(rounding) * abs(ball)

    @examples(25)
    @given(drawn(dtype, value=values(), eps=EPS, running=RUNNING_STYLES))
    def judge(case: Case) -> None:
        (state, x), eps = first(case), case.config.eps
        mean, var = statistics_used(state, x, training=False)
        weight, bias = loaded(case).fold(x.swapaxes(0, 1), x[0, :, 0, 0])
        unshifted, of_bias = State(weight=state.weight), x[:1, :, :1, :1]
        scaled = normalised(unshifted, x, (0 * mean, var), eps)
        assert_rounded_once(weight.swapaxes(0, 1), scaled, scaled)
        shifted, products = (
            normalised(parameters, of_bias, (mean, var), eps) for parameters in (state, unshifted)
        )
        assert_rounded_once(bias, shifted, products)

    judge()
    assert judged > 200
