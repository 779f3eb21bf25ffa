"""The error bounds are theorems: no sound kernel exceeds them, whatever the data; and a fault does."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from bn_spec import Case, Config, ConfigError
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES, Array, DType, Floats
from bn_spec.case.steps import Forward
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import (
    BUDGET,
    GRADES,
    Accuracy,
    Model,
    Moments,
    batch_moments,
    stored_moments,
    in_range,
    inverse_std_error,
    output_bound,
    running_bound,
    squares_in_range,
    sums_in_range,
    variance_in_range,
)
from bn_spec.oracle.expectation import Expectation, expect
from bn_spec.oracle.reference import Extended
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.strategies import FAMILIES, MIXED, Recipe, cases, chosen, values

from .arithmetic import (
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
from .common import examples

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]
VALUES = ("output", "running_mean", "running_var")
OFFSETS = {
    "float32": (0.0, 1e3, -1e4, 1e6, 1.0, 3e7),
    "float64": (0.0, 1e3, -1e4, 1e6, 1.0, 1e9, -1e12, 1e16),
}
"""Up to where nothing but the offset is left of the data, by the format of accumulation."""

HALF = [name for name, row in DTYPES.items() if row.data.name in ("float16", "bfloat16")]

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_full_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
"""Half-precision data have too few bits for a mean far above their deviation."""

each_grade = pytest.mark.parametrize("grade", GRADES)


def ill_conditioned(dtype: str, *history: str) -> st.SearchStrategy[Case]:
    """Cases whose mean is far above their deviation, of every family, with the least eps and the whole momentum."""
    value = values(
        (*FAMILIES, MIXED),
        scales=(0, 10, -10, 20, -20),
        offsets=OFFSETS[DTYPES[dtype].accumulation.name],
    )
    momenta = (1.0, 0.1, None, 0.999, 0.01)
    return cases(
        dtype=dtype, history=history, value=value, eps=(1e-5, 1e-12, 1e-20, 1.0), momentum=momenta
    )


def judged(case: Case, specimen: Specimen, grade: str) -> Verdict:
    return judge(case, play(case, specimen), VALUES, replace(specimen.capabilities, grade=grade))


def share(case: Case, specimen: str, grade: str, observable: str) -> float:
    return judged(case, SPECIMENS[specimen], grade).shares.get(observable, 0.0)


# The theorem, on kernels


def some_dtypes(specimen: Specimen, place: int) -> tuple[str, ...]:
    """Return the first dtype that a specimen claims, and another in turn; the soak has them all."""
    first, *others = specimen.capabilities.dtypes
    return (first, *others[place % max(len(others), 1) :][:1])


@pytest.mark.parametrize(
    ("history", "number", "observed"),
    [
        pytest.param(("forward",), 50, VALUES, id="training"),
        pytest.param(("eval", "forward"), 20, ("output",), id="eval"),
    ],
)
@pytest.mark.parametrize(
    ("specimen", "dtype"),
    [
        pytest.param(specimen, dtype, id=f"{specimen.name}-{dtype}")
        for place, specimen in enumerate(each for each in SPECIMENS.values() if each.sound)
        for dtype in some_dtypes(specimen, place)
    ],
)
def test_a_sound_kernel_stays_within_the_bound_of_its_grade(
    specimen: Specimen, dtype: str, history: tuple[str, ...], number: int, observed: tuple[str, ...]
) -> None:
    worst = dict.fromkeys(observed, 0.0)

    @examples(number if dtype in HALF else number // 2)
    @given(ill_conditioned(dtype, *history))
    def stays_within(case: Case) -> None:
        verdict = judged(case, specimen, specimen.capabilities.grade)
        assert not verdict.discrepancies
        for observable in observed:
            worst[observable] = max(worst[observable], verdict.shares.get(observable, 0.0))

    stays_within()
    assert all(0 < share <= 1 for share in worst.values()), worst
    claims = specimen.capabilities
    coarse = claims.dialect.output(Config(1, dtype=dtype)) == DTYPES[dtype].data and dtype in HALF
    if (
        observed == VALUES
        and coarse
        and claims.normalises_by_batch
        and claims.statistics == "accumulation"
        and claims.subnormals
    ):
        assert worst["output"] > 0.9  # one final rounding uses nearly all of its bound


@each_full_dtype
@pytest.mark.parametrize(
    ("specimen", "grade", "observable"),
    [
        ("textbook", "welford", "output"),
        ("textbook", "welford", "running_var"),
        ("welford", "two-pass", "running_var"),
        ("chan-merge", "two-pass", "running_var"),
    ],
)
def test_a_kernel_is_beyond_the_bound_of_the_grade_above_its_own(
    specimen: str, grade: str, observable: str, dtype: str
) -> None:
    beyond = find(
        ill_conditioned(dtype, "forward"),
        lambda case: share(case, specimen, grade, observable) > 1,
        settings=examples(600),
    )
    assert share(beyond, specimen, SPECIMENS[specimen].capabilities.grade, observable) <= 1


@each_grade
@pytest.mark.parametrize("observable", VALUES)
def test_sums_in_half_precision_are_beyond_every_bound(observable: str, grade: str) -> None:
    mild = cases(value=values(("gaussian",), scales=(0,), offsets=(0.0, 1.0)), momentum=(1.0,))
    beyond = find(
        mild,
        lambda case: share(case, "sums-in-half-precision", grade, observable) > 1,
        settings=examples(600),
    )
    assert share(beyond, "two-pass-sequential", grade, observable) <= 1


# The theorem, on arithmetics: every operation is rounded as unluckily as a rule can have it

U = 2.0**-12
_COARSE = replace(FLOAT32.data, name="coarse", u=U)
COARSE = DType("coarse", _COARSE, _COARSE, _COARSE)
"""A row whose roundings are so coarse that float64 carries them out exactly, for all that shows."""


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
            rows, one_by_one, Arithmetic(_COARSE, RULES[rule], np.random.default_rng(recipe.seed))
        )
        assert (np.abs(mean[:, None] - bound.mean) <= bound.dmean).all()
        assert (np.abs(var[:, None] - bound.var) <= bound.dvar).all()

    stay_within()


def _unlucky(roundings: int) -> Array:
    """Return 1 + u or 1 − u for each of so many roundings, in every combination: one array per rounding."""
    return 1 + U * np.array(list(product((-1, 1), repeat=roundings))).T


numbers = st.floats(-1e3, 1e3)
magnitudes = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)
MODEL = Model(COARSE, 2, Accuracy("two-pass"))


@examples(180)
@given(var=magnitudes, eps=magnitudes)
def test_the_budget_of_the_inverse_std_pays_for_the_worst_roundings(var: float, eps: float) -> None:
    eps_held, added, _ = _unlucky(3)
    rsqrt = np.array([1 - 4 * U, 1 + 4 * U])[:, None]
    s = rsqrt / np.sqrt((var + eps * eps_held) * added)
    due = inverse_std_error(MODEL, stored_moments(MODEL, np.zeros(1), np.array([var])), eps)
    assert (np.abs(s * np.sqrt(var + eps) - 1) <= due).all()


@pytest.mark.parametrize("folded", [False, True], ids=["direct", "folded"])
def test_the_budget_of_the_output_pays_for_the_worst_roundings_of_either_form(folded: bool) -> None:
    @examples(180)
    @given(x=numbers, mu=numbers, var=magnitudes, eps=magnitudes, weight=numbers, bias=numbers)
    def pays(x: float, mu: float, var: float, eps: float, weight: float, bias: float) -> None:
        exact_s = 1 / np.sqrt(var + eps)
        x_hat = (x - mu) * exact_s
        r1, r2, r3, r4, r5, toward_s, cast = _unlucky(7)
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
        r1, r2, r3, r4, r5, r6, r7, cast = _unlucky(8)
        m, b = momentum * r1, batch * r2 * r3
        if by_difference:
            new = (old + m * ((b - old) * r4) * r5) * r6 * cast
        else:
            new = ((1 - m) * r4 * old * r5 + m * b * r6) * r7 * cast
        exact = (1 - momentum) * old + momentum * batch
        held, seen, blended = (np.array([[value]]) for value in (old, batch, exact))
        bound = running_bound(MODEL, held, seen, np.zeros((1, 1)), momentum, blended)
        assert (np.abs(new - exact) <= bound).all()

    pays()


# The inverse standard deviation


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
    assert _inverse_std_error(model, var, dvar, eps) == pytest.approx(due, rel=2.0**-40, abs=0)


def _inverse_std_error(model: Model, var: float, dvar: float, eps: float) -> float:
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
    assert low < _inverse_std_error(Model(FLOAT32, 2), var, dvar, eps) < high


# The bounds among themselves


@st.composite
def possible_statistics(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and mean|x| that some data could have."""
    mean, sigma = draw(magnitudes | st.just(0.0)), draw(magnitudes | st.just(0.0))
    mean_abs = mean + draw(st.floats(0, 1)) * (np.hypot(mean, sigma) - mean)
    return np.array([[-mean]]), np.array([[sigma**2]]), np.array([[mean_abs]])


