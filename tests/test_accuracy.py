"""A claim about the arithmetic narrows the bounds, and never widens them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, State
from bn_spec.backend.adapters.reference_backend import reference
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.steps import Eval, Forward
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import (
    GRADES,
    Accuracy,
    Model,
)
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import cases, values
from tests.accuracy_cases import FLOAT32, FLOAT64, OBSERVABLES, called, expected, parts
from tests.common import examples

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


def test_the_bound_of_tiny_numbers_does_not_underflow_where_their_normalised_values_do_not() -> (
    None
):
    """The roundings of a · mu count, although u · mu is below the smallest float64."""
    mu, eps = -1.4e-309, 1e-12
    config = Config(1, eps=eps, dtype="float64")
    state = State(np.ones(1), np.zeros(1), np.array([mu]), np.zeros(1), np.array(0))
    case = Case(config, state, (Eval(), Forward(np.full((2, 1, 1, 1), -mu))))
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
        state = State(np.array([weight]), np.zeros(1), np.array([mu]), np.zeros(1), np.array(0))
        batch = np.array(x).reshape(-1, 1, 1, 1)
        case = Case(Config(1, eps=eps, dtype="float64"), state, (Eval(), Forward(batch)))
        verdict = judge(case, play(case, SPECIMENS[specimen]), ["output"], Accuracy("two-pass"))
        assert not verdict.discrepancies
        assert verdict.outside == 0
        worst = max(worst, verdict.shares["output"])

    are_normalised()
    assert worst > 0.1
