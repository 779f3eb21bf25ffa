"""The bounds of second derivatives hold for an adversary that chooses every rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import DType
from bn_spec.oracle.bounds import Accuracy, Model
from tests.arithmetic import (
    TOTALS,
    two_pass,
)
from tests.backward_arithmetic import (
    COARSE,
    FINE,
    FORWARDS,
    OF_BIAS,
    OF_WEIGHT,
    TINY,
    WEIGHT,
    Data,
    Exact,
    Seen,
    data,
    model_of,
    raised,
    running_statistics_of,
    shares,
)
from tests.backward_forms import (
    PRODUCTS,
)
from tests.common import examples
from tests.double_backward_forms import SECOND


@pytest.mark.parametrize("form", SECOND)
@pytest.mark.parametrize("forward", FORWARDS)
def test_second_derivatives_stay_within_their_bounds(forward: str, form: str) -> None:
    (grade, kernel), (claimed, second) = FORWARDS[forward], SECOND[form]

    @examples(25)
    @given(data(longest=60))
    def stay_within(data: Data) -> None:
        model = model_of(data, grade, claimed)
        got = second(Seen.of(data, model, kernel), data.dy, data.v)
        for name, used in shares(got, Exact.of(data, model).second()).items():
            assert used <= 1, name

    stay_within()


SUMMED = {
    name: ("any order",) if name in ("welford", "chan") else tuple(TOTALS) for name in FORWARDS
}
"""Classes of summation that each forward kernel can have."""


@pytest.mark.parametrize("form", SECOND)
def test_second_derivatives_stay_within_their_bounds_for_every_class_of_sums(form: str) -> None:
    is_centred, second = SECOND[form]
    worst: dict[str, float] = {}

    @examples(90)
    @given(
        data(longest=80),
        st.sampled_from([(name, total) for name, totals in SUMMED.items() for total in totals]),
    )
    def stay_within(drawn: Data, chosen: tuple[str, str]) -> None:
        (grade, kernel), summation = FORWARDS[chosen[0]], chosen[1]
        model = Model(COARSE, drawn.n, Accuracy(grade, summation, centred_products=is_centred))
        raised(
            worst,
            shares(
                second(Seen.of(drawn, model, kernel), drawn.dy, drawn.v),
                Exact.of(drawn, model).second(),
            ),
        )

    stay_within()
    assert all(largest > 0.1 for largest in worst.values()), worst


@pytest.mark.parametrize("form", PRODUCTS)
def test_first_and_second_derivatives_of_eval_stay_within_their_bounds_for_every_class_of_sums(
    form: str,
) -> None:
    is_centred, products = PRODUCTS[form]
    worst: dict[str, float] = {}

    @examples(60)
    @given(data(), st.sampled_from(tuple(TOTALS)))
    def stay_within(drawn: Data, summation: str) -> None:
        running = running_statistics_of(drawn)
        model = Model(COARSE, drawn.n, Accuracy("two-pass", summation, centred_products=is_centred))
        k, exact, dy, v = (
            Seen.of(drawn, model, two_pass, running),
            Exact.of(drawn, model, running),
            drawn.dy,
            drawn.v,
        )
        fl, x_hat = k.fl, k.x_hat(k.fl)
        got = {
            "dweight": fl.add(products(k, dy)),
            "dbias": fl.add(k.sum(dy)),
            "dx": fl.add(fl(fl(WEIGHT * k.s) * dy)),
            "dx, weight last": fl.add(fl(fl(dy * k.s) * WEIGHT)),
        }
        raised(
            worst,
            shares({name.replace(",", ""): result for name, result in got.items()}, exact.first()),
        )
        second = {
            "ddy": fl.add(
                fl.add(fl.add(fl(fl(v * k.s) * WEIGHT) + fl(OF_WEIGHT * x_hat)) + OF_BIAS)
            ),
            "ddx": fl.add(fl(fl(OF_WEIGHT * k.s) * dy)),
            "ddweight": fl.add(k.sum(fl(fl(v * dy) * k.s))),
        }
        raised(worst, shares(second, exact.second()))

    stay_within()
    assert all(largest > 0.1 for largest in worst.values()), worst


@pytest.mark.parametrize("flushes", [True, False], ids=["flushed", "not flushed"])
@pytest.mark.parametrize("form", SECOND)
def test_second_derivatives_stay_within_their_bounds_where_everything_underflows(
    form: str, flushes: bool
) -> None:
    is_centred, second = SECOND[form]

    @examples(35)
    @given(data(TINY, eps=(0.5, 1.0), longest=60), st.sampled_from(sorted(FORWARDS)))
    def stay_within(drawn: Data, forward: str) -> None:
        grade, kernel = FORWARDS[forward]
        claims = Accuracy(grade, centred_products=is_centred, subnormals=not flushes)
        model = Model(DType("fine", FINE, FINE, FINE), drawn.n, claims)
        k = Seen.of(drawn, model, kernel)
        raised(
            {},
            shares(
                second(k, k.io.read(drawn.dy), k.io.read(drawn.v)), Exact.of(drawn, model).second()
            ),
        )

    stay_within()
