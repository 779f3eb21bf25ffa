"""A cell draws as many examples as its property asks, and excuses declared failures alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from bn_spec import Backend, Case, KnownFailure, Layer
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import shapes
from bn_spec.strategies.case_choices import Choices
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import requirement_named
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import Body, Property
from bn_spec.suite.search import LEAST_EXAMPLES, MANY, OTHER_DTYPES, Search, Vacuous


def judged(*observables: str) -> Body:
    return lambda cell, case: cell.judge(case, *observables)


RUNNING_VAR = judged("running_var")
VALUES = ("output", "running_mean", "running_var")


def search_of(
    backend: Backend,
    dtype: str = "float32",
    body: Body = RUNNING_VAR,
    *,
    profile: str = "ci",
    requirement: str = "RUN-03",
    **arguments: Any,
) -> Search:
    choices = arguments.pop("choices", {"shape": shapes("tiny"), "momentum": (1.0, 0.5)})
    arguments["choices"] = Choices(**choices)
    prop = Property(requirement_named(requirement), body, **arguments)
    return Search(Cell(prop, backend, dtype), PROFILES[profile].settings())


@dataclass
class Excused:
    """The specimen that keeps the biased variance (or another backend) with a known failure."""

    known: KnownFailure
    subject: Backend = SPECIMENS["runvar-bias"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subject, name)

    @property
    def known_failures(self) -> tuple[KnownFailure, ...]:
        return (self.known,)


def excused(**arguments: Any) -> Any:
    return Excused(KnownFailure("RUN-03", "running_var", "on purpose", **arguments))


IN_VAIN = KnownFailure("RUN-03", "running_var", "in vain")


def excused_reference(known: KnownFailure = IN_VAIN) -> Any:
    return Excused(known, Reference())


# How hard it looks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "effort", "examples"),
    [
        ("ci", 1.0, 100),
        ("ci", 0.3, 30),
        ("ci", 0.01, LEAST_EXAMPLES),
        ("smoke", 0.2, LEAST_EXAMPLES),
        ("smoke", 1.0, 15),
    ],
)
def test_a_cell_looks_at_the_share_of_examples_that_its_property_needs(
    profile: str, effort: float, examples: int
) -> None:
    search = search_of(Reference(), profile=profile, effort=effort)
    search.examine()
    assert search.tally.examples == examples


def test_fewer_examples_than_the_least_are_enough_for_who_asks_for_fewer() -> None:
    search = replace(search_of(Reference(), effort=0.01), profile=PROFILES["ci"].settings(3))
    search.examine()
    assert search.tally.examples == 3


@pytest.mark.parametrize(
    ("share", "examples"), [(1.0, 100), (OTHER_DTYPES, 20), (0.001, LEAST_EXAMPLES)]
)
def test_a_dtype_beside_the_first_gets_a_share_of_the_examples(share: float, examples: int) -> None:
    search = replace(search_of(Reference()), share=share)
    search.examine()
    assert search.tally.examples == examples


def test_a_huge_property_is_looked_at_once_and_not_shrunk() -> None:
    search = search_of(
        SPECIMENS["runvar-bias"], huge=True, choices={"shape": shapes("small"), "momentum": (1.0,)}
    )
    with pytest.raises(Violation):
        search.examine()
    assert search.tally.examples == 2  # once to find it, once to show it


def test_a_property_of_other_dtypes_is_not_claimed() -> None:
    search = search_of(Reference(), dtypes=("float16", "bfloat16"))
    assert search.cell.not_claimed == "reference does not claim float16 or bfloat16"


def test_a_property_that_judges_nothing_is_vacuous() -> None:
    with pytest.raises(Vacuous, match="RUN-03: 100 examples, nothing judged"):
        search_of(Reference(), body=lambda _, __: None).examine()


def test_what_a_requirement_needs_and_a_backend_does_not_claim_is_said() -> None:
    flushing = SPECIMENS["flushes-subnormals"]
    assert (
        search_of(flushing, requirement="NUM-07").cell.not_claimed
        == "flushes-subnormals does not claim subnormals"
    )
    assert search_of(flushing, requirement="NUM-06").cell.not_claimed == ""
    assert search_of(SPECIMENS["welford"], requirement="NUM-07").cell.not_claimed == ""


def test_all_that_a_requirement_needs_is_needed_and_in_the_dtype() -> None:
    twice = replace(SPECIMENS["welford"].capabilities, double_backward=("float64",))
    half = replace(SPECIMENS["welford"], capabilities=twice)
    assert search_of(half, requirement="GRD-24", dtype="float64").cell.not_claimed == ""
    assert (
        search_of(half, requirement="GRD-24").cell.not_claimed
        == "welford does not claim double_backward in float32"
    )
    without = replace(half, capabilities=replace(twice, inference=False))
    assert (
        search_of(without, requirement="GRD-24", dtype="float64").cell.not_claimed
        == "welford does not claim inference"
    )
    nothing = replace(half, capabilities=replace(twice, gradients=False))
    assert (
        search_of(nothing, requirement="GRD-01").cell.not_claimed
        == "welford does not claim gradients"
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_are_drawn_in_the_dtype_of_the_cell_and_judged_by_the_claims_of_its_backend(
    dtype: str,
) -> None:
    met: set[str] = set()
    backend = replace(
        SPECIMENS["two-pass-sequential"], capabilities=replace(Reference().capabilities)
    )

    def body(cell: Cell, case: Case) -> None:
        met.add(case.config.dtype)
        cell.judge(case, "output")

    search = search_of(backend, dtype, body, profile="smoke")
    assert search.cell.claims is backend.capabilities
    search.examine()
    assert met == {dtype}


# What it excuses ----------------------------------------------------------------------------------


def test_a_known_failure_covers_every_dtype_and_case_unless_it_says_less() -> None:
    for dtype in ("float32", "bfloat16"):
        search = search_of(excused(), dtype)
        search.examine()
        assert [known.reason for known in search.tally.known] == ["on purpose"]


def test_a_known_failure_of_some_dtypes_excuses_no_other() -> None:
    backend = excused(dtypes=("bfloat16", "float64"))
    for dtype in ("float64", "bfloat16"):
        search = search_of(backend, dtype)
        search.examine()
        assert search.tally.known == search.cell.expected_failures != []
    search = search_of(backend, "float32")
    assert search.cell.expected_failures == []
    with pytest.raises(Violation):
        search.examine()


def test_a_known_failure_of_some_cases_excuses_no_other() -> None:
    def on_one_channel(case: Case) -> bool:
        return case.config.num_features == 1

    search = search_of(excused(where=on_one_channel))
    with pytest.raises(Violation) as found:
        search.examine()
    assert found.value.finding.case.config.num_features == 2  # the smallest that is not excused
    assert search.tally.known
    alone = search_of(
        excused(where=on_one_channel),
        choices={"shape": shapes("tiny", where=lambda s: s[:2] == (2, 1))},
    )
    alone.examine()
    assert alone.tally.known


@pytest.mark.parametrize(
    ("profile", "effort", "said"),
    [("ci", 1.0, True), ("ci", 0.3, True), ("smoke", 1.0, False), ("smoke", 0.3, False)],
)
def test_a_known_failure_that_is_not_seen_is_noticed_after_as_many_examples_as_in_ci(
    profile: str, effort: float, said: bool
) -> None:
    never_seen = excused_reference()
    search = search_of(never_seen, profile=profile, effort=effort)
    assert search.no_longer_failing == []
    search.examine()
    assert (search.no_longer_failing == [never_seen.known]) is said


def test_a_known_failure_of_few_cases_or_of_several_requirements_is_not_missed() -> None:
    for known in (
        KnownFailure(
            "RUN-03", "running_var", "rare", where=lambda case: case.config.num_features == 7
        ),
        KnownFailure("RUN-*", "running_var", "several"),
    ):
        search = search_of(excused_reference(known))
        search.examine()
        assert search.cell.expected_failures == [known]
        assert search.no_longer_failing == []


@pytest.mark.parametrize(("cases", "said"), [(MANY - 1, False), (MANY, True)])
def test_a_known_failure_is_missed_once_many_cases_expected_it(cases: int, said: bool) -> None:
    numbers = count()
    known = KnownFailure("RUN-03", "running_var", "so many", where=lambda _: next(numbers) < cases)
    search = search_of(excused_reference(known))
    search.examine()
    assert search.tally.eligible[known] == cases
    assert search.no_longer_failing == ([known] if said else [])


@pytest.mark.parametrize(
    ("requirement", "observable"),
    [("RUN-0[12]", "*"), ("GRD-*", "*"), ("RUN-*", "running_m*"), ("*", "grad_*")],
)
def test_a_pattern_excuses_nothing_that_it_does_not_match(
    requirement: str, observable: str
) -> None:
    with pytest.raises(Violation):
        search_of(Excused(KnownFailure(requirement, observable, "of others"))).examine()


def test_a_known_failure_may_cover_several_requirements_and_observables() -> None:
    search = search_of(Excused(KnownFailure("RUN-*", "running_*", "both")))
    search.examine()
    assert [known.reason for known in search.tally.known] == ["both"]
    assert search.tally.eligible[search.tally.known[0]] == search.tally.examples


def test_the_share_of_an_excused_observable_does_not_count() -> None:
    search = search_of(excused(), body=judged("running_mean", "running_var"))
    search.examine()
    assert 0 < search.tally.shares["running_mean"] <= 1
    assert search.tally.shares.get("running_var", 0.0) <= 1


@pytest.mark.parametrize(
    "other", [{"requirement": "RUN-02"}, {"body": judged("running_mean", "running_var")}]
)
def test_a_known_failure_excuses_its_requirement_and_observable_alone(
    other: dict[str, Any],
) -> None:
    backend = Excused(KnownFailure("RUN-03", "running_mean", "never mind"))
    with pytest.raises(Violation) as found:
        search_of(backend, **other).examine()
    assert found.value.finding.discrepancy.observable == "running_var"


# What it judges -----------------------------------------------------------------------------------


class Counting(Reference):
    """The reference, with its calls counted."""

    def __init__(self) -> None:
        self.forwards = 0

    def layer(self, config: Config, state: State | None) -> Layer:
        layer: Any = super().layer(config, state)
        original: Callable[[Array], Array] = layer.forward

        def forward(x: Array) -> Array:
            self.forwards += 1
            return original(x)

        layer.forward = forward
        built: Layer = layer
        return built


def test_a_case_is_played_once_however_many_grades_are_measured() -> None:
    backend = Counting()
    search = search_of(
        backend,
        body=lambda cell, case: cell.measure(case, "output", "running_var"),
        profile="smoke",
    )
    search.examine()
    assert backend.forwards == search.tally.examples == 15


class Unsteady(Reference):
    """The reference, but for the running variance of its fifth layer."""

    def __init__(self) -> None:
        self.layers = count(1)

    def layer(self, config: Config, state: State | None) -> Layer:
        wrong = next(self.layers) == 5
        return (
            SPECIMENS["runvar-bias"].layer(config, state and state.copy())
            if wrong
            else super().layer(config, state)
        )


def test_what_does_not_fail_again_is_found_and_said_to_be_unsteady() -> None:
    with pytest.raises(Violation) as found:
        search_of(Unsteady()).examine()
    assert found.value.finding.discrepancy.observable == "running_var"
    assert (
        found.value.finding.note
        == "the same case played again did not fail: the backend is not deterministic"
    )


@pytest.mark.parametrize("values", [1, 20])
def test_a_case_is_judged_in_parts_as_it_is_as_a_whole(values: int) -> None:
    whole, parts = (
        search_of(SPECIMENS["two-pass-sequential"], body=body)
        for body in (
            judged(*VALUES),
            lambda cell, case: cell.judge_in_parts(case, *VALUES, values=values),
        )
    )
    whole.examine()
    parts.examine()
    assert (parts.tally.examples, parts.tally.outside) == (
        whole.tally.examples,
        whole.tally.outside,
    )
    assert parts.tally.shares == whole.tally.shares
    assert parts.tally.judged > whole.tally.examples


def test_channels_of_which_one_is_wrong_are_named() -> None:
    search = search_of(
        SPECIMENS["channel-tail-dropped"],
        body=lambda cell, case: cell.judge_in_parts(case, *VALUES, values=100),
        choices={"shape": shapes("channel edge")},
    )
    with pytest.raises(Violation) as found:
        search.examine()
    assert re.search(
        r" of channels \d+ to \d+, taken alone$", found.value.finding.discrepancy.expected
    )


def test_shares_are_the_worst_of_all_examples_and_elements_are_counted() -> None:
    search = search_of(
        SPECIMENS["two-pass-sequential"], body=judged("output", "running_var"), profile="smoke"
    )
    search.examine()
    assert set(search.tally.shares) == {"output", "running_var"}
    assert all(0 < share <= 1 for share in search.tally.shares.values())
    assert search.tally.judged > 2 * search.tally.examples
    assert search.tally.outside == 0
