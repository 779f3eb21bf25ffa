"""The bounds of gradients hold for an adversary that chooses every rounding, in every form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import DType
from bn_spec.oracle.bounds import SUMMATIONS, Model
from tests.arithmetic import (
    two_pass,
)
from tests.backward_arithmetic import (
    FINE,
    FORWARDS,
    KEPT,
    PRECISE,
    ROUGH,
    SHORT,
    TINY,
    Data,
    Exact,
    Seen,
    data,
    each_keeping,
    model_of,
    raised,
    shares,
)
from tests.backward_forms import (
    PRODUCTS,
    centred,
    gradients_in_every_form,
)
from tests.common import examples

RUNNING = np.array([[0.0], [100.0], [-3.0], [1.0]]), np.array([[1.0], [4.0], [1e-3], [0.0]])
"""Running mean and running variance of the layer in eval mode, shape (CHANNELS, 1)."""


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("forward", FORWARDS)
def test_gradients_stay_within_their_bounds_however_each_operation_is_rounded(
    forward: str, form: str
) -> None:
    (grade, kernel), (claimed, products) = FORWARDS[forward], PRODUCTS[form]
    worst: dict[str, float] = {}

    @examples(35)
    @given(data())
    def stay_within(data: Data) -> None:
        model = model_of(data, grade, claimed)
        got = gradients_in_every_form(Seen.of(data, model, kernel), data.dy, products)
        for name, used in shares(got, Exact.of(data, model).first()).items():
            assert used <= 1, name
            worst[name.split()[0]] = max(used, worst.get(name.split()[0], 0))

    stay_within()
    # A bound that is far from every kernel would prove nothing.
    assert worst["dx"] > 0.05
    assert worst["dweight"] > 0.05
    assert worst["dbias"] > 0.05


@pytest.mark.parametrize("form", PRODUCTS)
def test_gradients_in_eval_mode_stay_within_their_bounds(form: str) -> None:
    claimed, products = PRODUCTS[form]

    @examples(35)
    @given(data())
    def stay_within(data: Data) -> None:
        model = model_of(data, "two-pass", claimed)
        k = Seen.of(data, model, two_pass, RUNNING)
        dy = k.io.read(data.dy)
        got = {
            "dx": k.io(k.ew(k.ew(k.weight * k.s) * dy)),
            "dweight": k.io(products(k, dy)),
            "dbias": k.io(k.sum(dy)),
        }
        assert max(shares(got, Exact.of(data, model, RUNNING).first()).values()) <= 1

    stay_within()


@pytest.mark.parametrize("summation", SUMMATIONS)
def test_gradients_stay_within_their_bounds_for_every_class_of_sums(summation: str) -> None:
    @examples(35)
    @given(data())
    def stay_within(data: Data) -> None:
        model = model_of(data, "two-pass", True, summation=summation)
        got = gradients_in_every_form(Seen.of(data, model, two_pass), data.dy, centred)
        assert max(shares(got, Exact.of(data, model).first()).values()) <= 1

    stay_within()


@each_keeping
def test_gradients_stay_within_their_bounds_where_statistics_or_elementwise_steps_are_kept_coarsely(
    kept: str,
) -> None:
    row = DType("coarse", ROUGH, ROUGH, PRECISE)
    worst: dict[str, float] = {}

    @examples(90)
    @given(data(longest=80), st.sampled_from(sorted(FORWARDS)), st.sampled_from(sorted(PRODUCTS)))
    def stay_within(drawn: Data, forward: str, form: str) -> None:
        (grade, kernel), (is_centred, products) = FORWARDS[forward], PRODUCTS[form]
        model = Model(row, drawn.n, replace(KEPT[kept], grade=grade, centred_products=is_centred))
        got = gradients_in_every_form(Seen.of(drawn, model, kernel), drawn.dy, products)
        raised(worst, shares(got, Exact.of(drawn, model).first()))

    stay_within()
    assert all(largest > 0.1 for largest in worst.values()), worst


@pytest.mark.parametrize("flushes", [True, False], ids=["flushed", "not flushed"])
@each_keeping
def test_gradients_stay_within_their_bounds_where_everything_underflows(
    kept: str, flushes: bool
) -> None:
    row = (
        DType("fine", FINE, FINE, FINE)
        if kept == "neither"
        else DType("short", SHORT, SHORT, PRECISE)
    )
    keeping = replace(KEPT[kept], subnormals=not flushes)

    @examples(50)
    @given(
        data(TINY, eps=(0.5,), longest=60),
        st.sampled_from(sorted(FORWARDS)),
        st.sampled_from(sorted(PRODUCTS)),
    )
    def stay_within(drawn: Data, forward: str, form: str) -> None:
        (grade, kernel), (is_centred, products) = FORWARDS[forward], PRODUCTS[form]
        model = Model(row, drawn.n, replace(keeping, grade=grade, centred_products=is_centred))
        got = gradients_in_every_form(Seen.of(drawn, model, kernel), drawn.dy, products)
        raised({}, shares(got, Exact.of(drawn, model).first()))

    stay_within()
