"""What comes of a cell: its status, its record, and what travels with the report of it."""

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

ATTRIBUTE = "bn_spec"
"""Of the report of a cell: what travels with it from a worker to who gathers the records."""

LONGEST_CASE = 4096
"""Values and characters beyond which the case of the worst err / bound is not written into a record."""


def search_of(item: pytest.Item) -> Search | None:
    """Return the search of an item of the suite, or None for any other test."""
    if not hasattr(getattr(item, "function", None), "bn_property"):
        return None
    call = getattr(item, "callspec", None)
    return call.params.get("search") if call else None


def concerning(config: pytest.Config, cell: Cell) -> list[int]:
    """Return the places of the known failures, among those of the file, that a cell may have."""
    return [
        place for place, entry in enumerate(setup.entries(config)) if entry.failure in cell.excused
    ]


def record_of(report: pytest.TestReport) -> Record | None:
    """Return the record of the cell that a report is of, or None where it is of none or not of its end."""
    sent = getattr(report, ATTRIBUTE, None)
    return sent and Record.from_dict(sent["record"])


def failures_of(config: pytest.Config, search: Search) -> list[tuple[int, int, str]]:
    """Return, for each entry of the file that concerns a search, its place, its cells and its fate."""
    entries, concerned = setup.entries(config), config.stash[CONCERNED]
    places = concerning(config, search.cell)
    return [(place, concerned[place], search.fate(entries[place].failure)) for place in places]


class Kept(NamedTuple):
    """An error, which says how to play its case again, and the files of the cases that are to be kept, by id."""

    error: BaseException | None
    cases: dict[str, str]


def kept(config: pytest.Config, error: BaseException | None) -> Kept:
    """Return an error as it is told, and what is to be kept of its case."""
    from bn_spec.suite.cell import Violation
    from bn_spec.tools.stored_cases import Stored

    if (
        not isinstance(error, Violation)
        or (stored := Stored.of(error.finding, error.drawn)) is None
    ):
        return Kept(error, {})
    told = type(error)(replace(error.finding, replay=_replay(config, stored.id, error.finding)))
    return Kept(told, {stored.id: b64encode(stored.content).decode()})


def _replay(config: pytest.Config, name: str, finding: Finding) -> str:
    """Return the command that plays a case again; a file out of its usual place loads nobody whom it names."""
    if not options.option(config, "report_dir"):
        return f"bn-spec replay {name}"
    words = ["bn-spec", "replay", str(options.store(config).path(name))]
    return shlex.join(
        words if finding.address == finding.backend else [*words, "--backend", finding.address]
    )


def recorded(cell: Cell, status: str, text: str, seconds: float, kept: Kept) -> Record:
    """Return the record of a cell."""
    from bn_spec.case.script import source
    from bn_spec.judge.finding import MOST_FAULTS
    from bn_spec.suite.cell import Violation

    finding = kept.error.finding if isinstance(kept.error, Violation) else None
    tally, worst = cell.tally, cell.tally.worst_case
    small = worst is not None and worst.values <= LONGEST_CASE
    code = source(worst) if worst is not None and small else ""
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
        worst_case=code if len(code) <= LONGEST_CASE else "",
        text=text,
        observable=finding.discrepancy.observable if finding else "",
        explanations=(finding.faults or ())[:MOST_FAULTS] if finding else (),
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
    """Let a report carry its record, the cases to be kept and those that pass again, and what else is told."""
    sent = {
        "cases": dict(cases),
        "passed": list(passed),
        "failures": list(failures),
        "notes": list(notes),
    }
    setattr(report, ATTRIBUTE, sent | {"record": record.to_dict()})


def junit(record: Record) -> list[tuple[str, object]]:
    """Return what JUnit files say of a cell."""
    worst = [] if record.worst is None else [("worst err/bound", f"{record.worst:.4g}")]
    return [("requirement", record.requirement), ("status", record.status), *worst]


def failure(report: pytest.TestReport, text: str) -> ReprExceptionInfo:
    """Return a text as what a report shows of a failure; its first line is what summaries and JUnit files have of it.

    Of a mere string pytest's short summary has all of it, wherever the variable ``CI`` is set.
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
    if unseen := search.no_longer_failing:
        return UNEXPECTED_PASS, (
            f"{cell.prop.requirement.id} holds for {cell.backend.name}, which declares a known failure of it"
            f" ({unseen[0].observable}: {unseen[0].reason}); remove the declaration"
        )
    if cell.tally.known:
        return KNOWN, "\n".join(dict.fromkeys(known.reason for known in cell.tally.known))
    return PASS, ""


def show(report: pytest.TestReport, status: str, text: str) -> None:
    """Let a report of pytest's look like the status."""
    if status in (FAIL, VACUOUS, UNEXPECTED_PASS):
        report.outcome, report.longrepr = "failed", failure(report, text)
    elif status == KNOWN:
        report.outcome, report.wasxfail = "skipped", text
