"""The outcome of a cell: its status, its record, and the data that its pytest report carries."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

from bn_spec.report.records import (
    CRASHED,
    FAIL,
    KNOWN,
    NOT_CLAIMED,
    PASS,
    UNEXPECTED_PASS,
    VACUOUS,
    Record,
)
from bn_spec.session import options, setup

if TYPE_CHECKING:
    from bn_spec.judge.finding import Finding
    from bn_spec.suite.cell import Cell
    from bn_spec.suite.search import Search

CONCERNED = pytest.StashKey[Counter[int]]()
"""Number of cells that each entry of the file of known failures concerns, by its place."""

ATTRIBUTE = "bn_spec"
"""Name of the attribute of a pytest report that carries the record of a cell to the controller."""

LONGEST_CASE = 4096
"""Maximum number of values, and of characters, of a worst case that a record contains."""


def search_of(item: pytest.Item) -> Search | None:
    """Return the search of a test of the suite, or None for any other test."""
    if not hasattr(getattr(item, "function", None), "bn_property"):
        return None
    call = getattr(item, "callspec", None)
    return call.params.get("search") if call else None


def concerning(config: pytest.Config, cell: Cell) -> list[int]:
    """Return the places of the entries of the file of known failures that concern a cell."""
    return [
        place for place, entry in enumerate(setup.entries(config)) if entry.failure in cell.excused
    ]


def record_of(report: pytest.TestReport) -> Record | None:
    """Return the record that a report carries, or None if it carries none.

    A report of a test that is not of the suite carries none, nor does that of a set-up or teardown.
    """
    sent = getattr(report, ATTRIBUTE, None)
    return None if sent is None else Record.from_dict(sent["record"])


def failures_of(config: pytest.Config, search: Search) -> list[tuple[int, int, str]]:
    """Return place, number of cells and fate of each known-failure entry that concerns a search."""
    entries, concerned = setup.entries(config), config.stash[CONCERNED]
    places = concerning(config, search.cell)
    return [(place, concerned[place], search.fate(entries[place].failure)) for place in places]


class Kept(NamedTuple):
    """An error to report, and the case files to keep.

    Attributes:
        error: The error of a cell; a violation says how to replay its case.
        cases: Files of the cases, base64-encoded, by id.

    """

    error: BaseException | None
    cases: dict[str, str]


def kept(config: pytest.Config, error: BaseException | None) -> Kept:
    """Return the error to report, and the file of its case if it is a violation."""
    from bn_spec.suite.cell import Violation
    from bn_spec.tools.stored_cases import Stored

    if not isinstance(error, Violation):
        return Kept(error, {})
    stored = Stored.of(error.finding, error.drawn)
    if stored is None:
        return Kept(error, {})
    command = _replay(config, stored.id, error.finding)
    reported = type(error)(replace(error.finding, replay=command))
    return Kept(reported, {stored.id: b64encode(stored.content).decode()})


def _replay(config: pytest.Config, name: str, finding: Finding) -> str:
    """Return the command that replays a case."""
    if not options.option(config, "report_dir"):
        return f"bn-spec replay {name}"
    words = ["bn-spec", "replay", str(options.store(config).path(name))]
    if finding.address != finding.backend:
        # `replay` does not load the backend that a file outside .bn_spec names.
        words += ["--backend", finding.address]
    return shlex.join(words)


def recorded(cell: Cell, status: str, text: str, seconds: float, kept: Kept) -> Record:
    """Return the record of a cell."""
    from bn_spec.case.script import source
    from bn_spec.judge.finding import MOST_FAULTS
    from bn_spec.suite.cell import Violation

    observable = ""
    explanations: tuple[str, ...] = ()
    if isinstance(kept.error, Violation):
        finding = kept.error.finding
        observable = finding.discrepancy.observable
        explanations = (finding.faults or ())[:MOST_FAULTS]
    tally = cell.tally
    worst_case = ""
    if tally.worst_case is not None and tally.worst_case.values <= LONGEST_CASE:
        code = source(tally.worst_case)
        worst_case = code if len(code) <= LONGEST_CASE else ""
    return Record(
        cell.prop.requirement.id,
        cell.backend.name,
        cell.dtype,
        status,
        examples=tally.examples,
        discarded=tally.discarded,
        judged=tally.judged,
        outside=tally.outside,
        seconds=round(seconds, 4),
        shares=tally.shares,
        worst_case=worst_case,
        text=text,
        observable=observable,
        explanations=explanations,
        cases=tuple(kept.cases),
        grade=tally.measured_grade,
        claimed_grade=cell.claims.grade,
        conditioning=tally.conditioning,
        reached=dict(tally.reached),
    )


def attach(
    report: Any,
    record: Record,
    cases: Mapping[str, str],
    passed: Sequence[str] = (),
    failures: Sequence[tuple[int, int, str]] = (),
    notes: Sequence[str] = (),
) -> None:
    """Attach the data of a cell to its pytest report, which carries them to the controller.

    Args:
        report: The pytest report.
        record: The record of the cell.
        cases: Files of the cases to keep, base64-encoded, by id.
        passed: Ids of the stored cases that no longer fail.
        failures: See :func:`failures_of`.
        notes: Problems to report, such as those of databases.

    """
    sent = {
        "cases": dict(cases),
        "passed": list(passed),
        "failures": list(failures),
        "notes": list(notes),
    }
    setattr(report, ATTRIBUTE, sent | {"record": record.to_dict()})


def junit(record: Record) -> list[tuple[str, object]]:
    """Return the properties of a cell for JUnit files."""
    properties: list[tuple[str, object]] = [
        ("requirement", record.requirement),
        ("status", record.status),
    ]
    if record.worst is not None:
        properties.append(("worst err/bound", f"{record.worst:.4g}"))
    return properties


def failure(report: pytest.TestReport, text: str) -> ReprExceptionInfo:
    """Return a text as the failure that a report shows.

    Summaries and JUnit files show its first line only. A plain string would not do: pytest's short
    summary prints all of it where the environment variable ``CI`` is set.
    """
    path, line, _ = report.location
    headline = " ".join(text.partition("\n")[0].split())
    entries = [ReprEntryNative([f"{text}\n"])]
    return ReprExceptionInfo(
        ReprTraceback(entries, extraline=None, style="native"),
        ReprFileLocation(path, (line or 0) + 1, headline),
    )


def status_of(
    search: Search, report: pytest.TestReport, error: BaseException | None
) -> tuple[str, str]:
    """Return the status of a cell and the text that explains it."""
    from bn_spec.suite.cell import Violation
    from bn_spec.suite.search import Vacuous

    cell = search.cell
    if report.skipped:
        return NOT_CLAIMED, cell.not_claimed
    if isinstance(error, Vacuous):
        return VACUOUS, str(error)
    if isinstance(error, Violation):
        return FAIL, str(error)
    if error is not None:
        return CRASHED, f"{type(error).__name__}: {error}"
    fixed = search.no_longer_failing
    if fixed:
        return UNEXPECTED_PASS, (
            f"{cell.prop.requirement.id} holds for {cell.backend.name},"
            f" which declares a known failure of it"
            f" ({fixed[0].observable}: {fixed[0].reason}); remove the declaration"
        )
    if cell.tally.known:
        return KNOWN, "\n".join(dict.fromkeys(known.reason for known in cell.tally.known))
    return PASS, ""


def show(report: pytest.TestReport, status: str, text: str) -> None:
    """Make pytest show a report as the status requires."""
    if status in (FAIL, VACUOUS, UNEXPECTED_PASS):
        report.outcome, report.longrepr = "failed", failure(report, text)
    elif status == KNOWN:
        report.outcome, report.wasxfail = "skipped", text


def hide(report: Any) -> None:
    """Leave a failure out of what pytest prints at the end."""
    # pytest leaves it out if its debugger has shown it already; there is no public way.
    report._pdbshown = True
