"""The summary of a run as plain text: backend × chapter with the worst err / bound in each cell."""

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
from bn_spec.specification.requirement import CHAPTERS, REQUIREMENTS
from bn_spec.suite.regions import AXES

WIDTH = 100


def summary(run: Run) -> Iterator[str]:
    """Yield the lines of the summary: the table, its legend, and what needs a sentence."""
    rows = sorted({(record.backend, record.dtype) for record in run.records})
    chapters = [
        chapter for chapter in CHAPTERS if any(record.chapter == chapter for record in run.records)
    ]
    header = ["backend", "dtype", *chapters, "grade"]
    body = [
        [
            backend,
            dtype,
            *(cell(_of(run.records, backend, dtype, chapter)) for chapter in chapters),
            _grade(run.records, backend, dtype),
        ]
        for backend, dtype in rows
    ]
    if rows:
        yield from _aligned([header, *body])
        yield ""
        yield "number: worst err/bound (1 is the limit)   ok: nothing to measure, all as required   -: not claimed"
        yield "grade: the best numerical class of the variance whose bounds all examples satisfied"
    yield from _reached(run.records)
    yield from _sentences(run)


def _reached(records: Sequence[Record]) -> Iterator[str]:
    """Yield how many cases reached each region, an axis at a time; of those at either end that none did, none."""
    total = Counter[str]()
    for record in records:
        total.update(record.reached)
    if not total:
        return
    yield f"regions, by the number of cases that reached them, of {sum(record.examples for record in records):,}:"
    for name, axis in AXES.items():
        counts = [
            f"{region.removeprefix(name).strip()}\xa0{total[region]:,}" for region in axis.regions
        ]
        yield from _listed(f"    {name}", ", ".join(counts))
    yield ""


def _of(records: Sequence[Record], backend: str, dtype: str, chapter: str) -> list[Record]:
    return [r for r in records if (r.backend, r.dtype, r.chapter) == (backend, dtype, chapter)]


def cell(records: Sequence[Record]) -> str:
    """Say in a word or a number what became of some requirements."""
    claimed = [record for record in records if record.status != NOT_CLAIMED]
    if not claimed:
        return "-" if records else ""
    if bad := [record for record in claimed if record.status in BAD]:
        return f"{len(bad)} FAILED"
    worst = max((share for record in claimed for share in record.shares.values()), default=None)
    excused = len(having(claimed, KNOWN))
    return ("ok" if worst is None else share_of(worst)) + (f" ({excused} known)" if excused else "")


def share_of(worst: float) -> str:
    """Return err/bound in two digits; in more, rounded down, where they would read as the limit itself."""
    if not isfinite(worst):
        return str(worst)
    return f"{worst:.2f}" if worst < 0.995 else f"{floor(1000 * worst) / 1000:.3f}"


def _grade(records: Sequence[Record], backend: str, dtype: str) -> str:
    """The measured grade, beside the claimed one where they differ."""
    for record in records:
        if (record.backend, record.dtype) == (backend, dtype) and record.grade:
            claimed = record.claimed_grade
            return record.grade if record.grade == claimed else f"{record.grade} (claims {claimed})"
    return ""


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _sentences(run: Run) -> Iterator[str]:
    for backend in sorted({record.backend for record in run.records}):
        own = [record for record in run.records if record.backend == backend]
        yield from _listed(verdict(backend, own), "")
        if worst := _worst(own):
            yield from _listed("    worst err/bound", worst)
    for (backend, reason), where in known(having(run.records, KNOWN)).items():
        yield from _listed(f"{backend}: known failure of {'; '.join(where)}", reason)
    yield from _failures(run.records)
    for name, reason in sorted(run.unavailable.items()):
        yield from _listed(f"{name}: not run", reason)
    for sentence in (*run.faults, *run.notes):
        yield from _listed(sentence, "")
    for name in run.lost:
        yield from _listed("INCOMPLETE: a worker was lost", name)
    if run.missing:
        yield from _listed(
            f"INCOMPLETE: {len(run.missing)} collected tests were never reported", run.missing[0]
        )


def _failures(records: Sequence[Record]) -> Iterator[str]:
    """Yield what made a run fail: the faults that explain much of it, then the rest by requirement."""
    explained = causes(records)
    for cause in explained:
        yield from _listed(str(cause), "")
        yield from _listed("    they are", cause.where)
        yield "    all of them are shown by `bn-spec report`, and by -v of pytest"
    told = {id(record) for cause in explained for record in cause.records}
    others = [record for record in records if id(record) not in told]
    for status in (FAIL, UNEXPECTED_PASS, CRASHED, VACUOUS):
        for (backend, requirement, text), dtypes in _by_text(having(others, status)).items():
            yield from _listed(f"{requirement} {backend} ({', '.join(dtypes)}): {status}", text)


def _by_text(records: Sequence[Record]) -> dict[tuple[str, str, str], list[str]]:
    """Group records that differ in their dtype only; a finding is told by the sentence of its requirement.

    Of a crash, the first line is told.
    """
    groups: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        first = record.text.partition("\n")[0] if record.status == CRASHED else record.text
        text = REQUIREMENTS[record.requirement].sentence if record.status == FAIL else first
        groups.setdefault((record.backend, record.requirement, text), []).append(record.dtype)
    return groups


def verdict(backend: str, records: Sequence[Record]) -> str:
    """Say in a sentence whether a backend conforms, and how much was looked at."""
    bad = sum(record.status in BAD for record in records)
    examples, judged, outside = (
        sum(getattr(record, name) for record in records)
        for name in ("examples", "judged", "outside")
    )
    claimed = sum(record.status != NOT_CLAIMED for record in records)
    word = "conforms" if not bad else f"DOES NOT CONFORM: {bad} of {claimed} checks failed"
    elsewhere = (
        f", {outside:,} outside the domain of the bounds, where NUM-06, NUM-13 and GRD-20 apply"
    )
    return (
        f"{backend}: {word} ({claimed} checks, {examples:,} examples, {judged:,} values judged"
        f"{elsewhere if outside else ''})"
    )


def _worst(records: Sequence[Record]) -> str:
    """The worst err / bound of each observable that has a bound."""
    shares: dict[str, float] = {}
    for record in records:
        for name, share in record.shares.items():
            shares[name] = max(share, shares.get(name, 0.0))
    return ", ".join(f"{name}\xa0{shares[name]:.3g}" for name in sorted(shares))


def _listed(head: str, text: str) -> list[str]:
    lines = wrap(
        f"{head}{': ' if text else ''}{text}",
        WIDTH,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace("\xa0", " ") for line in lines]
