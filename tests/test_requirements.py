"""The specification as a table: each requirement has one property, and vice versa."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given

from bn_spec import Capabilities, ConfigError
from bn_spec.case.script import Case
from bn_spec.specification.requirement import (
    CHAPTERS,
    LEVELS,
    REQUIREMENTS,
    Requirement,
)
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import ABSENT, WORDS, chosen
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import requirement_named
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES, requirement
from bn_spec.suite.search import Search
from tests.common import examples

SUITE: dict[str, ModuleType] = {
    chapter: import_module(f"conformance.test_{chapter.lower()}") for chapter in CHAPTERS
}
FLAGS = {flag.name for flag in fields(Capabilities) if isinstance(flag.default, bool)}
FLAGS |= {
    "double_backward",
    "momentum_zero",
    "normalises_by_batch",
    "answers_single_values",
    "refuses_single_values",
}


@cache
def words(requirement: Requirement) -> tuple[str, ...]:
    """Return the words of a requirement's history; if it is drawn, the words of 100 histories."""
    prop = PROPERTIES[requirement.id]
    history = prop.choices.history
    if isinstance(history, Sequence):
        return tuple(history)
    found: list[str] = []

    @examples(100)
    @given(chosen(history))
    def collect(drawn: list[str]) -> None:
        found.extend(drawn)

    collect()
    return tuple(found)


def asked(requirement: Requirement) -> set[str]:
    """Return the claims that at least one word of the requirement's history needs."""
    return {claim for word in words(requirement) for claim in WORDS[word].claims}


each_requirement = pytest.mark.parametrize("requirement", REQUIREMENTS.values(), ids=REQUIREMENTS)


def test_every_requirement_has_a_property_and_every_property_a_requirement() -> None:
    assert list(PROPERTIES) == list(REQUIREMENTS)
    assert all(prop.requirement is REQUIREMENTS[name] for name, prop in PROPERTIES.items())


@each_requirement
def test_a_property_is_a_test_in_the_file_of_its_chapter(requirement: Requirement) -> None:
    prop = PROPERTIES[requirement.id]
    (name,) = [
        name
        for name, function in vars(SUITE[requirement.chapter]).items()
        if getattr(function, "bn_property", None) is prop
    ]
    assert re.fullmatch("test_[a-z_]+", name)
    assert prop.requirement is requirement


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_holds_tests_of_its_own_requirements_alone(chapter: str) -> None:
    tests = [
        function for name, function in vars(SUITE[chapter]).items() if name.startswith("test_")
    ]
    found = [test.bn_property.requirement for test in tests]
    assert found == [
        requirement for requirement in REQUIREMENTS.values() if requirement.chapter == chapter
    ]


@each_requirement
def test_a_requirement_is_numbered_in_a_chapter_and_needs_a_flag_that_backends_can_claim(
    requirement: Requirement,
) -> None:
    assert re.fullmatch(r"[A-Z]{3}-\d\d", requirement.id)
    assert REQUIREMENTS[requirement.id] is requirement
    assert requirement.chapter in CHAPTERS
    assert requirement.level in LEVELS
    assert (
        (requirement.level == "gradients")
        == ("gradients" in requirement.needs)
        >= (requirement.chapter == "GRD")
    )
    assert (requirement.level == "layout") == (requirement.chapter == "LAY")
    assert set(requirement.needs) <= FLAGS
    assert len(set(requirement.needs)) == len(requirement.needs)


BY_WORD = {claim for word in WORDS.values() for claim in word.claims if claim in FLAGS}
BY_WORD -= {"input_checks", "refuses_single_values"}
"""Flags that a word needs to add a step.

Without the two flags that are left out, words that misuse a layer still add inputs to be refused.
"""


@each_requirement
def test_what_a_requirement_needs_is_what_its_history_asks_for(requirement: Requirement) -> None:
    assert BY_WORD & set(requirement.needs) <= asked(requirement)


SAME_INPUT = ("repeat the step", "non-finite element")


def modes(history: tuple[str, ...]) -> set[bool]:
    """Return the modes of the forwards in a history: True for training mode, False for eval mode.

    A new layer starts in training mode.
    """
    found, training = set(), True
    for word in history:
        if word in ("train", "eval", "restore into a new layer"):
            training = word != "eval"
        elif word.startswith("forward") or word in SAME_INPUT:
            found.add(training)
    return found


@each_requirement
def test_a_requirement_that_does_not_need_a_flag_is_judged_in_the_same_modes_without_it(
    requirement: Requirement,
) -> None:
    for flag in BY_WORD - set(requirement.needs):
        left = tuple(word for word in words(requirement) if flag not in WORDS[word].claims)
        assert modes(left) == modes(words(requirement)) - (
            {False} if flag == "inference" else set()
        )


