"""The bounds of gradients by themselves: their order, their zeros, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import DTYPES, DType, Floats
from bn_spec.oracle import gradient_bounds as gb
from bn_spec.oracle.bounds import Accuracy, Model
from tests.backward_arithmetic import (
    CHANNELS,
    COARSE,
    FLOAT32,
    FLOAT64,
    FORWARDS,
    KEPT,
    OF_BIAS,
    OF_WEIGHT,
    PRECISE,
    ROUGH,
    WEIGHT,
    Data,
    Exact,
    data,
    mean,
)
from tests.common import examples


def all_bounds(drawn: Data, accuracy: Accuracy, row: DType = COARSE) -> dict[str, Floats]:
    exact = Exact.of(drawn, Model(row, drawn.n, accuracy))
    return {name: bound for name, (_, bound) in (exact.first() | exact.second()).items()}


def assert_growing(smaller: Mapping[str, Floats], larger: Mapping[str, Floats]) -> None:
    """Assert that no bound shrinks, up to the rounding of equal bounds."""
    for name, bound in smaller.items():
        assert ((bound <= larger[name] * (1 + 1e-9)) | (larger[name] < 1e-30)).all(), name


CLAIMS = [
    Accuracy(grade, centred_products=claimed)
    for grade, _ in FORWARDS.values()
    for claimed in (True, False)
]


@examples(35)
@given(data(longest=40), st.sampled_from(CLAIMS), st.integers(2, 4))
def test_the_bounds_grow_with_the_number_of_values_and_with_the_unit_roundoff(
    drawn: Data, claims: Accuracy, times: int
) -> None:
    """Rows repeated ``times`` times have the same means, and sums ``times`` times as large."""
    x, dy, v = (np.tile(rows, times) for rows in (drawn.x, drawn.dy, drawn.v))
    models = (
        (drawn, FLOAT64),
        (drawn, FLOAT32),
        (drawn, COARSE),
        (replace(drawn, x=x, dy=dy, v=v), COARSE),
    )
    steps = [all_bounds(d, claims, row) for d, row in models]
    steps[-1] = {name: bound[:, : steps[0][name].shape[1]] for name, bound in steps[-1].items()}
    for smaller, larger in pairwise(steps):
        assert_growing(smaller, larger)


NARROWER = [
    (Accuracy("two-pass"), Accuracy("welford")),
    (Accuracy("welford"), Accuracy("textbook")),
    (Accuracy("welford", direct_means=True), Accuracy("welford")),
    *(
        (Accuracy(grade, centred_products=True), Accuracy(grade))
        for grade in ("two-pass", "welford", "textbook")
    ),
    *(
        (Accuracy(grade, "wide"), Accuracy(grade, "any order"))
        for grade in ("two-pass", "welford", "textbook")
    ),
    *((Accuracy(grade, "wide"), Accuracy(grade, "pairwise")) for grade in ("two-pass", "textbook")),
    (Accuracy("two-pass", "pairwise"), Accuracy("two-pass")),
    (Accuracy(), Accuracy(statistics="parameters")),
    (Accuracy(), Accuracy(elementwise="parameters")),
]


@pytest.mark.parametrize(("narrow", "wide"), NARROWER)
def test_a_narrower_claim_never_widens_a_bound(narrow: Accuracy, wide: Accuracy) -> None:
    differs = False
    row = DType("coarse", ROUGH, ROUGH, PRECISE)

    @examples(20)
    @given(data(longest=400))
    def widens_none(drawn: Data) -> None:
        nonlocal differs
        ours, theirs = (all_bounds(drawn, claims, row) for claims in (narrow, wide))
        assert_growing(ours, theirs)
        differs |= any((bound < theirs[name]).any() for name, bound in ours.items())

    widens_none()
    assert differs


@pytest.mark.parametrize("claims", [*CLAIMS[::2], Accuracy(subnormals=False), KEPT["both"]])
def test_where_dy_is_zero_in_a_channel_no_error_is_allowed(claims: Accuracy) -> None:
    @examples(10)
    @given(data(longest=20), st.integers(0, CHANNELS - 1))
    def none_is_allowed(drawn: Data, channel: int) -> None:
        silent = np.where(
            np.arange(CHANNELS)[:, None] == channel, 0, np.where(drawn.dy == 0, 1, drawn.dy)
        )
        zeros = replace(drawn, dy=silent)
        for row in (COARSE, FLOAT32, DTYPES["bfloat16"]):
            exact = Exact.of(zeros, Model(row, zeros.n, claims)).first()
            for name, (_, bound) in exact.items():
                assert ((bound > 0).all(axis=1) == (np.arange(CHANNELS) != channel)).all(), name
                assert (bound[channel] == 0).all(), name

    none_is_allowed()


@examples(20)
@given(data(longest=20))
def test_where_all_cotangents_are_zero_no_error_is_allowed_in_a_second_derivative(
    drawn: Data,
) -> None:
    exact, zeros, none = (
        Exact.of(drawn, Model(COARSE, drawn.n)),
        np.zeros_like(drawn.v),
        np.zeros((CHANNELS, 1)),
    )
    g, a = exact.direction(drawn.dy), exact.direction(zeros)
    assert (gb.double_dy_bound(a, WEIGHT, none, none) == 0).all()
    assert (gb.double_weight_bound(g, a, none) == 0).all()
    assert (gb.double_input_bound(g, a, none, WEIGHT, none) == 0).all()


@examples(20)
@given(data(longest=20))
def test_a_bound_has_the_shape_of_what_it_bounds(drawn: Data) -> None:
    exact = Exact.of(drawn, Model(COARSE, drawn.n))
    for name, (value, bound) in exact.first().items():
        assert value.shape == bound.shape, name
    g, a, product = exact.direction(drawn.dy), exact.direction(drawn.v), mean(drawn.dy * drawn.v)
    assert gb.double_dy_bound(a, WEIGHT, OF_WEIGHT, OF_BIAS).shape == drawn.x.shape
    assert gb.double_input_bound(g, a, product, WEIGHT, OF_WEIGHT).shape == drawn.x.shape
    assert gb.double_weight_bound(g, a, product).shape == (CHANNELS, 1)
