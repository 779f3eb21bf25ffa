"""A run as Markdown, short enough for the summary of a CI step (``$GITHUB_STEP_SUMMARY``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from bn_spec.report.merge import Merged
from bn_spec.report.table import cell, verdict
from bn_spec.report.text import cut, in_a_line
from bn_spec.report.view import BackendView, FindingView, KnownFailureView, View, counted
from bn_spec.specification.requirement import CHAPTERS

LIMIT = 900_000
"""Largest size of the report in bytes; GitHub shows no step summary above 1 MiB."""

LONGEST_LINE = 2_000
"""Longest reason or name in the report, in characters."""

MOST_LOST = 10
"""Largest number of lost tests that the report names."""

LEGEND = (
    "A number is the worst err/bound of a chapter; 1 is the limit. **ok**: all passed, nothing"
    " measured. **-**: not claimed. **grade**: the best numerical class of the variance whose"
    " bounds all examples satisfied."
)
"""Explanation of the table."""

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~#@$!{}^]|:(?=\S))")
"""Characters with a meaning inside a line of GitHub's Markdown, such as links and mentions."""


def markdown(merged: Merged) -> str:
    """Return the report, at most :data:`LIMIT` bytes; a sentence says what is left out."""
    view = View(merged.run)
    head = "\n".join(_head(view, merged.notes))
    foot = "\n".join(_foot(view))
    left = LIMIT - len(head.encode()) - len(foot.encode())
    findings = _within(left * 3 // 4, map(_finding, view.findings), len(view.findings), "finding")
    number = len(view.known_failures)
    known = _within(left // 4, map(_known_failure, view.known_failures), number, "known failure")
    parts = [head]
    if findings:
        parts += ["## Findings", *findings]
    if known:
        title = f"{counted(number, 'known failure')}, each declared with its reason"
        parts += [f"<details><summary>{title}</summary>", *known, "</details>"]
    return "\n\n".join([*parts, foot]).rstrip() + "\n"


def text(others: str) -> str:
    """Return text from a backend for the middle of a line; it cannot act as Markdown or HTML."""
    line = in_a_line(others)
    if len(line) > LONGEST_LINE:
        line = f"{line[:LONGEST_LINE]}…"
    return _SPECIAL.sub(r"\\\1", line)


def block(others: str) -> str:
    """Return text from a backend as a code block, between fences longer than any in the text."""
    content = cut(others)
    fence = "`" * max([2, *(len(run) for run in re.findall("`+", content))]) + "`"
    return f"{fence}text\n{content}\n{fence}"


def _within(budget: int, blocks: Iterable[str], number: int, what: str) -> list[str]:
    """Return the first blocks that fit in a budget of bytes, and a sentence about the others."""
    kept: list[str] = []
    for each in blocks:
        budget -= len(each.encode()) + len("\n\n")
        if budget < 0:
            rest = counted(number - len(kept), f"more {what}")
            note = f"*{rest} left out to stay below 1 MB; see report.html and run.json.*"
            return [*kept, note]
        kept.append(each)
    return kept


def _head(view: View, notes: Sequence[str]) -> Iterator[str]:
    """Yield the headline, the verdicts, what is wrong with the run, and the table."""
    by = view.run.judged_by
    yield f"# {view.headline}"
    yield ""
    yield (
        f"BatchNorm2d conformance, judged by bn-spec {text(by['bn-spec'])}"
        f" (specification {text(by['specification'])}, profile {text(by['profile'])},"
        f" seed {by['seed']}): {counted(view.sum('examples'), 'example')},"
        f" {counted(view.sum('judged'), 'value')} judged."
    )
    yield ""
    for backend in view.backends:
        if backend.records:
            yield f"- {text(verdict(backend.backend, backend.records))}"
    yield from (f"- **Common cause:** {text(sentence)}" for sentence in view.causes)
    yield from (f"- **The run as a whole:** {text(sentence)}" for sentence in view.run.faults)
    lost = view.run.incomplete
    yield from (f"- **Incomplete:** {text(sentence)}" for sentence in lost[:MOST_LOST])
    if len(lost) > MOST_LOST:
        yield f"- **Incomplete:** {len(lost) - MOST_LOST:,} more; see run.json"
    yield from (f"- {text(sentence)}" for sentence in notes)
    if view.run.records:
        yield ""
        yield from _matrix(view)
        yield ""
        yield LEGEND
        titles = [f"{name} {CHAPTERS[name]}" for name in view.chapters if name in CHAPTERS]
        if titles:
            yield ""
            yield f"Chapters: {', '.join(titles)}."


def _matrix(view: View) -> Iterator[str]:
    """Yield the table of backends and chapters."""
    yield f"| backend | {' | '.join(view.chapters)} | grade |"
    yield "|---|" + "---|" * (len(view.chapters) + 1)
    for backend in view.backends:
        chapters = [backend.chapter(name) for name in view.chapters]
        cells = [cell(chapter.records) if chapter else "" for chapter in chapters]
        marked = [f"**{each}**" if "FAILED" in each else each for each in cells]
        yield f"| {' | '.join([text(backend.backend), *marked, text(_grade(backend))])} |"


def _grade(backend: BackendView) -> str:
    """Return the measured grade, by dtype if dtypes differ, and the claimed one if it differs."""
    measured = backend.measured
    if not measured:
        return ""
    if len(measured) == 1:
        told = measured[0][0]
    else:
        told = "; ".join(f"{grade} ({', '.join(dtypes)})" for grade, dtypes in measured)
    differs = [grade for grade, _ in measured] != [backend.claimed_grade]
    return f"{told}; claims {backend.claimed_grade}" if differs else told


def _finding(finding: FindingView) -> str:
    """Return a finding: a heading, the sentence, and the text of each dtype."""
    dtypes = ", ".join(finding.dtypes)
    first, *others = finding.records
    title = (
        f"### {finding.requirement} {text(finding.backend)} ({text(dtypes)}):"
        f" {' and '.join(finding.statuses)}"
    )
    parts = [title, text(finding.sentence), block(first.text)]
    for record in others:
        label = f"{escape(in_a_line(record.dtype))}: {record.status}"
        parts.append(f"<details><summary>{label}</summary>\n\n{block(record.text)}\n\n</details>")
    return "\n\n".join(parts)


def _known_failure(known: KnownFailureView) -> str:
    return f"- **{text(known.backend)}**, {text('; '.join(known.where))}: {text(known.reason)}"


def _foot(view: View) -> Iterator[str]:
    """Yield the backends that did not run, the conventions that differ, and the versions."""
    if view.run.unavailable:
        yield "## Not run\n"
        for name, why in sorted(view.run.unavailable.items()):
            yield f"- **{text(name)}**: {text(why)}"
        yield ""
    if departing := [each for each in view.backends if each.judged.departures]:
        yield "## Conventions that differ from PyTorch's\n"
        for backend in departing:
            yield f"- **{text(backend.backend)}**: {text('; '.join(backend.judged.departures))}"
        yield ""
    yield "## Backends\n"
    for backend in view.backends:
        yield f"- **{text(backend.backend)}**: {text(backend.judged.description)}"
