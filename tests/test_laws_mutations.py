"""Laws notice a wrong reference, even if the judge is wrong in the same way."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, settings

from bn_spec import Case, Config, State
from bn_spec.backend.adapters.reference_backend import reference
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import doubled
from bn_spec.case.steps import Eval, Forward
from bn_spec.judge.judging import judge
from bn_spec.oracle.reference import formulas as f
from bn_spec.play.observation import Observation
from bn_spec.play.player import play
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

for _chapter in ("trn", "run", "evl", "met"):  # importing a chapter declares its properties
    import_module(f"conformance.test_{_chapter}")

CI = PROFILES["ci"].settings()
UNSHRUNK = [phase for phase in CI.phases if phase != Phase.shrink]
CHAPTER = [name for name in REQUIREMENTS if name.startswith("MET")]
VALUES = ("TRN-01", "RUN-02", "EVL-01")


class Mutation(NamedTuple):
    """A formula, an expression in it, the wrong expression, and the laws that this breaks."""

    function: str
    right: str
    wrong: str
    laws: str


MUTATIONS = {
    "half of the values": Mutation(
        "mean",
        "x.total() / float(x.hi.shape[-1])",
        "x[..., : x.hi.shape[-1] // 2 + 1].total() / float(x.hi.shape[-1] // 2 + 1)",
        "01 02 06 10 11 13",
    ),
    "variance divided by n - 1": Mutation(
        "biased_variance",
        "mean(deviation * deviation)",
        "(deviation * deviation).total() / float(x.hi.shape[-1] - 1)",
        "06 11 13",
    ),
    "variance about zero": Mutation("biased_variance", "x - mu", "x", "04 11"),
    "variance of the first channel": Mutation(
        "inverse_std", "var + eps", "var[:1] + var * 0.0 + eps", "03 11"
    ),
    "eps outside the root": Mutation(
        "inverse_std", "(var + eps).sqrt()", "(var.sqrt() + eps)", "05 11"
    ),
    "eps forgotten": Mutation("inverse_std", "var + eps", "var", "11"),
    "root forgotten": Mutation("inverse_std", "(var + eps).sqrt()", "(var + eps)", "05 11"),
    "not centred": Mutation("normalise", "(x - mu)", "x", "04 10 11"),
    "centred by the batch in eval": Mutation("normalise", "(x - mu)", "(x - mean(x))", "09"),
    "bias subtracted": Mutation("affine", "+ bias", "+ -bias", "07 10 11"),
    "bias forgotten": Mutation("affine", " + bias", "", "07 10 11"),
    "negative values cut off": Mutation(
        "affine", "weight * x_hat", "weight * type(x_hat)(np.maximum(x_hat.hi, 0.0))", "08 10 11"
    ),
    "momentum on the old value": Mutation(
        "blend",
        "(1.0 - momentum) * running + momentum * batch",
        "momentum * running + (1.0 - momentum) * batch",
        "11 12 13",
    ),
    "old value not shrunk": Mutation("blend", "(1.0 - momentum) * running", "running", "11 12 13"),
    "variance times n / (n + 1)": Mutation("unbiased_variance", "n - 1", "n + 1", "11 13"),
    "biased variance kept": Mutation(
        "unbiased_variance", " * float(n) / float(max(n - 1, 1))", "", "11 13"
    ),
    "channels not moved first": Mutation(
        "by_channel", "x.transpose(1, 0, 2, 3)", "x", "01 03 06 09 11 13"
    ),
}
"""Mistakes in the formulas, which the reference and the judge share."""

each_mutation = pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Replace an expression of a formula, for the reference and for the judge alike."""
    function, right, wrong, _ = mutation
    text = inspect.getsource(getattr(f, function))
    assert text.count(right) == 1
    made: dict[str, Any] = {}
    exec(text.replace(right, wrong), vars(f), made)
    with patch.object(f, function, made[function]):
        yield


def broken(requirement: str, number: int = 20) -> bool:
    prop = PROPERTIES[requirement]
    cell = Search(
        Cell(prop, reference, "float32"), settings(CI, phases=UNSHRUNK, max_examples=number)
    )
    try:
        cell.examine()
    except Violation:
        return True
    assert cell.tally.judged > 0
    assert max(cell.tally.shares.values()) <= 1
    return False


@each_mutation
def test_a_wrong_reference_breaks_laws(mutation: Mutation) -> None:
    with mutated(mutation):
        assert [name for name in CHAPTER if broken(name)] == [
            f"MET-{law}" for law in mutation.laws.split()
        ]


@each_mutation
def test_values_do_not_notice_what_is_wrong_on_either_side(mutation: Mutation) -> None:
    with mutated(mutation):
        assert not [name for name in VALUES if broken(name, 10)]


def test_a_cumulative_mean_that_is_one_batch_off_breaks_the_law_of_the_same_batch_again() -> None:
    with mutated(Mutation("update_factor", "float(batches)", "float(batches + 1)", "12")):
        assert broken("MET-12", 100)
        assert not broken("RUN-04", 10)


def test_the_reference_breaks_no_law() -> None:
    assert not [name for name in (*CHAPTER, *VALUES) if broken(name)]


def test_every_law_is_broken_by_a_wrong_reference() -> None:
    assert {
        f"MET-{law}" for mutation in MUTATIONS.values() for law in mutation.laws.split()
    } == set(CHAPTER)


@each_mutation
def test_the_reference_and_the_judge_are_wrong_in_the_same_way(mutation: Mutation) -> None:
    batches = Forward(X), Forward(doubled(X) + 1)
    case = Case(replace(CONFIG, momentum=0.25), STATE, (*batches, Eval(), *batches))
    right = play(case, reference)
    with mutated(mutation):
        wrong = play(case, reference)
        assert agrees(case, wrong)
        assert not agrees(case, right)
    assert agrees(case, right)
    assert not agrees(case, wrong)


def agrees(case: Case, observation: Observation) -> bool:
    observables = ("output", "running_mean", "running_var")
    return not judge(case, observation, observables, reference.capabilities).discrepancies


CONFIG = Config(2, eps=0.5, momentum=1.0)
X = np.array([[0, 1, 4, 3, -1, 2], [7, -5, 3, 2, 6, 8]], np.float32).reshape(2, 2, 1, 3)


def of_channels(*values: float) -> Array:
    return np.array(values, np.float32)


STATE = State(
    of_channels(2, -3), of_channels(1, 5), of_channels(1, -2), of_channels(3, 0.25), np.array(4)
)
