"""The specification is a table: each requirement has one property, and each property one requirement."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from importlib import import_module
from types import ModuleType

import pytest

from bn_spec import Capabilities, ConfigError
from bn_spec.cell import PROPERTIES, conforms
from bn_spec.requirements import CHAPTERS, REQUIREMENTS, Requirement, requirement_named
from bn_spec.strategies import ABSENT, cases

SUITE: dict[str, ModuleType] = {chapter: import_module(f"conformance.test_{chapter.lower()}") for chapter in CHAPTERS}
FLAGS = {flag.name for flag in fields(Capabilities) if isinstance(flag.default, bool)} | {"double_backward"}
CHOICES = inspect.signature(cases).parameters.keys() - {"dtype", "claims"}


def needs(requirement: Requirement) -> list[str]:
    return [flag for flag in requirement.needs.split(" and ") if flag]


each_requirement = pytest.mark.parametrize("requirement", REQUIREMENTS.values(), ids=REQUIREMENTS)


def test_every_requirement_has_exactly_one_property_and_every_property_a_requirement() -> None:
    assert {name: len(declared) for name, declared in PROPERTIES.items()} == dict.fromkeys(REQUIREMENTS, 1)


@each_requirement
def test_a_property_is_a_test_in_the_file_of_its_chapter(requirement: Requirement) -> None:
    (prop,) = PROPERTIES[requirement.id]
    (name,) = [
        name
        for name, function in vars(SUITE[requirement.chapter]).items()
        if getattr(function, "bn_property", None) is prop
    ]
    assert re.fullmatch("test_[a-z_]+", name)
    assert prop.requirement is requirement


@each_requirement
def test_a_property_draws_its_cases_with_choices_that_there_are(requirement: Requirement) -> None:
    (prop,) = PROPERTIES[requirement.id]
    assert prop.choices.keys() <= CHOICES


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_holds_tests_of_its_own_requirements_alone(chapter: str) -> None:
    tests = [function for name, function in vars(SUITE[chapter]).items() if name.startswith("test_")]
    found = [test.bn_property.requirement for test in tests]
    assert found == [requirement for requirement in REQUIREMENTS.values() if requirement.chapter == chapter]


@each_requirement
def test_a_requirement_is_numbered_in_a_chapter_and_needs_a_flag_that_backends_can_claim(
    requirement: Requirement,
) -> None:
    assert re.fullmatch(r"[A-Z]{3}-\d\d", requirement.id)
    assert REQUIREMENTS[requirement.id] is requirement
    assert requirement.chapter in CHAPTERS
    assert requirement.level in ("core", "training", "gradients", "module", "numerics")
    assert (requirement.level == "gradients") == ("gradients" in requirement.needs) == (requirement.chapter == "GRD")
    assert set(needs(requirement)) <= FLAGS
    assert requirement.needs == " and ".join(dict.fromkeys(needs(requirement)))  # each once, and nothing else


@each_requirement
def test_what_a_history_asks_of_gradients_is_needed_of_a_backend(requirement: Requirement) -> None:
    (prop,) = PROPERTIES[requirement.id]
    history = prop.choices.get("history", ("forward",))
    asks = any("backward" in word or "record" in word for word in history)
    assert asks == ("gradients" in needs(requirement))
    assert ("double backward" in history) == ("double_backward" in needs(requirement))


@pytest.mark.parametrize("requirement", [r for r in REQUIREMENTS.values() if r.chapter == "GRD"], ids=lambda r: r.id)
def test_gradients_in_eval_mode_are_asked_of_those_backends_alone_that_have_one(requirement: Requirement) -> None:
    (prop,) = PROPERTIES[requirement.id]
    assert ("eval" in prop.choices["history"]) == ("inference" in needs(requirement))


@pytest.mark.parametrize(("choice", "flag"), [("parameters", "affine_off"), ("running", "tracking_off")])
def test_a_layer_that_always_lacks_tensors_is_needed_of_a_backend(choice: str, flag: str) -> None:
    lacking = [name for name, (prop,) in PROPERTIES.items() if prop.choices.get(choice) == (ABSENT,)]
    assert lacking
    assert all(flag in needs(REQUIREMENTS[name]) for name in lacking)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_requirements_of_a_chapter_are_numbered_without_gaps(chapter: str) -> None:
    numbers = [requirement.id for requirement in REQUIREMENTS.values() if requirement.chapter == chapter]
    assert numbers == [f"{chapter}-{number:02}" for number in range(1, len(numbers) + 1)]


@each_requirement
def test_a_requirement_is_a_sentence_without_full_stop_and_names_its_source(requirement: Requirement) -> None:
    assert re.fullmatch(r"[^.\s].*[^.\s]", requirement.sentence)
    assert requirement.source.strip()


def test_no_two_requirements_say_the_same() -> None:
    assert len({requirement.sentence for requirement in REQUIREMENTS.values()}) == len(REQUIREMENTS)


def test_a_requirement_is_found_by_its_name_and_a_wrong_name_is_answered_with_the_nearest() -> None:
    assert requirement_named("RUN-03") is REQUIREMENTS["RUN-03"]
    with pytest.raises(ConfigError, match=r"requirement 'RUM-03' is not known; .*; did you mean 'RUN-03'\?"):
        requirement_named("RUM-03")


def test_a_property_of_no_requirement_cannot_be_declared() -> None:
    with pytest.raises(ConfigError, match=r"requirement 'TRN-99' is not known; .*; did you mean 'TRN-09'\?"):
        conforms("TRN-99")(lambda _cell, _case: None)
    assert "TRN-99" not in PROPERTIES
