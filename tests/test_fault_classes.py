"""Every faulty specimen has a class; every class has a specimen, or a reason for having none."""

from __future__ import annotations

import re
from itertools import groupby
from operator import attrgetter

import pytest

from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.catalogue import faulty
from bn_spec.specimens.classes import FAULT_CLASSES, FaultClass

FAULTY = [specimen for specimen in SPECIMENS.values() if not specimen.sound]
REPORTED = [fault for fault in FAULT_CLASSES.values() if not fault.ours]
OURS = [fault for fault in FAULT_CLASSES.values() if fault.ours]
FAMILIES = (
    "statistics",
    "epsilon",
    "running statistics",
    "mode",
    "gradient",
    "layout",
    "sizes",
    "dtype",
    "affine",
    "state",
    "mutation",
    "errors",
    "folding",
)

by_name = pytest.mark.parametrize("fault", FAULT_CLASSES.values(), ids=attrgetter("name"))


def of_class(fault: FaultClass) -> list[Specimen]:
    return [specimen for specimen in FAULTY if specimen.fault == fault.name]


def test_every_faulty_specimen_has_a_known_class_and_no_sound_one_has() -> None:
    assert {specimen.fault for specimen in FAULTY} <= FAULT_CLASSES.keys()
    assert {specimen.fault for specimen in SPECIMENS.values() if specimen.sound} == {""}


@by_name
def test_a_class_has_a_specimen_or_says_why_it_has_none(fault: FaultClass) -> None:
    assert bool(of_class(fault)) != bool(fault.unexpressed)


def test_a_fault_that_no_specimen_can_have_is_the_exception() -> None:
    assert [fault.name for fault in FAULT_CLASSES.values() if fault.unexpressed] == ["state-device"]


@by_name
def test_a_class_says_in_a_sentence_what_it_is(fault: FaultClass) -> None:
    assert FAULT_CLASSES[fault.name] is fault
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fault.name)
    assert re.fullmatch(r"[^\n]{30,200}\.", fault.sentence)
    assert not re.search(r"\. ", fault.sentence)
    assert re.fullmatch(r"([^\n]+\.)?", fault.unexpressed)


def test_no_two_classes_say_the_same() -> None:
    assert len({fault.sentence for fault in FAULT_CLASSES.values()}) == len(FAULT_CLASSES)


def test_classes_stand_family_by_family() -> None:
    groups = groupby(FAULT_CLASSES.values(), attrgetter("family"))
    assert tuple(family for family, _ in groups) == FAMILIES


@by_name
def test_a_tracker_is_an_issue_a_pull_request_or_a_commit(fault: FaultClass) -> None:
    assert len(set(fault.trackers)) == len(fault.trackers)
    for tracker in fault.trackers:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+(#\d+|@[0-9a-f]{8})", tracker)


def test_fifty_one_classes_were_collected_from_trackers() -> None:
    assert len(REPORTED) == 51
    assert all(fault.trackers for fault in REPORTED)
    assert len({tracker for fault in REPORTED for tracker in fault.trackers}) >= 270


@pytest.mark.parametrize("fault", OURS, ids=attrgetter("name"))
def test_a_class_of_ours_lists_what_its_specimens_name(fault: FaultClass) -> None:
    assert set(fault.trackers) == {
        entry for specimen in of_class(fault) for entry in specimen.history
    }


@pytest.mark.parametrize("specimen", FAULTY, ids=attrgetter("name"))
def test_the_history_of_a_specimen_is_among_the_trackers(specimen: Specimen) -> None:
    listed = {tracker for fault in FAULT_CLASSES.values() for tracker in fault.trackers}
    assert listed.issuperset(specimen.history)


def test_an_unknown_class_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(
        ValueError,
        match=r"fault class 'epsilon-ignored' is not known; .* did you mean 'eps-ignored'",
    ):
        faulty("never-entered", fault="epsilon-ignored", history=(), caught_by=("TRN-01",))
