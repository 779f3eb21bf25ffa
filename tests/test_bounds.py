"""The error bounds by themselves: their formulas, their order, and their domain."""

from __future__ import annotations

from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, ConfigError
from bn_spec.case.dtypes import DTYPES, Floats
from bn_spec.case.steps import Forward
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import (
    BUDGET,
    GRADES,
    Accuracy,
    Model,
    Moments,
    batch_moments,
    in_range,
    inverse_std_error,
    output_bound,
    running_bound,
    squares_in_range,
    stored_moments,
    sums_in_range,
    variance_in_range,
)
from bn_spec.oracle.reference import Extended
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import cases
from tests.bound_cases import (
    FLOAT32,
    FLOAT64,
    each_dtype,
    each_grade,
    expected_of,
    judged,
    magnitudes,
)
from tests.common import examples


@each_dtype
@examples(300)
@given(
    var=magnitudes, spread=magnitudes, eps=st.floats(-20, 4).map(lambda exponent: 10.0**exponent)
)
def test_the_error_of_the_inverse_std_is_that_of_the_worse_end_and_the_budget(
    dtype: str, var: float, spread: float, eps: float
) -> None:
    model, dvar = Model(DTYPES[dtype], 2), var * spread
    with localcontext(prec=60):
        v, d, e = Decimal(var), Decimal(dvar), Decimal(eps)
        ends = [((v + e) / (end + e)).sqrt() - 1 for end in (max(v - d, Decimal(0)), v + d)]
        worst, budget = max(map(abs, ends)), Decimal(model.spent("inverse std"))
        due = float(worst + budget * (1 + worst))
    assert inverse_std_error_of(model, var, dvar, eps) == pytest.approx(due, rel=2.0**-40, abs=0)


def inverse_std_error_of(model: Model, var: float, dvar: float, eps: float) -> float:
    zero = np.zeros((1, 1))
    return float(inverse_std_error(model, Moments(zero, zero + var, zero, zero + dvar), eps)[0, 0])


@pytest.mark.parametrize(
    ("var", "dvar", "eps", "low", "high"),
    [
        pytest.param(
            1.0, 1.0, 1e-10, 9e4, 1e5, id="a variance that can vanish makes s far too large"
        ),
        pytest.param(
            1e-6, 1.0, 1e-6, 0.99, 1, id="a variance lost in its error makes s far too small"
        ),
        pytest.param(0.0, 0.0, 1e-5, 0, 1e-6, id="an exact variance leaves the roundings"),
    ],
)
def test_either_end_of_the_computed_variance_can_be_the_worse(
    var: float, dvar: float, eps: float, low: float, high: float
) -> None:
    assert low < inverse_std_error_of(Model(FLOAT32, 2), var, dvar, eps) < high