@pytest.mark.parametrize(
    "requirement", [r for r in REQUIREMENTS.values() if r.chapter == "GRD"], ids=lambda r: r.id
)
def test_gradients_in_eval_mode_are_asked_of_those_backends_alone_that_have_one(
    requirement: Requirement,
) -> None:
    assert ("eval" in words(requirement)) == ("inference" in requirement.needs)


EVERYDAY = [prop.requirement for prop in PROPERTIES.values() if not (prop.deep or prop.huge)]
SUBJECT = SPECIMENS["two-pass-sequential"]


@pytest.mark.parametrize("requirement", EVERYDAY, ids=lambda r: r.id)
def test_a_backend_that_claims_no_more_than_a_requirement_needs_is_judged_by_it(
    requirement: Requirement,
) -> None:
    prop = PROPERTIES[requirement.id]
    unneeded = BY_WORD - set(requirement.needs)
    without: dict[str, Any] = {
        flag: () if flag == "double_backward" else False for flag in unneeded
    }
    subject = (
        SPECIMENS["another-dialect"] if "answers_single_values" in requirement.needs else SUBJECT
    )
    barely = replace(subject, capabilities=replace(subject.capabilities, **without))
    search = Search(Cell(prop, barely, prop.dtypes[0]), PROFILES["smoke"].settings(5))
    with suppress(Violation):  # no specimen claims an output_layout
        search.examine()
    assert search.tally.judged


@pytest.mark.parametrize(
    ("choice", "flag"), [("parameters", "affine_off"), ("running", "tracking_off")]
)
def test_a_layer_that_always_lacks_tensors_is_needed_of_a_backend(choice: str, flag: str) -> None:
    lacking = [
        name for name, prop in PROPERTIES.items() if getattr(prop.choices, choice) == (ABSENT,)
    ]
    assert lacking
    assert all(flag in REQUIREMENTS[name].needs for name in lacking)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_requirements_of_a_chapter_are_numbered_without_gaps(chapter: str) -> None:
    numbers = [
        requirement.id for requirement in REQUIREMENTS.values() if requirement.chapter == chapter
    ]
    assert numbers == [f"{chapter}-{number:02}" for number in range(1, len(numbers) + 1)]


@each_requirement
def test_a_requirement_is_a_sentence_without_full_stop_and_names_its_source(
    requirement: Requirement,
) -> None:
    assert re.fullmatch(r"[^.\s].*[^.\s]", requirement.sentence)
    assert requirement.source.strip()


def test_no_two_requirements_say_the_same() -> None:
    assert len({requirement.sentence for requirement in REQUIREMENTS.values()}) == len(REQUIREMENTS)


def test_a_requirement_is_found_by_its_name_and_a_wrong_name_is_answered_with_the_nearest() -> None:
    assert requirement_named("RUN-03") is REQUIREMENTS["RUN-03"]
    with pytest.raises(
        ConfigError, match=r"requirement 'RUM-03' is not known; .*; did you mean 'RUN-03'\?"
    ):
        requirement_named("RUM-03")


def body(cell: Cell, case: Case) -> None:
    """Outputs are right."""


@pytest.mark.parametrize(
    ("id", "choices", "message"),
    [
        ("TRM-09", {"level": "core"}, "requirement 'TRM-09'; expected CHAPTER-NN"),
        ("TRN-9", {"level": "core"}, "requirement 'TRN-9'; expected CHAPTER-NN"),
        ("TRN-99", {"level": "cores"}, "TRN-99: level 'cores' is not known; .* mean 'core'"),
        ("TRN-99", {"level": "core", "momenta": (1.0,)}, "choice 'momenta' .* mean 'momentum'"),
        ("TRN-99", {"level": "core", "reaches": ("n=2",)}, "region 'n=2' is not known"),
        ("TRN-01", {"level": "core"}, "TRN-01 is declared twice"),
    ],
)
def test_what_makes_no_sense_cannot_be_declared(
    id: str, choices: dict[str, Any], message: str
) -> None:
    before = PROPERTIES.get(id)
    with pytest.raises(ConfigError, match=message):
        requirement(id, source="nobody", **choices)(body)
    assert PROPERTIES.get(id) is before


def test_a_requirement_needs_a_sentence() -> None:
    def silent(cell: Cell, case: Case) -> None: ...

    with pytest.raises(ConfigError, match="TRN-99 has no sentence"):
        requirement("TRN-99", level="core", source="nobody")(silent)
