"""The suite flags no sound specimen, catches every faulty one, and shows faults on small cases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import attrgetter
from statistics import median

import pytest
from hypothesis import settings

from bn_spec import UnknownBackend
from bn_spec.backend.registry import load
from bn_spec.case.dtypes import DTYPES
from bn_spec.oracle.bounds import GRADES
from bn_spec.specification.requirement import CHAPTERS, REQUIREMENTS
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.catalogue import sound
from bn_spec.specimens.kernel import Kernel
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from bn_spec.tools.audit import scaled_down

load_suite()

SOUND = [specimen for specimen in SPECIMENS.values() if specimen.sound]
FAULTY = [specimen for specimen in SPECIMENS.values() if not specimen.sound]

CI = PROFILES["ci"].settings()
UNSHRUNK = PROFILES["ci"].settings(shrink=False)
"""Settings for tests of whether a fault is caught, for which the size of the case is irrelevant."""

BRIEF = PROFILES["ci"].settings(5)
"""Settings for sound specimens; the soak benchmark tests them with many more examples."""


@pytest.fixture(autouse=True)
def small_numbers_beyond_32_bits() -> Iterator[None]:
    with scaled_down():
        yield


def violation(
    specimen: Specimen, requirement: str, dtype: str, profile: settings = UNSHRUNK
) -> Violation | None:
    cell = Cell(PROPERTIES[requirement], specimen, dtype)
    try:
        Search(cell, profile).examine()
    except Violation as found:
        return found
    return None


def claimed(specimen: Specimen, requirement: str) -> list[str]:
    """Return the dtypes that a specimen claims and that a requirement is about."""
    dtypes = PROPERTIES[requirement].dtypes
    return [dtype for dtype in specimen.capabilities.dtypes if dtype in dtypes]


def in_turn(dtypes: list[str], specimen: Specimen, requirement: str) -> list[str]:
    """Return one of the dtypes, or none if there is none.

    Specimens and requirements take different ones, so that all dtypes have their turn.
    """
    turn = len(specimen.name) + int(requirement.partition("-")[2])
    return dtypes[turn % max(len(dtypes), 1) :][:1]


STATEFUL = ("CFG", "STA", "LAY", "DTY", "SPV", "ERR", "DET")
"""Chapters about code that sound specimens share."""


def sound_ones_of(chapter: str) -> list[Specimen]:
    """Return the sound specimens that a chapter judges here: every sixth or every third one.

    Neighbouring chapters judge different ones; the audit judges them all.
    """
    every = 6 if chapter in STATEFUL else 3
    return SOUND[list(CHAPTERS).index(chapter) % every :: every]


PAIRS = [(specimen, chapter) for chapter in CHAPTERS for specimen in sound_ones_of(chapter)]


@pytest.mark.parametrize(
    ("specimen", "chapter"), PAIRS, ids=[f"{s.name}-{chapter}" for s, chapter in PAIRS]
)
def test_no_sound_specimen_is_flagged(specimen: Specimen, chapter: str) -> None:
    cells = [
        Cell(PROPERTIES[name], specimen, dtype)
        for name, requirement in REQUIREMENTS.items()
        if requirement.chapter == chapter
        for dtype in in_turn([*specimen.capabilities.dtypes], specimen, name)
    ]
    for cell in cells:
        if cell.not_claimed or cell.prop.deep or cell.prop.huge:
            continue
        Search(cell, BRIEF).examine()
        assert cell.tally.judged > 0
        assert max(cell.tally.shares.values(), default=0) <= 1


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("two-pass-pairwise", "mixed_float16"),
        ("folded-affine", "float64"),
    ],
)
def test_no_sound_specimen_is_flagged_by_a_deep_property(name: str, dtype: str) -> None:
    deep = [prop for prop in PROPERTIES.values() if prop.deep or prop.huge]
    assert deep
    for prop in deep:
        cell = Cell(prop, SPECIMENS[name], dtype)
        Search(cell, CI).examine()
        assert cell.tally.judged > 0


@pytest.mark.parametrize("specimen", FAULTY, ids=attrgetter("name"))
def test_a_faulty_specimen_is_caught_by_each_requirement_that_it_names(specimen: Specimen) -> None:
    escapes = [
        (requirement, dtype)
        for requirement in specimen.caught_by
        for dtype in in_turn(claimed(specimen, requirement), specimen, requirement)
        if violation(specimen, requirement, dtype) is None
    ]
    assert not escapes


def test_faults_are_looked_for_in_every_dtype() -> None:
    pairs = [(specimen, name) for specimen in FAULTY for name in specimen.caught_by]
    judged: set[str] = set()
    for specimen, name in pairs:
        judged |= set(in_turn(claimed(specimen, name), specimen, name))
    assert judged == set(DTYPES)


def test_every_dtype_has_sound_specimens_of_every_grade() -> None:
    assert len(SOUND) >= 12
    for dtype in DTYPES:
        claims = [specimen.capabilities for specimen in SOUND]
        assert {claim.grade for claim in claims if dtype in claim.dtypes} == set(GRADES)


def test_faults_are_shown_in_two_steps_on_four_input_elements_or_fewer() -> None:
    shown = []
    for specimen in FAULTY[::4]:
        requirement = specimen.caught_by[0]
        prop = PROPERTIES[requirement]
        if prop.deep or prop.huge:
            continue  # its cases are large by nature
        found = violation(specimen, requirement, claimed(specimen, requirement)[0], CI)
        assert found is not None, specimen.name
        shown.append(found.finding.case)
    sizes = [case.values for case in shown]
    # Faults of construction need no input at all, and would lower the median.
    assert median(filter(None, sizes)) <= 4, sizes
    assert median(len(case.steps) for case in shown) <= 2


def test_every_requirement_catches_a_fault() -> None:
    assert len(FAULTY) >= 110
    catching = {requirement for specimen in FAULTY for requirement in specimen.caught_by}
    assert catching == set(REQUIREMENTS)


@pytest.mark.parametrize("specimen", SPECIMENS.values(), ids=attrgetter("name"))
def test_a_specimen_has_a_plain_name_a_sentence_and_a_history(specimen: Specimen) -> None:
    assert SPECIMENS[specimen.name] is specimen
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", specimen.name)
    assert re.fullmatch(r"[^\n]+\.", specimen.sentence)
    kind = "sound" if specimen.sound else "faulty"
    assert specimen.description == f"{kind} specimen: {specimen.sentence}"
    for entry in specimen.history:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", entry)


def test_the_sentence_of_a_specimen_is_the_first_line_of_its_docstring() -> None:
    class Explained(Kernel):
        """The kernel is explained.

        It has details.
        """

    sound("explained", grade="two-pass")(Explained)
    assert SPECIMENS.pop("explained").sentence == "The kernel is explained."


def test_no_two_specimens_make_the_same_mistake_in_the_same_words() -> None:
    assert len({specimen.sentence for specimen in SPECIMENS.values()}) == len(SPECIMENS)


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_specimen_is_loaded_by_an_import_string(name: str) -> None:
    assert load(f"bn_spec.specimens:{name.replace('-', '_')}") is SPECIMENS[name]


def test_an_unknown_specimen_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UnknownBackend, match="did you mean 'runvar_bias'"):
        load("bn_spec.specimens:runvar_bais")
