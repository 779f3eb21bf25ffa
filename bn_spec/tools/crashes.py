"""Reproducing a crash: its last case, and then the whole search, in a process of its own."""

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
from bn_spec.specification.requirement import requirement_named
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Explain, Search

MOST_EXAMPLES = PROFILES["ci"].examples
"""Maximum number of examples that are drawn to reproduce a crash."""


def crashed_search(
    note: Note, isolated: Backend, examples: int, seed: int, explain: Explain | None = None
) -> Search:
    """Return the search in which a process died, to be repeated in another process.

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
    """Return what was noted as a violation, if there is a case; ``again`` is how it ended when played again."""
    if not note.cases:
        return None
    case, about = note.cases[0], note.about
    said = (
        ""
        if note.playing
        else "the process died after this case was answered, before the next one was played"
    )
    if again == "":
        said = "played in a process of its own, this case was answered: it may depend on what was played before"
    step = min(note.step, len(case.steps) - 1)
    discrepancy = Discrepancy(SURVIVAL, step, "an answer", again or "the process died")
    requirement = requirement_named(about["requirement"])
    return Violation(
        Finding(requirement, about["backend"], about["address"], case, discrepancy, said)
    )


def _again(note: Note, backend: Backend) -> str:
    """Return how the process dies in the cases that were noted, or nothing if it does not."""
    try:
        observations = _observed(note.cases, backend)
    except BnSpecError as error:
        return str(error)
    return next((str(o.initial) for o in observations if isinstance(o.initial, Died)), "")


def _observed(cases: tuple[Case, ...], backend: Backend) -> list[Observation]:
    if len(cases) > 1:
        return play_together(cases, backend)
    return [play(case, backend, (STATES,)) for case in cases]