@st.composite
def possible_statistics(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and mean|x| of some possible data."""
    mean, sigma = draw(magnitudes | st.just(0.0)), draw(magnitudes | st.just(0.0))
    mean_abs = mean + draw(st.floats(0, 1)) * (np.hypot(mean, sigma) - mean)
    return np.array([[-mean]]), np.array([[sigma**2]]), np.array([[mean_abs]])


def bounds_of(model: Model, exact: tuple[Floats, Floats, Floats]) -> dict[str, float]:
    """Return every bound for a value one standard deviation above the mean."""
    moments = batch_moments(model, *exact)
    mean, var, _ = exact
    sigma, one = np.sqrt(var), np.ones((1, 1))
    x_hat = sigma / np.sqrt(var + 1e-5)
    return {
        "mean": moments.dmean.item(),
        "var": moments.dvar.item(),
        "inverse std": inverse_std_error(model, moments, 1e-5).item(),
        "output": output_bound(model, moments, 1e-5, mean + sigma, x_hat, 2 * one, -one).item(),
        "running_mean": running_bound(
            model, one, mean, moments.dmean, 0.1, 0.9 + 0.1 * mean
        ).item(),
        "running_var": running_bound(model, one, var, moments.dvar, 0.1, 0.9 + 0.1 * var).item(),
    }


@each_dtype
@examples(180)
@given(exact=possible_statistics(), n=st.integers(2, 2000))
def test_each_grade_admits_all_before_it(
    dtype: str, exact: tuple[Floats, Floats, Floats], n: int
) -> None:
    assert_growing(
        *(bounds_of(Model(DTYPES[dtype], n, Accuracy(grade)), exact) for grade in GRADES)
    )


@each_grade
@examples(180)
@given(exact=possible_statistics(), n=st.integers(2, 2000), more=st.integers(1, 1000))
def test_every_bound_grows_with_the_number_of_values_and_with_the_unit_roundoff(
    grade: str, exact: tuple[Floats, Floats, Floats], n: int, more: int
) -> None:
    models = [
        Model(row, k, Accuracy(grade))
        for row, k in ((FLOAT64, n), (FLOAT32, n), (FLOAT32, n + more))
    ]
    assert_growing(*(bounds_of(model, exact) for model in models))


def assert_growing(*steps: dict[str, float]) -> None:
    for smaller, larger in pairwise(steps):
        for name, bound in smaller.items():
            assert 0 < bound <= larger[name] < np.inf, name


@each_dtype
@each_grade
def test_every_bound_is_positive_and_finite_wherever_nothing_can_overflow(
    dtype: str, grade: str
) -> None:
    row = DTYPES[dtype]
    bounded = {"float32": 1e30, "float64": 1e300}[row.accumulation.name]

    @examples(70)
    @given(cases(dtype=dtype))
    def are_positive_and_finite(case: Case) -> None:
        expected = expected_of(case, grade)
        (x,) = case.forwards()
        wide = np.abs(x.astype(np.float64))
        safe = (
            x.size * wide.max()
        ) ** 2 < bounded and row.data.largest > 1e30  # half-precision results overflow
        for tensor in (expected.output, expected.running_mean, expected.running_var):
            if tensor is not None:
                assert (tensor.bound > 0).all()
                assert np.isfinite(tensor.bound).all() or not safe

    are_positive_and_finite()


def test_gamma_is_the_growth_of_a_number_of_roundings() -> None:
    model = Model(FLOAT32, 2)
    assert model.gamma(0) == 0
    assert model.gamma(1) == FLOAT32.data.u / (1 - FLOAT32.data.u)
    assert model.gamma(2**23) == 1


@pytest.mark.parametrize("expression", BUDGET)
def test_an_expression_spends_the_sum_of_its_budget(expression: str) -> None:
    assert all(roundings > 0 for roundings in BUDGET[expression].values())
    model = Model(FLOAT32, 2)
    assert model.spent(expression) == model.gamma(sum(BUDGET[expression].values()))


def test_an_unknown_grade_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"grade 'welfort' is not known; .*; did you mean 'welford'\?"
    ):
        Accuracy("welfort")


@pytest.mark.parametrize("roundings", [2**24, 2**24 + 1, 2**40])
def test_gamma_is_infinite_once_the_roundings_can_lose_everything(roundings: int) -> None:
    assert Model(FLOAT32, 2).gamma(roundings) == np.inf


@each_grade
@np.errstate(all="ignore")
def test_too_many_values_for_any_correct_digit_are_outside_the_domain(grade: str) -> None:
    exact = np.array([[1.0]]), np.array([[1.0]]), np.array([[1.0]])
    model = Model(FLOAT32, 2**24, Accuracy(grade))
    moments = batch_moments(model, *exact)
    x_hat = weight = bias = np.ones((1, 1))
    bound = output_bound(model, moments, 1e-5, exact[0], x_hat, weight, bias)
    assert moments.dmean == moments.dvar == np.inf
    assert not np.isfinite(bound)
    assert Bounded(Extended(np.zeros((1, 1))), bound).share(np.array([[1e30]])) == 0


@pytest.mark.parametrize(
    ("largest", "sums", "squares"),
    [
        (1.0, True, True),
        (1e18, True, True),
        (1e19, True, False),
        (1e30, True, False),
        (1e37, False, False),
        (np.inf, False, False),
        (np.nan, False, False),
    ],
)
def test_data_whose_sums_or_squares_overflow_or_that_are_not_finite_are_outside(
    largest: float, sums: bool, squares: bool
) -> None:
    model, column, nothing = Model(FLOAT32, 8), np.array([[largest]]), np.zeros((1, 1))
    assert sums_in_range(model, column).item() is sums
    assert squares_in_range(model, nothing, column, nothing).item() is squares
    assert squares_in_range(model, nothing, nothing, column).item() is squares
    assert in_range(FLOAT32.data, np.ones((1, 1)), column**2).item() is squares


def test_a_textbook_kernel_squares_the_values_and_others_their_deviations() -> None:
    far, close = np.array([[1e25]]), np.array([[1.0]])
    for grade, inside in (("two-pass", True), ("welford", True), ("textbook", False)):
        assert (
            squares_in_range(Model(FLOAT32, 8, Accuracy(grade)), far, close, close).item() is inside
        )


def test_a_variance_and_an_eps_that_are_subnormal_together_are_outside() -> None:
    model = Model(FLOAT32, 8)
    nothing = stored_moments(model, np.zeros((1, 1)), np.zeros((1, 1)))
    assert variance_in_range(model, nothing, 1e-36).item() is True
    assert variance_in_range(model, nothing, 1e-38).item() is False


@pytest.mark.parametrize(
    ("odd", "outside"),
    [
        (np.nan, 4),
        (np.inf, 4),
        (-np.inf, 4),
        pytest.param(1e30, 3, id="the mean of numbers whose squares overflow is judged"),
    ],
)
def test_a_channel_outside_the_domain_is_counted_and_its_neighbours_are_judged(
    odd: float, outside: int
) -> None:
    x = np.array([[0, 0], [odd, 1]], np.float32).reshape(2, 2, 1, 1)
    verdict = judged(
        Case(Config(2), None, (Forward(x),)), SPECIMENS["two-pass-sequential"], "welford"
    )
    assert (verdict.outside, verdict.judged) == (outside, 8 - outside)
    assert not verdict.discrepancies


def test_on_two_small_numbers_the_bound_of_running_var_is_tiny() -> None:
    x = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)
    var = expected_of(Case(Config(1, momentum=1.0), None, (Forward(x),))).running_var
    assert var is not None
    assert var.value.hi == 0.5
    assert var.bound < 0.5 * 1e-5
