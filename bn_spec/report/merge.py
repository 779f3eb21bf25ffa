"""Several records of runs made one: one per backend, or per shard of a suite that several machines shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bn_spec.errors import RunFileError
from bn_spec.report.records import Record, exit_code
from bn_spec.report.run_file import Judged, RunFile

MOST_NAMED = 3
"""Cells that are named, of those that are in several files."""


@dataclass(frozen=True)
class Merged:
    """A run made of the files in ``sources``, by the names under which they were read.

    ``notes`` say in a sentence each where the files did not agree, and which of them was followed.
    """

    run: RunFile
    sources: Mapping[str, RunFile]
    notes: tuple[str, ...] = ()


def merged(sources: Mapping[str, RunFile]) -> Merged:
    """Return the runs, of which there is at least one, as one; where they do not agree, a later one is followed.

    Raises:
        RunFileError: they were not judged by the same specification.

    """
    runs = list(sources.values())
    if len(runs) == 1:
        return Merged(runs[0], sources)
    _same_specification(sources)
    last = runs[-1]
    cells = {_cell(record): record for run in runs for record in run.records}
    records = tuple(sorted(cells.values(), key=lambda r: (r.backend, r.dtype, r.requirement)))
    backends = _backends(runs, records)
    unavailable = {name: why for run in runs for name, why in run.unavailable.items()}
    faults, incomplete = (_each_once(runs, part) for part in ("faults", "incomplete"))
    whole = replace(
        last,
        backends=backends,
        records=records,
        unavailable={
            name: why for name, why in unavailable.items() if name not in {b.name for b in backends}
        },
        faults=faults,
        incomplete=incomplete,
        exit_code=exit_code(records, faults, incomplete),
        timing=_timing(runs),
    )
    return Merged(whole, sources, tuple(_notes(sources)))


def _cell(record: Record) -> tuple[str, str, str]:
    return record.backend, record.dtype, record.requirement


def _each_once(runs: Sequence[RunFile], part: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for run in runs for sentence in getattr(run, part)))


def _same_specification(sources: Mapping[str, RunFile]) -> None:
    versions = {name: run.judged_by["specification"] for name, run in sources.items()}
    if len(set(versions.values())) > 1:
        told = ", ".join(f"{version} in {name}" for name, version in versions.items())
        raise RunFileError(
            f"these runs are of different specifications ({told}); allowed: runs of the same one"
        )


def _backends(runs: Sequence[RunFile], records: Sequence[Record]) -> tuple[Judged, ...]:
    """Return who was judged, as the last run that did has them, with the grades of all records."""
    known = {judged.name: judged for run in runs for judged in run.backends}
    return tuple(
        replace(
            each, measured={r.dtype: r.grade for r in records if r.backend == each.name and r.grade}
        )
        for each in known.values()
    )


def _timing(runs: Sequence[RunFile]) -> dict[str, Any]:
    """Return when the first of them started, how long they took together, and the most workers of one."""
    return {
        "started": min(run.timing["started"] for run in runs),
        "seconds": round(sum(run.timing["seconds"] for run in runs), 3),
        "workers": max(run.timing["workers"] for run in runs),
    }


def _notes(sources: Mapping[str, RunFile]) -> Iterator[str]:
    """Say which cells are in several files, and what else differs between these."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for name, run in sources.items():
        for record in run.records:
            where.setdefault(_cell(record), []).append(name)
    if several := [cell for cell, names in where.items() if len(names) > 1]:
        named = ", ".join(" ".join(cell) for cell in several[:MOST_NAMED])
        more = ", among others" if len(several) > MOST_NAMED else ""
        cells = "1 cell is" if len(several) == 1 else f"{len(several):,} cells are"
        yield f"{cells} in several files ({named}{more}); the later file counts"
    for part in ("profile", "examples", "seed", "bn-spec"):
        yield from _differing(
            part, {name: str(run.judged_by[part]) for name, run in sources.items()}
        )
    yield from _differing(
        "machine", {name: str(run.environment["machine"]) for name, run in sources.items()}
    )
    versions: dict[str, dict[str, str]] = {}
    for name, run in sources.items():
        for judged in run.backends:
            versions.setdefault(judged.name, {})[name] = judged.description
    for backend, by_file in versions.items():
        yield from _differing(f"version of {backend}", by_file)


def _differing(what: str, by_file: Mapping[str, str]) -> Iterator[str]:
    if len(set(by_file.values())) > 1:
        yield f"the {what} differs: {', '.join(f'{value} in {name}' for name, value in by_file.items())}"
