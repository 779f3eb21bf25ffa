"""Reproduces a crash in a process of its own: the whole search, or else the last noted case."""

from __future__ import annotations

from bn_spec.backend.contract import Backend
from bn_spec.case.script import Case
from bn_spec.errors import BnSpecError
from bn_spec.judge.finding import Finding
from bn_spec.judge.judging import SURVIVAL
from bn_spec.judge.verdict import Discrepancy
from bn_spec.play.flight import Note
from bn_spec.play.observation import STATES, Died, Observation
from bn_spec.play.player import play, play_together
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite, requirement_named
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Explain, Search

MOST_EXAMPLES = PROFILES["ci"].examples
"""Maximum number of examples that are drawn to reproduce a crash."""


def crashed_search(
    note: Note, isolated: Backend, examples: int, seed: int, explain: Explain | None = None
) -> Search:
    """Return the search in which a process died, to be repeated in another process.

    Args:
        note: What the process noted before it died.
        isolated: The backend in a process of its own.
        examples: Number of examples of the run.
        seed: Seed of the run.
        explain: Explains a violation.

    Raises:
        BnSpecError: The suite has no such property.

    """
    load_suite()
    about = note.about
    prop = PROPERTIES.get(about["requirement"])
    if prop is None or prop.body.__name__ != about["property"]:
        raise BnSpecError(f"there is no property {about['property']!r} of {about['requirement']}")
    settings = PROFILES["ci"].settings(min(examples, MOST_EXAMPLES))
    cell = Cell(prop, isolated, about["dtype"], about["address"])
    return Search(cell, settings, seed, explain=explain)


def reproduced(note: Note, search: Search) -> Violation | None:
    """Return the smallest case in which the process dies again, or else the noted case."""
    try:
        search.run()
    except Violation as found:
        if found.finding.discrepancy.observable == SURVIVAL:
            return found
    except BnSpecError:
        pass  # the backend cannot be loaded again, or judged nothing: the note remains
    return noted_violation(note, _again(note, search.cell.backend))


def noted_violation(note: Note, again: str | None = None) -> Violation | None:
    """Return the noted death as a violation, or None if no case was noted.

    Args:
        note: What the process noted before it died.
        again: How the process died when the case was played again; empty if it survived; None if
            the case was not played again.

    """
    if not note.cases:
        return None
    case, about = note.cases[0], note.about
    remark = ""
    if not note.playing:
        remark = "the process died after this case was answered, before the next one was played"
    if again == "":
        remark = (
            "played in a process of its own, this case was answered:"
            " the crash may depend on earlier cases"
        )
    step = min(note.step, len(case.steps) - 1)
    discrepancy = Discrepancy(SURVIVAL, step, "an answer", again or "the process died")
    requirement = requirement_named(about["requirement"])
    finding = Finding(requirement, about["backend"], about["address"], case, discrepancy, remark)
    return Violation(finding)


def _again(note: Note, backend: Backend) -> str:
    """Return how the process dies when the noted cases are played again; empty if it survives."""
    try:
        observations = _observed(note.cases, backend)
    except BnSpecError as error:
        return str(error)
    deaths = [each.initial for each in observations if isinstance(each.initial, Died)]
    return str(deaths[0]) if deaths else ""


def _observed(cases: tuple[Case, ...], backend: Backend) -> list[Observation]:
    if len(cases) > 1:
        return play_together(cases, backend)
    return [play(case, backend, (STATES,)) for case in cases]
