"""Outside the domain of the bounds, finite data still demand numbers, or finite numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Forward
from bn_spec.oracle.bounded import Bounded, Demand
from bn_spec.oracle.bounds import (
    Accuracy,
)
from bn_spec.oracle.reference import Extended
from tests.accuracy_cases import expected, parts


def demanded(
    x: Array, accuracy: Accuracy, dtype: str = "float32", **arguments: Any
) -> dict[str, set[Demand]]:
    case = Case(Config(x.shape[1], momentum=1.0, dtype=dtype, **arguments), None, (Forward(x),))
    return {
        name: {Demand(d) for d in part.demanded.ravel()}
        for name, part in parts(expected(case, accuracy)).items()
    }


OVERFLOWING = np.array([1e20, -1e20, 3e19, 0], np.float32).reshape(4, 1, 1, 1)


def test_where_squares_overflow_a_kernel_that_claims_to_be_safe_must_have_finite_outputs() -> None:
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


def test_far_from_zero_a_two_pass_kernel_is_judged_and_a_textbook_kernel_is_not() -> None:
    x = np.array([1e20, 1.0001e20, 1.0002e20, 1e20], np.float32).reshape(4, 1, 1, 1)
    due = parts(expected(Case(Config(1, momentum=1.0), None, (Forward(x),)), Accuracy("two-pass")))
    assert all(part.inside.all() for part in due.values())
    assert set(demanded(x, Accuracy("two-pass"))["output"]) == {Demand.FINITE}
    assert set(demanded(x, Accuracy("textbook"))["output"]) == {Demand.NOTHING}


def test_an_output_that_may_overflow_need_not_be_finite() -> None:
    """With a constant channel and an eps of 1e-20, outputs may be 1e10 times the values."""
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
def test_each_demand_is_met_by_the_right_numbers(demand: Demand, number: float, met: bool) -> None:
    asked = Bounded(Extended(np.zeros(1)), np.array([np.inf]), np.array([demand], np.int8))
    assert asked.unmet(np.array([number])).item() is not met
    assert asked.share(np.array([number])).item() == 0


def test_within_the_domain_only_a_finite_number_meets_the_demand() -> None:
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
