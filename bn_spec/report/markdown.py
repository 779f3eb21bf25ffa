"""A run as Markdown, short enough for the summary of a CI step (``$GITHUB_STEP_SUMMARY``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from bn_spec.report.merge import Merged
from bn_spec.report.table import cell, verdict
from bn_spec.report.text import cut, in_a_line
from bn_spec.report.view import Backend, Excuse, Finding, View, counted

LIMIT = 900_000
"""Bytes of a report: GitHub shows no step summary beyond 1 MiB."""

LONGEST_LINE = 2_000
"""Characters of one reason or name that are shown."""

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~#@$!{}^]|:(?=\S))")
"""Characters that mean something in GitHub's Markdown in the middle of a line: links, mentions and formulas too."""


def markdown(merged: Merged) -> str:
    """Return the report; what does not fit is left out, and a sentence says so."""
    view = View(merged.run)
    head = "\n".join(_head(view, merged.notes))
    foot = "\n".join(_foot(view))
    left = LIMIT - len(head.encode()) - len(foot.encode())
    findings = _within(left * 3 // 4, map(_finding, view.findings), len(view.findings), "finding")
    excuses = _within(left // 4, map(_excuse, view.excuses), len(view.excuses), "known failure")
    parts = [head]
    if findings:
        parts += ["## Findings", *findings]
    if excuses:
        title = counted(len(view.excuses), "known failure")
        parts += [
            f"<details><summary>{title}, understood and declared</summary>",
            *excuses,
            "</details>",
        ]
    return "\n\n".join([*parts, foot]).rstrip() + "\n"


def text(others: str) -> str:
    """Return what others wrote as text in the middle of a line, whatever it would mean as Markdown or HTML."""
    line = in_a_line(others)
    return _SPECIAL.sub(r"\\\1", line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…")


def block(others: str) -> str:
    """Return what others wrote in a code block, between fences longer than any in it."""
    content = cut(others)
    fence = "`" * max([2, *(len(run) for run in re.findall("`+", content))]) + "`"
    return f"{fence}text\n{content}\n{fence}"


def _within(budget: int, blocks: Iterable[str], number: int, what: str) -> list[str]:
    """Return the first blocks, as many as there are bytes for, and a sentence about the others."""
    kept: list[str] = []
    for each in blocks:
        budget -= len(each.encode()) + 2
        if budget < 0:
            rest = counted(number - len(kept), f"further {what}")
            return [
                *kept,
                f"*{rest} not shown here, to stay below 1 MB; report.html and run.json have them.*",
            ]
        kept.append(each)
    return kept


def _head(view: View, notes: Sequence[str]) -> Iterator[str]:
    by = view.run.judged_by
    yield f"# {view.headline}"
    yield ""
    yield (
        f"bn-spec {text(by['bn-spec'])}, specification {text(by['specification'])}, profile {text(by['profile'])},"
        f" seed {by['seed']}: {counted(view.sum('examples'), 'example')}, {view.sum('judged'):,} values judged."
    )
    yield ""
    yield from (
        f"- {text(verdict(each.backend, each.records))}" for each in view.backends if each.records
    )
    yield from (f"- **Explained:** {text(sentence)}" for sentence in view.causes)
    yield from (f"- **The run as a whole:** {text(sentence)}" for sentence in view.run.faults)
    yield from (f"- **Incomplete:** {text(sentence)}" for sentence in view.run.incomplete[:10])
    yield from (f"- {text(sentence)}" for sentence in notes)
    if view.run.records:
        yield ""
        yield from _matrix(view)
        yield ""
        yield "number: worst err/bound (1 is the limit); ok: nothing to measure, all as required; -: not claimed"


def _matrix(view: View) -> Iterator[str]:
    yield f"| backend | {' | '.join(view.chapters)} | grade |"
    yield "|---|" + "---|" * (len(view.chapters) + 1)
    for backend in view.backends:
        chapters = (backend.chapter(name) for name in view.chapters)
        cells = [cell(chapter.records) if chapter else "" for chapter in chapters]
        told = [f"**{each}**" if "FAILED" in each else each for each in cells]
        yield f"| {' | '.join([text(backend.backend), *told, text(_grade(backend))])} |"


def _grade(backend: Backend) -> str:
    """The measured grade, by dtype where it is not the same in all, beside the claimed one where they differ."""
    measured = backend.measured
    if not measured:
        return ""
    told = [
        grade if len(measured) == 1 else f"{grade} ({', '.join(dtypes)})"
        for grade, dtypes in measured
    ]
    differs = [grade for grade, _ in measured] != [backend.claimed_grade]
    return "; ".join(told) + (f"; claims {backend.claimed_grade}" if differs else "")


def _finding(finding: Finding) -> str:
    dtypes = ", ".join(finding.dtypes)
    first, *others = finding.records
    title = f"### {finding.requirement} {text(finding.backend)} ({text(dtypes)}): {' and '.join(finding.statuses)}"
    parts = [title, f"{text(finding.sentence)}", block(first.text)]
    for record in others:
        label = f"{escape(in_a_line(record.dtype))}: {record.status}"
        parts.append(f"<details><summary>{label}</summary>\n\n{block(record.text)}\n\n</details>")
    return "\n\n".join(parts)


def _excuse(excuse: Excuse) -> str:
    return f"- **{text(excuse.backend)}**, {text('; '.join(excuse.where))}: {text(excuse.reason)}"


def _foot(view: View) -> Iterator[str]:
    if view.run.unavailable:
        yield "## Not run\n"
        yield from (
            f"- **{text(name)}**: {text(why)}" for name, why in sorted(view.run.unavailable.items())
        )
        yield ""
    if departing := [each for each in view.backends if each.judged.departures]:
        yield "## Not as in PyTorch\n"
        for backend in departing:
            yield f"- **{text(backend.backend)}**: {text('; '.join(backend.judged.departures))}"
        yield ""
    yield "## Backends\n"
    yield from (
        f"- **{text(each.backend)}**: {text(each.judged.description)}" for each in view.backends
    )
