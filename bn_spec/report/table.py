"""The summary of a run as plain text: a table of backends and chapters, then sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import floor, isfinite
from textwrap import wrap

from bn_spec.report.causes import causes, known
from bn_spec.report.records import (
    BAD,
    CRASHED,
    FAIL,
    KNOWN,
    NOT_CLAIMED,
    UNEXPECTED_PASS,
    VACUOUS,
    Record,
    Run,
    having,
)
from bn_spec.report.sentences import sentence_of
from bn_spec.specification.requirement import CHAPTERS
from bn_spec.suite.regions import AXES

WIDTH = 100
"""Longest line of a sentence, in characters."""

LEGEND = (
    "number: worst err/bound (1 is the limit)   ok: all passed, nothing measured   -: not claimed",
    "grade: the best numerical class of the variance whose bounds all examples satisfied",
)
"""Lines that explain the table."""


def summary(run: Run) -> Iterator[str]:
    """Yield the lines of the summary: the table, its legend, the regions, and the sentences."""
    if run.records:
        yield from _aligned(_rows(run.records))
        yield ""
        yield from LEGEND
    yield from _reached(run.records)
    yield from _sentences(run)


def _rows(records: Sequence[Record]) -> list[list[str]]:
    """Return the cells of the table: a header, then a row for each backend and dtype."""
    judged = {record.chapter for record in records}
    chapters = [chapter for chapter in CHAPTERS if chapter in judged]
    rows = [["backend", "dtype", *chapters, "grade"]]
    for backend, dtype in sorted({(record.backend, record.dtype) for record in records}):
        own = [r for r in records if (r.backend, r.dtype) == (backend, dtype)]
        cells = [cell([r for r in own if r.chapter == chapter]) for chapter in chapters]
        rows.append([backend, dtype, *cells, _grade(own)])
    return rows


def _reached(records: Sequence[Record]) -> Iterator[str]:
    """Yield the number of cases that reached each region, an axis a line."""
    total = Counter[str]()
    for record in records:
        total.update(record.reached)
    if not total:
        return
    examples = sum(record.examples for record in records)
    yield f"regions, and how many of {examples:,} cases reached each:"
    for name, axis in AXES.items():
        # No line is broken at the no-break space, so a region and its number stay together.
        counts = [
            f"{region.removeprefix(name).strip()}\xa0({total[region]:,})" for region in axis.regions
        ]
        yield from _wrapped(f"    {name}", ", ".join(counts))
    yield ""


def cell(records: Sequence[Record]) -> str:
    """Return what a cell of the table shows: failures, the worst err / bound, or a word."""
    claimed = [record for record in records if record.status != NOT_CLAIMED]
    if not claimed:
        return "-" if records else ""
    if bad := [record for record in claimed if record.status in BAD]:
        return f"{len(bad)} FAILED"
    worst = max((share for record in claimed for share in record.shares.values()), default=None)
    measured = "ok" if worst is None else share_of(worst)
    excused = len(having(claimed, KNOWN))
    return f"{measured} ({excused} known)" if excused else measured


def share_of(worst: float) -> str:
    """Return err / bound with two digits after the point.

    From 0.995 on, three digits, rounded down, so that only a share of 1 or more reads as 1.
    """
    if not isfinite(worst):
        return str(worst)
    return f"{worst:.2f}" if worst < 0.995 else f"{floor(1000 * worst) / 1000:.3f}"


def _grade(records: Sequence[Record]) -> str:
    """Return the measured grade, and the claimed one if it differs."""
    for record in records:
        if record.grade:
            claimed = record.claimed_grade
            return record.grade if record.grade == claimed else f"{record.grade} (claims {claimed})"
    return ""


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _sentences(run: Run) -> Iterator[str]:
    """Yield verdicts, known failures, failures, and what is wrong with the run as a whole."""
    for backend in sorted({record.backend for record in run.records}):
        own = [record for record in run.records if record.backend == backend]
        yield from _wrapped(verdict(backend, own), "")
        if worst := _worst(own):
            yield from _wrapped("    worst err/bound", worst)
    for (backend, reason), where in known(having(run.records, KNOWN)).items():
        yield from _wrapped(f"{backend}: known failure of {'; '.join(where)}", reason)
    yield from _failures(run.records)
    for name, reason in sorted(run.unavailable.items()):
        yield from _wrapped(f"{name}: not run", reason)
    for sentence in (*run.faults, *run.notes):
        yield from _wrapped(sentence, "")
    for name in run.lost:
        yield from _wrapped("INCOMPLETE: a worker was lost", name)
    if run.missing:
        number = len(run.missing)
        yield from _wrapped(
            f"INCOMPLETE: collected tests without a result: {number}; the first is", run.missing[0]
        )


def _failures(records: Sequence[Record]) -> Iterator[str]:
    """Yield the causes that explain several failures, then every other failure."""
    explained = causes(records)
    for cause in explained:
        yield from _wrapped(str(cause), "")
        yield from _wrapped("    failing requirements", cause.where)
        yield "    `bn-spec report` and pytest's option -v show all of these findings"
    told = {id(record) for cause in explained for record in cause.records}
    others = [record for record in records if id(record) not in told]
    for status in (FAIL, UNEXPECTED_PASS, CRASHED, VACUOUS):
        for (backend, requirement, text), dtypes in _by_text(having(others, status)).items():
            yield from _wrapped(f"{requirement} {backend} ({', '.join(dtypes)}): {status}", text)


def _by_text(records: Sequence[Record]) -> dict[tuple[str, str, str], list[str]]:
    """Return the dtypes of failures, grouped by backend, requirement and what is printed."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        key = (record.backend, record.requirement, _short_text(record))
        groups.setdefault(key, []).append(record.dtype)
    return groups


def _short_text(record: Record) -> str:
    """Return the text of a failure, short enough for the summary."""
    if record.status == FAIL:
        return sentence_of(record.requirement)
    if record.status == CRASHED:
        return record.text.partition("\n")[0]
    return record.text


def verdict(backend: str, records: Sequence[Record]) -> str:
    """Return a sentence that says whether a backend conforms, and how much was judged."""
    bad = sum(record.status in BAD for record in records)
    claimed = sum(record.status != NOT_CLAIMED for record in records)
    examples = sum(record.examples for record in records)
    judged = sum(record.judged for record in records)
    outside = sum(record.outside for record in records)
    word = f"DOES NOT CONFORM: {bad} of {claimed} checks failed" if bad else "conforms"
    elsewhere = ""
    if outside:
        elsewhere = (
            f"; NUM-06, NUM-13 and GRD-20 judge {outside:,} more,"
            " which are outside the domain of the bounds"
        )
    return (
        f"{backend}: {word} ({claimed} checks, {examples:,} examples,"
        f" {judged:,} values judged{elsewhere})"
    )


def _worst(records: Sequence[Record]) -> str:
    """Return the worst err / bound of each observable that has a bound."""
    shares: dict[str, float] = {}
    for record in records:
        for name, share in record.shares.items():
            shares[name] = max(share, shares.get(name, 0.0))
    return ", ".join(f"{name}\xa0{shares[name]:.3g}" for name in sorted(shares))


def _wrapped(head: str, text: str) -> list[str]:
    """Return a sentence as lines of :data:`WIDTH`, all but the first one indented."""
    lines = wrap(
        f"{head}: {text}" if text else head,
        WIDTH,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace("\xa0", " ") for line in lines]
