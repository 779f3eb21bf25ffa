"""Symmetric errors are never flagged as biased, whatever their sizes; one-sided errors are."""

from collections.abc import Callable
from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import Floats
from bn_spec.oracle.bias import FALSE_ALARM, LIMIT, bias
from tests.common import examples

Draw = Callable[[np.random.Generator, int], Floats]

SIZES: dict[str, Draw] = {
    "equal": lambda _, n: np.ones(n),
    "gaussian": lambda rng, n: np.abs(rng.normal(size=n)),
    "uniform": lambda rng, n: rng.random(n),
    "heavy-tailed": lambda rng, n: np.exp(10 * rng.normal(size=n)),
    "one loud": lambda rng, n: np.where(np.arange(n) == rng.integers(n), 1e9, rng.random(n)),
    "mostly zero": lambda rng, n: (rng.random(n) < 0.05).astype(np.float64),
}
"""Distributions of the magnitudes of errors; the inequality holds for each."""

each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def test_the_limit_is_where_efrons_inequality_reaches_the_false_alarm() -> None:
    assert 2 * exp(-(LIMIT**2) / 2) == pytest.approx(FALSE_ALARM, rel=1e-12)
    assert 0 < 1e6 * FALSE_ALARM < 1e-9


@each_size
@pytest.mark.parametrize("channels", [2, 64, 512, 4096])
def test_symmetric_errors_are_never_beyond_the_limit(size: Draw, channels: int) -> None:
    rng = np.random.default_rng(channels)
    worst = max(
        abs(bias(size(rng, channels) * rng.choice((-1, 1), channels)))
        for _ in range(4_000_000 // channels // 40)
    )
    assert worst <= 1


def test_the_inequality_holds_at_a_limit_that_can_be_sampled() -> None:
    """The fraction of symmetric errors beyond t √(Σ Z²) is below 2 exp(−t² / 2)."""
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (100_000, 64))
    ratios = np.abs([bias(row) * LIMIT for row in signs])
    for t in (1.5, 2.0, 2.5, 3.0):
        assert 0.02 * 2 * exp(-(t**2) / 2) < (ratios >= t).mean() <= 2 * exp(-(t**2) / 2)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [SIZES[name] for name in ("equal", "gaussian", "uniform")])
@pytest.mark.parametrize("channels", [512, 2048])
def test_one_sided_errors_are_beyond_the_limit_with_their_sign(
    size: Draw, channels: int, sign: int
) -> None:
    rng = np.random.default_rng(channels)
    for _ in range(200):
        assert sign * bias(sign * size(rng, channels)) > 1


def test_a_shift_of_half_the_deviation_shows_over_a_thousand_channels() -> None:
    rng = np.random.default_rng(0)
    assert all(bias(rng.normal(0.5, 1, 1024)) > 1 for _ in range(200))


def test_too_few_channels_prove_nothing() -> None:
    """Even errors that are all the same reach √n at most."""
    fewest = int(np.ceil(LIMIT**2))
    assert bias(np.ones(fewest - 1)) < 1 < bias(np.ones(fewest + 1))
    assert 64 < fewest < 512  # the regions of many channels have more channels than this


@pytest.mark.parametrize("errors", [np.zeros(0), np.zeros(1), np.zeros(4096), -np.zeros(7)])
def test_no_errors_have_no_bias(errors: Floats) -> None:
    assert bias(errors) == 0


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_errors_that_are_not_finite_have_no_bias(odd: float) -> None:
    """Such errors are outside the domain of the bounds, or are judged as beyond them."""
    errors = np.ones(4096)
    errors[7] = odd
    assert bias(errors) == 0


@examples(120)
@given(
    errors=st.lists(
        st.floats(-1e3, 1e3).filter(lambda z: z == 0 or abs(z) > 1e-3), min_size=1, max_size=50
    ),
    exponent=st.integers(-300, 300),
)
def test_the_scale_of_the_errors_does_not_matter_and_their_sign_does(
    errors: list[float], exponent: int
) -> None:
    plain = np.array(errors)
    assert bias(np.ldexp(plain, exponent)) == pytest.approx(bias(plain), rel=1e-12, abs=1e-15)
    assert bias(-plain) == -bias(plain)


@examples(60)
@given(st.permutations(range(20)))
def test_the_order_of_the_channels_does_not_matter(order: list[int]) -> None:
    errors = np.linspace(-1, 3, 20)
    assert bias(errors[order]) == pytest.approx(bias(errors), rel=1e-12)
