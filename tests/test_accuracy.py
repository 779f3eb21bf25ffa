"""What a kernel claims about its arithmetic narrows or widens its bounds, and each of them stays a theorem."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, State
from bn_spec.backend.adapters.reference_backend import reference
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES, Array, Bools, DType, Floats
from bn_spec.case.steps import Eval, Forward
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounded import Bounded, Demand
from bn_spec.oracle.bounds import (
    GRADES,
    OWN_ERROR,
    SUMMATIONS,
    Accuracy,
    Model,
    batch_moments,
    output_bound,
    running_bound,
    sums_exactly,
)
from bn_spec.oracle.expectation import Expectation, expect
from bn_spec.oracle.reference import Extended
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import BALANCED, FAMILIES, MIXED, Recipe, cases, chosen, shapes, values

from .arithmetic import (
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
from .common import examples

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]
OBSERVABLES = ("output", "running_mean", "running_var")

# The theorem, for every class of summation -----------------------------------------------------------------

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
"""Grade, class of summation, and a kernel of both."""

each_kernel = pytest.mark.parametrize(
    ("grade", "summation", "kernel"), KERNELS.values(), ids=KERNELS
)

PRECISE = replace(FLOAT64.data, name="precise", u=2.0**-12)
ROUGH = replace(FLOAT64.data, name="rough", u=2.0**-7)
FINE = replace(PRECISE, name="fine", smallest_normal=2.0**-6, smallest_subnormal=2.0**-17)
SHORT = replace(ROUGH, name="short", smallest_normal=2.0**-6, smallest_subnormal=2.0**-12)
"""Formats so coarse that float64 carries out their arithmetic exactly, for all that shows; the last two underflow."""

conditions = values((*FAMILIES, MIXED), scales=(0,), offsets=(0.0, 1.0, -10.0, 100.0, 1e3, -1e4))


def rows_of(recipe: Recipe, n: int) -> Floats:
    rows: Floats = recipe.make((n, 4, 1, 1), FLOAT64)[:, :, 0, 0].T
    return rows


@each_kernel
def test_batch_statistics_stay_within_the_bounds_of_their_summation_however_each_operation_is_rounded(
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
    assert min(worst) > 0.03  # a bound that nothing comes near to would hold for anything


MOMENTUM, OLD, WEIGHT = 0.3, 2.0, -3.0


class Chosen(NamedTuple):
    """What decides how far rounding shows: a small eps amplifies it, a bias hides it."""

    eps: float = 1e-3
    bias: float = 5.0


Answers: TypeAlias = tuple[Array, ...]
"""Output, running mean and running variance."""


def finished(
    rows: Array, mean: Array, var: Array, kept: Arithmetic, done: Arithmetic, chosen: Chosen
) -> Answers:
    """Spend the whole budgets of the elementwise expressions on given statistics."""
    n = rows.shape[1]
    m = kept(np.full(len(rows), MOMENTUM))
    s = kept(1 / np.sqrt(kept.add(np.maximum(var, 0) + kept(np.full(len(rows), chosen.eps)))))
    for _ in range(3):
        s = kept.add(s)  # of the four roundings, the division alone can underflow
    # A difference of two numbers of a format cannot underflow in it; that from a finer mean can.
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
def test_all_results_stay_within_their_bounds_where_statistics_or_elementwise_steps_are_kept_coarsely(
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
        summed, held, stepped, cast = (
            Arithmetic(format, RULES[rule], rng)
            for format, rule in zip(
                (PRECISE, model.statistics, model.elementwise, ROUGH), rules, strict=True
            )
        )
        mean, var = kernel(rows, one_by_one, summed)
        if model.keeps_coarsely:
            mean, var = held.add(mean), held(held(held.add(var)))
        answers = finished(rows, mean, var, held, stepped, Chosen())
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
        summed, held, stepped, cast = (
            Arithmetic(format, RULES[rule], rng, flushes)
            for format, rule in zip(formats, rules, strict=True)
        )
        seen = cast.read(rows)
        mean, var = kernel(seen, one_by_one, summed)
        if model.keeps_coarsely:
            mean, var = held(mean), held(held(held(var)))
        answers = tuple(map(cast, finished(seen, mean, var, held, stepped, chosen)))
        assert max(largest_shares(model, rows, answers, chosen)) <= 1
        keeping = Model(row, n, replace(claims, subnormals=True))
        lost += max(largest_shares(keeping, rows, answers, chosen)) > 1

    stay_within()
    assert (lost > 0) is flushes  # who flushes has to say so


# A claim narrows -------------------------------------------------------------------------------------------

NARROWER = [
    (Accuracy("two-pass"), Accuracy("welford")),
    (Accuracy("welford"), Accuracy("textbook")),
    (Accuracy("two-pass", direct_means=True), Accuracy("welford", direct_means=True)),
    (Accuracy("welford", direct_means=True), Accuracy("welford")),
    (Accuracy("textbook", direct_means=True), Accuracy("textbook")),
    (Accuracy("two-pass", "pairwise"), Accuracy("two-pass")),
    *((Accuracy(grade, "wide"), Accuracy(grade, "any order")) for grade in GRADES),
    *((Accuracy(grade, "wide"), Accuracy(grade, "pairwise")) for grade in GRADES),
    *((Accuracy(grade), Accuracy(grade, statistics="parameters")) for grade in GRADES),
    *((Accuracy(grade), Accuracy(grade, elementwise="parameters")) for grade in GRADES),
    *((Accuracy(grade), Accuracy(grade, subnormals=False)) for grade in GRADES),
]


def called(accuracy: Accuracy) -> str:
    departures = [
        str(v) if isinstance(v, str) else k
        for k, v in vars(accuracy).items()
        if v != vars(Accuracy())[k]
    ]
    return "-".join(departures) or "default"


def expected(case: Case, accuracy: Accuracy, training: bool = True) -> Expectation:
    (step,) = (step for step in case.steps if isinstance(step, Forward))
    return expect(case.config, case.state or initial_state(case.config), training, step, accuracy)


def parts(expectation: Expectation) -> dict[str, Bounded]:
    return {name: part for name in OBSERVABLES if (part := getattr(expectation, name)) is not None}


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [pytest.param(*pair, id=" vs ".join(map(called, pair))) for pair in NARROWER],
)
def test_a_stronger_claim_never_widens_a_bound_or_leaves_the_domain(
    narrow: Accuracy, wide: Accuracy
) -> None:
    differs = False

    @examples(35)
    @given(st.sampled_from(sorted(DTYPES)).flatmap(lambda dtype: cases(dtype=dtype)), st.booleans())
    def widens_none(case: Case, training: bool) -> None:
        nonlocal differs
        ours, theirs = (
            parts(expected(case, narrow, training)),
            parts(expected(case, wide, training)),
        )
        assert ours.keys() == theirs.keys()
        for name, part in ours.items():
            # Rounding may order equal bounds either way.
            assert (part.bound <= theirs[name].bound * (1 + 1e-12)).all(), name
            assert (part.demanded >= theirs[name].demanded).all(), name
            differs |= bool((part.bound < theirs[name].bound).any())

    widens_none()
    assert differs


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("summation", ["pairwise", "wide"])
def test_over_thousands_of_values_a_claimed_summation_narrows_the_bounds_of_the_statistics(
    summation: str, dtype: str, grade: str
) -> None:
    x = np.random.default_rng(0).normal(1, 1, (5000, 3, 1, 1)).astype(DTYPES[dtype].data.dtype)
    case = Case(Config(3, momentum=1.0, dtype=dtype), None, (Forward(x),))
    claimed, usual = (expected(case, Accuracy(grade, s)) for s in (summation, "any order"))
    for name in ("running_mean", "running_var"):
        narrow, wide = parts(claimed)[name].bound, parts(usual)[name].bound
        assert (narrow < wide / 10).all(), name


def test_pairwise_sums_of_few_values_are_sums_in_any_order_too() -> None:
    for n in (2, 3, 8, 32, 38, 100):
        for grade in GRADES:
            pairwise, usual = (
                Model(FLOAT32, n, Accuracy(grade, s)).summing for s in ("pairwise", "any order")
            )
            assert pairwise <= usual


# Sums that are exact ---------------------------------------------------------------------------------------


def any_order(rng: np.random.Generator, terms: Array) -> Any:
    """Sum terms in a random order, rounding after each addition: random pairs, or a random line."""
    left = list(rng.permutation(terms))
    while len(left) > 1:
        i = int(rng.integers(len(left) - 1)) if rng.random() < 0.5 else 0
        left[i : i + 2] = [left[i] + left[i + 1]]
    return left[0]


@np.errstate(all="ignore")
def computed(rng: np.random.Generator, grade: str, values: Array) -> tuple[Any, Any]:
    """Mean and variance of one channel, each operation rounded to nearest in the dtype of the values."""
    n = values.dtype.type(len(values))
    mean = any_order(rng, values) / n
    if grade == "textbook":
        return mean, any_order(rng, values * values) / n - mean * mean
    return mean, any_order(rng, (values - mean) ** 2) / n


def exactly(row: Array) -> tuple[Fraction, Fraction]:
    numbers = [Fraction(float(x)) for x in row]
    mean = sum(numbers, Fraction()) / len(numbers)
    return mean, sum(((x - mean) ** 2 for x in numbers), Fraction()) / len(numbers)


def claimed_exact(model: Model, rows: Array) -> Bools:
    """Ask as the expectation does: with the exact mean, rounded to float64."""
    means = [[float(exactly(row)[0])] for row in rows]
    return sums_exactly(model, rows.astype(np.float64), np.array(means))


@st.composite
def nearly_too_many_bits(draw: st.DrawFn, dtype: DType) -> Array:
    """Rows of integers whose sums or squares come close to the longest that the accumulation holds, or pass it."""
    n = 2 ** draw(st.integers(1, 4))
    bits = round(-np.log2(dtype.accumulation.u))
    most = draw(
        st.sampled_from(
            (bits, bits - 1, bits - int(np.log2(n)), bits // 2, bits // 2 - int(np.log2(n)) // 2)
        )
    )
    near = (
        st.integers(2**most - 3, 2**most + 3)
        | st.integers(-3, 3)
        | st.integers(2 ** (most - 1), 2**most)
    )
    row = draw(st.lists(near, min_size=n, max_size=n))
    signs = draw(st.sampled_from(((1,), (1, -1), (-1,))))
    scaled = np.ldexp(
        np.array(row, np.float64) * np.resize(signs, n), draw(st.sampled_from((0, -20, 9)))
    )
    return scaled[None].astype(dtype.accumulation.dtype)


CLAIMS_OF_EXACTNESS = [
    Accuracy("two-pass"),
    Accuracy("two-pass", "wide"),
    Accuracy("welford", direct_means=True),
    Accuracy("textbook", direct_means=True),
]


@pytest.mark.parametrize("accuracy", CLAIMS_OF_EXACTNESS, ids=called)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_called_exact_only_where_they_are_in_every_order(
    dtype: str, accuracy: Accuracy
) -> None:
    row, found, refused = DTYPES[dtype], 0, 0
    drawn = st.builds(
        lambda recipe, n: recipe.make((n, 3, 1, 1), row)[:, :, 0, 0].T,
        chosen(
            values((BALANCED, *FAMILIES), scales=(0, 10, -20), offsets=(0.0, 1.0, -10.0, 1e4, 1e6))
        ),
        st.sampled_from((2, 3, 4, 7, 8, 16, 32)),
    )

    @examples(180)
    @given(drawn | nearly_too_many_bits(row), st.integers(0, 2**16))
    def only_there(rows: Array, seed: int) -> None:
        nonlocal found, refused
        rng = np.random.default_rng(seed)
        claimed = claimed_exact(Model(row, rows.shape[1], accuracy), rows)[:, 0]
        refused += int((~claimed).sum())
        for values_of_channel in rows[claimed]:
            found += 1
            for _ in range(4):
                mean, var = computed(rng, accuracy.grade, values_of_channel)
                assert (Fraction(float(mean)), Fraction(float(var))) == exactly(values_of_channel)

    only_there()
    assert min(found, refused) > 50


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("grade", ["two-pass", "textbook"])
def test_a_sum_that_is_one_bit_too_long_is_not_called_exact(grade: str, dtype: str) -> None:
    """A sum of seven times 2**50 and 2**50 + 1 is 2**53 + 1, which float64 rounds to 2**53 unnoticed."""
    row = DTYPES[dtype]
    length = round(-np.log2(row.accumulation.u))
    x = np.full(8, 2.0 ** (length - 3))
    x[-1] += 1
    accuracy = Accuracy(grade, direct_means=True)
    assert not claimed_exact(Model(row, 8, accuracy), x[None]).any()
    case = Case(
        Config(1, momentum=1.0, dtype=dtype), None, (Forward(x.reshape(8, 1, 1, 1).astype(dtype)),)
    )
    for specimen in ("two-pass-sequential", "two-pass-pairwise", "two-pass-backward"):
        verdict = judge(case, play(case, SPECIMENS[specimen]), OBSERVABLES, accuracy)
        assert not verdict.discrepancies, specimen


@pytest.mark.parametrize("dtype", DTYPES)
def test_balanced_values_sum_exactly_and_leave_a_few_roundings(dtype: str) -> None:
    row, u = DTYPES[dtype], DTYPES[dtype].accumulation.u
    balanced = values((BALANCED,), scales=(0, 1, -3), offsets=(0.0, 1.0, -10.0, 100.0))

    @examples(35)
    @given(
        cases(
            dtype=dtype,
            shape=shapes("powers of two"),
            value=balanced,
            momentum=(1.0,),
            running=("initial",),
        )
    )
    def leave_few(case: Case) -> None:
        (x,) = case.forwards()
        rows = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)
        mean, var, _ = statistics(rows)
        assert sums_exactly(Model(row, rows.shape[1], Accuracy("two-pass")), rows, mean).all()
        due = parts(expected(case, Accuracy("two-pass")))
        held = row.parameters
        n = rows.shape[1]
        for name, size in (
            ("running_mean", np.abs(mean[:, 0])),
            ("running_var", 1 + var[:, 0] * n / (n - 1)),
        ):
            few = 10 * u * size + 20 * n * row.accumulation.smallest_subnormal
            cast = 1.01 * held.u * size + held.smallest_subnormal
            assert (due[name].bound <= OWN_ERROR * (few + cast)).all(), name

    leave_few()


def test_running_means_and_counts_that_are_no_power_of_two_are_never_exact() -> None:
    ones = np.ones((1, 64))
    mean = np.ones((1, 1))
    for grade in ("welford", "textbook"):
        exact = {
            n: sums_exactly(Model(FLOAT32, n, Accuracy(grade)), ones[:, :n], mean).item()
            for n in (2, 4, 64)
        }
        assert exact == {2: True, 4: False, 64: False}
    for n in (3, 6, 12, 63):
        assert not sums_exactly(Model(FLOAT32, n, Accuracy("two-pass")), ones[:, :n], mean).item()


def test_a_mean_that_does_not_survive_being_kept_is_not_exact() -> None:
    """257 does not fit bfloat16; the exact sum is of no use to a kernel that keeps its mean in it."""
    rows, mean = np.array([[256.0, 258.0]]), np.array([[257.0]])
    for statistics_kept, exact in (("accumulation", True), ("parameters", False)):
        accuracy = Accuracy("two-pass", statistics=statistics_kept)
        assert sums_exactly(Model(DTYPES["bfloat16"], 2, accuracy), rows, mean).item() is exact


# One rounding to half precision, at the end ----------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [name for name, row in DTYPES.items() if row.data.u > FLOAT32.data.u]
)
def test_a_result_that_is_rounded_once_to_half_precision_uses_nearly_its_whole_bound(
    dtype: str,
) -> None:
    half = ("output",) if dtype.startswith("mixed") else OBSERVABLES
    worst = dict.fromkeys(OBSERVABLES, 0.0)

    @examples(35)
    @given(
        cases(
            dtype=dtype,
            value=values(("gaussian",), scales=(0, 3), offsets=(0.0, 1.0)),
            momentum=(0.5, 0.1),
        )
    )
    def uses_it(case: Case) -> None:
        verdict = judge(case, play(case, reference), OBSERVABLES, Accuracy("two-pass"))
        assert not verdict.discrepancies
        for name, share in verdict.shares.items():
            worst[name] = max(worst[name], share)

    uses_it()
    assert all(0.9 < worst[name] <= 1 for name in half), worst
    assert all(worst[name] < 0.5 for name in set(OBSERVABLES) - set(half)), worst


# Beyond the domain: numbers --------------------------------------------------------------------------------


def demanded(
    x: Array, accuracy: Accuracy, dtype: str = "float32", **arguments: Any
) -> dict[str, set[Demand]]:
    case = Case(Config(x.shape[1], momentum=1.0, dtype=dtype, **arguments), None, (Forward(x),))
    return {
        name: {Demand(d) for d in part.demanded.ravel()}
        for name, part in parts(expected(case, accuracy)).items()
    }


OVERFLOWING = np.array([1e20, -1e20, 3e19, 0], np.float32).reshape(4, 1, 1, 1)


def test_where_squares_overflow_finite_outputs_are_asked_of_kernels_that_claim_to_be_safe() -> None:
    safe = {
        "output": {Demand.FINITE},
        "running_mean": {Demand.FINITE},
        "running_var": {Demand.NUMBER},
    }
    nothing = {
        "output": {Demand.NOTHING},
        "running_mean": {Demand.FINITE},
        "running_var": {Demand.NOTHING},
    }
    for grade in ("two-pass", "welford"):
        assert demanded(OVERFLOWING, Accuracy(grade, overflow_safe=True)) == safe
        assert demanded(OVERFLOWING, Accuracy(grade)) == nothing
    assert demanded(OVERFLOWING, Accuracy("textbook")) == nothing


def test_far_from_zero_a_two_pass_kernel_is_judged_where_of_a_textbook_one_nothing_is_asked() -> (
    None
):
    x = np.array([1e20, 1.0001e20, 1.0002e20, 1e20], np.float32).reshape(4, 1, 1, 1)
    due = parts(expected(Case(Config(1, momentum=1.0), None, (Forward(x),)), Accuracy("two-pass")))
    assert all(part.inside.all() for part in due.values())
    assert set(demanded(x, Accuracy("two-pass"))["output"]) == {Demand.FINITE}
    assert set(demanded(x, Accuracy("textbook"))["output"]) == {Demand.NOTHING}


def test_what_overflows_anyway_is_not_asked_to_be_finite() -> None:
    """A constant channel and an eps of 1e-20 leave room for outputs of 1e10 times the values."""
    x = np.full((4, 1, 1, 1), 1e4, np.float16)
    accuracy = Accuracy("two-pass")
    assert demanded(x, accuracy, "float16", eps=1e-20)["output"] == {Demand.NUMBER}
    assert demanded(x, accuracy, "float16", eps=1e3)["output"] == {Demand.FINITE}
    infinite = np.array([np.inf, 1, 2, 3], np.float32).reshape(4, 1, 1, 1)
    assert demanded(infinite, accuracy)["output"] == {Demand.NOTHING}


@pytest.mark.parametrize(
    ("demand", "number", "met"),
    [
        (Demand.FINITE, 0.0, True),
        (Demand.FINITE, np.inf, False),
        (Demand.FINITE, np.nan, False),
        (Demand.NUMBER, np.inf, True),
        (Demand.NUMBER, np.nan, False),
        (Demand.NOTHING, np.nan, True),
    ],
)
def test_a_demand_is_met_by_the_numbers_that_it_names(
    demand: Demand, number: float, met: bool
) -> None:
    asked = Bounded(Extended(np.zeros(1)), np.array([np.inf]), np.array([demand], np.int8))
    assert asked.unmet(np.array([number])).item() is not met
    assert asked.share(np.array([number])).item() == 0


def test_within_a_bound_nothing_but_a_finite_number_will_do() -> None:
    bounded = Bounded(Extended(np.full(1, 2.0)), np.array([1.0]))
    for number, share in (
        (2.5, 0.5),
        (0.0, -2.0),
        (np.inf, np.inf),
        (-np.inf, -np.inf),
        (np.nan, np.inf),
    ):
        assert bounded.signed_share(np.array([number])).item() == share
        assert bounded.unmet(np.array([number])).item() is not np.isfinite(number)


# The evaluation of the bounds ------------------------------------------------------------------------------


def test_the_bound_of_the_smallest_numbers_does_not_underflow_where_their_normalised_values_do_not() -> (
    None
):
    """Roundings of a · mu count, although u · mu is below the smallest float64."""
    mu, eps = -1.4e-309, 1e-12
    config = Config(1, eps=eps, dtype="float64")
    held = State(np.ones(1), np.zeros(1), np.array([mu]), np.zeros(1), np.array(0))
    case = Case(config, held, (Eval(), Forward(np.full((2, 1, 1, 1), -mu))))
    bound = parts(expected(case, Accuracy("two-pass"), training=False))["output"].bound
    assert (
        bound >= float(4 * Fraction(FLOAT64.data.u) * Fraction(-mu) * Fraction(eps**-0.5))
    ).all()
    for specimen in ("folded-affine", "two-pass-sequential"):
        assert not judge(
            case, play(case, SPECIMENS[specimen]), OBSERVABLES, Accuracy("two-pass")
        ).discrepancies


@pytest.mark.parametrize("specimen", ["folded-affine", "two-pass-sequential"])
def test_subnormal_data_and_statistics_are_normalised_within_their_bounds(specimen: str) -> None:
    worst = 0.0

    @examples(120)
    @given(
        x=st.lists(st.floats(-3e-307, 3e-307), min_size=1, max_size=4),
        mu=st.floats(-3e-307, 3e-307),
        eps=st.sampled_from((1e-12, 1e-20, 1e-5, 1.0)),
        weight=st.sampled_from((1.0, -3.0, 1e-3, 1e5)),
    )
    def are_normalised(x: list[float], mu: float, eps: float, weight: float) -> None:
        nonlocal worst
        held = State(np.array([weight]), np.zeros(1), np.array([mu]), np.zeros(1), np.array(0))
        batch = np.array(x).reshape(-1, 1, 1, 1)
        case = Case(Config(1, eps=eps, dtype="float64"), held, (Eval(), Forward(batch)))
        verdict = judge(case, play(case, SPECIMENS[specimen]), ["output"], Accuracy("two-pass"))
        assert not verdict.discrepancies
        assert verdict.outside == 0
        worst = max(worst, verdict.shares["output"])

    are_normalised()
    assert worst > 0.1