def bounds_of(model: Model, exact: tuple[Floats, Floats, Floats]) -> dict[str, float]:
    """Every bound for a value one deviation above the mean."""
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
    _assert_growing(
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
    _assert_growing(*(bounds_of(model, exact) for model in models))


def _assert_growing(*steps: dict[str, float]) -> None:
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
        expected = _expected(case, grade)
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


def _expected(case: Case, grade: str = "welford") -> Expectation:
    (step,) = case.steps
    return expect(
        case.config, case.state or initial_state(case.config), True, step, Accuracy(grade)
    )


def test_gamma_is_the_growth_of_so_many_roundings() -> None:
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


# The domain


@pytest.mark.parametrize("roundings", [2**24, 2**24 + 1, 2**40])
def test_gamma_is_infinite_once_the_roundings_can_lose_everything(roundings: int) -> None:
    assert Model(FLOAT32, 2).gamma(roundings) == np.inf


@each_grade
@np.errstate(all="ignore")
def test_so_many_values_that_nothing_is_left_are_outside_and_use_no_share(grade: str) -> None:
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


def test_on_two_small_numbers_a_wrong_running_var_has_nowhere_to_hide() -> None:
    x = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)
    var = _expected(Case(Config(1, momentum=1.0), None, (Forward(x),))).running_var
    assert var is not None
    assert var.value.hi == 0.5
    assert var.bound < 0.5 * 1e-5
