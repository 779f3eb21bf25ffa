"""Recipes of values: families, scales and offsets, in every format."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bn_spec.case.arrays import same_bits
from bn_spec.case.dtypes import DTYPES, Array, format_named
from bn_spec.strategies import (
    BALANCED,
    BEYOND,
    FAMILIES,
    MIXED,
    OFFSETS,
    PARAMETERS,
    SCALES,
    WIDE,
    Recipe,
    beside_loud_neighbours,
    cases,
    chosen,
    one_channel_shifted,
    shapes,
    values,
)
from bn_spec.strategies.tensors import bounded
from tests.draws import drawn, rows_of, sample_of_values, tensor

FLOAT32 = DTYPES["float32"]

# Every region is reached


def test_scales_and_offsets_go_far_both_ways() -> None:
    assert min(SCALES) <= -40 < 40 <= max(SCALES)
    assert max(OFFSETS) >= 1e6 > 0 > min(OFFSETS)


# Recipes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [*FAMILIES, MIXED])
def test_a_recipe_makes_the_same_bits_each_time(family: str, dtype: str) -> None:
    recipe = Recipe(family, -3, 100.0, 7)
    first, second = (recipe.make((3, 4, 2, 5), DTYPES[dtype]) for _ in range(2))
    assert same_bits(first, second)
    assert first.dtype == DTYPES[dtype].data.dtype
    assert first.shape == (3, 4, 2, 5)


@pytest.mark.parametrize("family", [*(name for name in FAMILIES if name != "ramp"), MIXED])
def test_another_seed_makes_other_values(family: str) -> None:
    first, second = (Recipe(family, 0, 0.0, seed).make((7, 7, 1, 1), FLOAT32) for seed in (1, 2))
    assert not same_bits(first, second)


def test_scale_and_offset_act_exactly() -> None:
    plain = Recipe("small integers", 0, 0.0, 5).make((4, 3, 2, 1), FLOAT32)
    assert same_bits(
        Recipe("small integers", -20, 100.0, 5).make((4, 3, 2, 1), FLOAT32),
        np.ldexp(plain + 100, -20),
    )


def test_a_ramp_counts_up_from_the_number_of_its_channel() -> None:
    x = Recipe("ramp", 0, 0.0, 0).make((2, 2, 1, 2), FLOAT32)
    assert x[:, 0].ravel().tolist() == [0, 1, 2, 3]
    assert x[:, 1].ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("family", "different"),
    [
        ("ramp", 200),
        ("small integers", 9),
        ("gaussian", 200),
        ("constant", 1),
        ("one-hot", 2),
        ("two-valued", 2),
    ],
)
def test_a_family_keeps_its_promise_in_every_channel(family: str, different: int) -> None:
    x = Recipe(family, 0, 0.0, 3).make((200, 5, 1, 1), DTYPES["float64"])
    assert {np.unique(x[:, c]).size for c in range(5)} == {different}


def test_mixed_values_are_of_a_different_family_in_each_channel() -> None:
    x = Recipe(MIXED, 0, 0.0, 3).make((200, len(FAMILIES), 1, 1), DTYPES["float64"])
    different = sorted(np.unique(x[:, c]).size for c in range(len(FAMILIES)))
    assert different == [1, 2, 2, 9, 200, 200, 200]


@pytest.mark.parametrize("n", [2, 7, 64, 4096])
def test_balanced_values_are_small_integers_beside_their_negatives(n: int) -> None:
    for dtype in DTYPES.values():
        rows = (
            Recipe(BALANCED, 0, 0.0, 5).make((n, 3, 1, 1), dtype)[:, :, 0, 0].T.astype(np.float64)
        )
        assert np.array_equal(np.sort(rows), -np.sort(rows)[:, ::-1])
        assert set(np.unique(np.abs(rows))) <= {0, 1, 2, 3, 4}
        assert (rows == 0).sum(axis=1).tolist() == [n % 2] * 3


def test_balanced_values_are_drawn_where_they_are_asked_for_alone() -> None:
    assert BALANCED not in {recipe.family for recipe in sample_of_values()}
    assert {recipe.family for recipe in drawn(chosen(values((BALANCED,))), 20)} == {BALANCED}


def exponents(x: Array) -> Array:
    """Exponent of each channel's largest value, as a share of the format's largest exponent."""
    limits = format_named(x.dtype.name)
    largest = np.abs(x.astype(np.float64)).max(axis=(0, 2, 3))
    shares: Array = np.log2(largest) / np.log2(limits.largest)
    return shares


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [scale for scale in (*WIDE, *BEYOND) if scale > -0.9])
def test_a_scale_that_is_a_share_reaches_as_far_in_every_format(share: float, dtype: str) -> None:
    x = Recipe("two-valued", share, 0.0, 1).make((64, 8, 1, 1), DTYPES[dtype])
    room = 4 / np.log2(DTYPES[dtype].data.largest)  # normal numbers of a few binary orders
    assert (np.abs(exponents(x) - share) <= room).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [*FAMILIES, MIXED, BALANCED])
@pytest.mark.parametrize("scale", [0.9, 1.0, 2000, -1.15, -2000, -1.0])
def test_a_scale_beyond_the_format_is_brought_to_the_nearest_within_it(
    scale: float, family: str, dtype: str
) -> None:
    for offset in (0.0, -10.0, 1e6):
        x = Recipe(family, scale, offset, 3).make((20, 7, 1, 1), DTYPES[dtype]).astype(np.float64)
        assert np.isfinite(x).all()
        assert x.any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "bfloat16"])
def test_data_beyond_have_squares_that_overflow_and_sums_that_do_not(dtype: str) -> None:
    largest = DTYPES[dtype].accumulation.largest
    met = drawn(
        cases(dtype=dtype, shape=shapes("small"), value=values(scales=BEYOND, offsets=(0.0, 1.0))),
        200,
    )
    sizes = [np.abs(rows_of(case)).max(axis=1) for case in met]
    with np.errstate(over="ignore"):
        overflowing = sum((size.max() ** 2 > largest) for size in sizes)
    summable = sum(
        bool((rows_of(case).shape[1] * size < largest).all())
        for case, size in zip(met, sizes, strict=True)
    )
    assert overflowing > 0.7 * len(met)
    assert summable > 0.7 * len(met)


def test_data_up_to_half_the_exponents_have_squares_in_range_more_often_than_not() -> None:
    met = drawn(cases(shape=shapes("small"), value=values(scales=WIDE, offsets=(0.0, 1.0))), 200)
    in_range = sum(
        bool(np.abs(rows_of(case)).max() ** 2 < FLOAT32.data.largest / 64) for case in met
    )
    assert in_range > 0.6 * len(met)


def test_the_last_channel_is_shifted_far_and_the_others_are_left_alone() -> None:
    x = Recipe("gaussian", -10, 0.0, 0).make((8, 3, 1, 1), FLOAT32)
    shifted = one_channel_shifted(x)
    assert same_bits(shifted[:, :-1], x[:, :-1])
    assert np.allclose(shifted[:, -1] - x[:, -1], 1000 * np.abs(x[:, -1]).max(), rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [one_channel_shifted, beside_loud_neighbours])
@pytest.mark.parametrize("scale", [0, 40, 0.9, -0.9])
def test_a_change_of_channels_stays_within_the_format(
    scale: float, change: Callable[[Array], Array], dtype: str
) -> None:
    x = Recipe("gaussian", scale, 0.0, 0).make((8, 3, 1, 1), DTYPES[dtype])
    changed = change(x)
    assert changed.dtype == x.dtype
    assert np.isfinite(changed.astype(np.float64)).all()
    assert scale > 0 or not same_bits(changed, x)  # large data may leave no room


def test_tensors_too_large_for_a_format_are_brought_to_a_size_that_leaves_room() -> None:
    half = format_named("float16")
    given_values = np.array([1.0, -1e4, 1e6, -1e300, np.inf, np.nan])
    kept = bounded(given_values, half)
    assert kept[:2].tolist() == [1.0, -1e4]
    assert kept[4] == np.inf
    assert np.isnan(kept[5])
    assert (np.abs(kept[2:4]) < half.largest / 4).all()
    assert (np.abs(kept[2:4]) > np.sqrt(half.largest)).all()
    assert np.sign(kept[2:4]).tolist() == [1, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("style", PARAMETERS)
def test_parameters_are_finite_and_of_the_dtype_of_the_parameters(style: str, dtype: str) -> None:
    for case in drawn(cases(dtype=dtype, parameters=(style,)), 15):
        for name in ("weight", "bias", "running_mean", "running_var"):
            held = tensor(case, name)
            assert case.state is None or held.dtype == DTYPES[dtype].parameters.dtype
            assert np.isfinite(held.astype(np.float64)).all()


def test_huge_weights_are_huge_and_minute_ones_minute_in_every_format() -> None:
    for dtype, row in DTYPES.items():
        narrower = min(row.parameters.largest, row.data.largest)
        for case in drawn(cases(dtype=dtype, parameters=("huge",)), 10):
            assert (np.abs(tensor(case, "weight").astype(np.float64)) > narrower**0.6).all()
        for case in drawn(cases(dtype=dtype, parameters=("minute",)), 10):
            assert (np.abs(tensor(case, "weight").astype(np.float64)) < 2.0**-14).all()


def test_neighbours_are_made_loud_and_the_first_channel_is_left_alone() -> None:
    x = Recipe("gaussian", 0, 0.0, 0).make((4, 3, 1, 1), FLOAT32)
    louder = beside_loud_neighbours(x)
    assert same_bits(louder[:, :1], x[:, :1])
    assert same_bits(louder[:, 1:], np.ldexp(x[:, 1:], 20))
