"""Double-double arithmetic stays within its stated relative errors, by rational arithmetic."""

import operator
from collections.abc import Callable
from fractions import Fraction
from math import ldexp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.oracle.reference import Extended
from tests.common import examples

U = Fraction(1, 2**53)
BOUNDS = {
    "add": 3 * U**2,
    "sub": 3 * U**2,
    "mul": 5 * U**2,
    "truediv": 15 * U**2,
    "sqrt": Fraction(25, 8) * U**2,
}

SIGNIFICANDS = st.one_of(st.floats(1, 2, exclude_max=True), st.floats(-2, -1, exclude_min=True))
TAILS = st.floats(-1, 1)


def normalised(hi: float, lo: float) -> Extended:
    """Return ``hi + lo`` normalised, as every result is: ``hi`` is the nearest float64."""
    nearest = hi + lo
    return Extended(nearest, float(Fraction(hi) + Fraction(lo) - Fraction(nearest)))


def exact(number: Extended) -> Fraction:
    return Fraction(float(number.hi)) + Fraction(float(number.lo))


@st.composite
def numbers(draw: st.DrawFn, largest: int = 200) -> Extended:
    """Double-double numbers of magnitude 2**-largest to 2**largest.

    No operation on two such numbers underflows.
    """
    hi = ldexp(draw(SIGNIFICANDS), draw(st.integers(-largest, largest)))
    return normalised(hi, draw(TAILS) * abs(hi) * 2.0**-53)


@st.composite
def near_opposites(draw: st.DrawFn) -> tuple[Extended, Extended]:
    """Two numbers whose leading parts cancel all but a few units in the last place."""
    x = draw(numbers())
    hi = -float(x.hi) * (1 + draw(st.integers(-4, 4)) * 2.0**-52)
    return x, normalised(hi, draw(TAILS) * abs(hi) * 2.0**-53)


def is_normalised(number: Extended) -> bool:
    return bool(number.hi + number.lo == number.hi)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv"])
def test_each_operation_errs_by_at_most_its_stated_bound(name: str) -> None:
    operation: Callable[[Extended | Fraction, Extended | Fraction], Extended | Fraction] = getattr(
        operator, name
    )

    @examples(360)
    @given(numbers(), numbers())
    def judge(x: Extended, y: Extended) -> None:
        got, wanted = operation(x, y), operation(exact(x), exact(y))
        assert isinstance(got, Extended)
        assert isinstance(wanted, Fraction)
        assert abs(exact(got) - wanted) <= BOUNDS[name] * abs(wanted)
        assert is_normalised(got)

    judge()


@examples(360)
@given(near_opposites())
def test_a_sum_that_cancels_errs_by_at_most_the_stated_bound(
    pair: tuple[Extended, Extended],
) -> None:
    x, y = pair
    wanted = exact(x) + exact(y)
    assert abs(exact(x + y) - wanted) <= BOUNDS["add"] * abs(wanted)


@examples(360)
@given(numbers())
def test_a_square_root_errs_by_at_most_its_stated_bound(x: Extended) -> None:
    """For a root r >= 0, |r − √a| <= e √a exactly if (1 − e)² a <= r² <= (1 + e)² a."""
    square = -x if x.hi < 0 else x
    root, e = exact(square.sqrt()), BOUNDS["sqrt"]
    assert root > 0
    assert (1 - e) ** 2 * exact(square) <= root**2 <= (1 + e) ** 2 * exact(square)


@examples(90)
@given(st.lists(numbers(largest=60), min_size=1, max_size=40))
def test_a_total_errs_by_at_most_one_addition_per_level_of_a_balanced_tree(
    terms: list[Extended],
) -> None:
    got = Extended(np.array([t.hi for t in terms]), np.array([t.lo for t in terms])).total()
    levels = (len(terms) - 1).bit_length()
    scale = sum(abs(exact(t)) for t in terms)
    assert got.hi.shape == (1,)
    assert (
        abs(exact(got[0]) - sum(map(exact, terms))) <= ((1 + BOUNDS["add"]) ** levels - 1) * scale
    )


@examples(60)
@given(numbers(), SIGNIFICANDS)
def test_a_float_stands_for_itself_on_either_side_of_an_operator(x: Extended, plain: float) -> None:
    y = Extended(plain)
    for left, right in (
        (x + plain, x + y),
        (plain + x, y + x),
        (x - plain, x - y),
        (plain - x, y - x),
    ):
        assert exact(left) == exact(right)
    for left, right in (
        (x * plain, x * y),
        (plain * x, y * x),
        (x / plain, x / y),
        (plain / x, y / x),
    ):
        assert exact(left) == exact(right)


@examples(60)
@given(numbers(largest=60))
def test_rounding_gives_a_nearest_float32_or_float64(x: Extended) -> None:
    for dtype, u in ((np.dtype(np.float32), Fraction(1, 2**24)), (np.dtype(np.float64), U)):
        rounded = x.rounded(dtype)
        assert rounded.dtype == dtype
        # Rounding to float64 first costs at most U. The number in the second rounding is larger by
        # at most U.
        assert abs(Fraction(float(rounded)) - exact(x)) <= (u + 2 * U) * abs(exact(x))


def test_the_sum_of_no_numbers_is_zero() -> None:
    assert exact(Extended(np.zeros((1, 0))).total()[0, 0]) == 0
