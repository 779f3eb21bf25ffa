"""Several runs merged into one, such as one per backend, or one per machine that judged a part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bn_spec.errors import RunFileError
from bn_spec.report.records import Record, exit_code
from bn_spec.report.run_file import Judged, RunFile

MOST_NAMED = 3
"""Largest number of repeated checks that a note names."""


@dataclass(frozen=True)
class Merged:
    """A run that is merged from files.

    Attributes:
        run: The merged run.
        sources: The runs that it is made of, by the names of their files.
        notes: Differences between the files, a sentence each.

    """

    run: RunFile
    sources: Mapping[str, RunFile]
    notes: tuple[str, ...] = ()


def merged(sources: Mapping[str, RunFile]) -> Merged:
    """Merge one or more runs; where two of them disagree, the later one counts.

    Raises:
        RunFileError: The runs were judged by different specifications.

    """
    runs = list(sources.values())
    if len(runs) == 1:
        return Merged(runs[0], sources)
    _check_specifications(sources)
    cells = {_key(record): record for run in runs for record in run.records}
    records = tuple(sorted(cells.values(), key=lambda r: (r.backend, r.dtype, r.requirement)))
    backends = _backends(runs, records)
    faults, incomplete = _each_once(runs, "faults"), _each_once(runs, "incomplete")
    whole = replace(
        runs[-1],
        backends=backends,
        records=records,
        unavailable=_unavailable(runs, backends),
        faults=faults,
        incomplete=incomplete,
        exit_code=exit_code(records, faults, incomplete),
        timing=_timing(runs),
    )
    return Merged(whole, sources, tuple(_notes(sources)))


def _key(record: Record) -> tuple[str, str, str]:
    return record.backend, record.dtype, record.requirement


def _each_once(runs: Sequence[RunFile], part: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for run in runs for sentence in getattr(run, part)))


def _unavailable(runs: Sequence[RunFile], backends: Sequence[Judged]) -> dict[str, str]:
    """Return the reasons of the backends that none of the runs could load."""
    judged = {backend.name for backend in backends}
    reasons = {name: why for run in runs for name, why in run.unavailable.items()}
    return {name: why for name, why in reasons.items() if name not in judged}


def _check_specifications(sources: Mapping[str, RunFile]) -> None:
    versions = {name: run.judged_by["specification"] for name, run in sources.items()}
    if len(set(versions.values())) > 1:
        told = ", ".join(f"{version} in {name}" for name, version in versions.items())
        raise RunFileError(
            f"the runs have different specifications ({told}); only runs of the same specification"
            " can be merged"
        )


def _backends(runs: Sequence[RunFile], records: Sequence[Record]) -> tuple[Judged, ...]:
    """Return the backends as the last run describes them, with the grades of all records."""
    described = {judged.name: judged for run in runs for judged in run.backends}
    found = []
    for each in described.values():
        grades = {r.dtype: r.grade for r in records if r.backend == each.name and r.grade}
        found.append(replace(each, measured=grades))
    return tuple(found)


def _timing(runs: Sequence[RunFile]) -> dict[str, Any]:
    """Return the earliest start, the sum of the durations, and the largest number of workers."""
    return {
        "started": min(run.timing["started"] for run in runs),
        "seconds": round(sum(run.timing["seconds"] for run in runs), 3),
        "workers": max(run.timing["workers"] for run in runs),
    }


def _notes(sources: Mapping[str, RunFile]) -> Iterator[str]:
    """Yield the differences between the files, a sentence each."""
    yield from _repeated(sources)
    for part in ("profile", "examples", "seed", "bn-spec"):
        values = {name: str(run.judged_by[part]) for name, run in sources.items()}
        yield from _differing(part, values)
    machines = {name: str(run.environment["machine"]) for name, run in sources.items()}
    yield from _differing("machine", machines)
    versions: dict[str, dict[str, str]] = {}
    for name, run in sources.items():
        for judged in run.backends:
            versions.setdefault(judged.name, {})[name] = judged.description
    for backend, by_file in versions.items():
        yield from _differing(f"version of {backend}", by_file)


def _repeated(sources: Mapping[str, RunFile]) -> Iterator[str]:
    """Yield a sentence about the checks that are in several files."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for name, run in sources.items():
        for record in run.records:
            where.setdefault(_key(record), []).append(name)
    repeated = [key for key, names in where.items() if len(names) > 1]
    if not repeated:
        return
    named = ", ".join(" ".join(key) for key in repeated[:MOST_NAMED])
    more = ", …" if len(repeated) > MOST_NAMED else ""
    checks = "1 check is" if len(repeated) == 1 else f"{len(repeated):,} checks are"
    yield f"{checks} in more than one file ({named}{more}); the last file counts"


def _differing(what: str, by_file: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence about a value, if it is not the same in all files."""
    if len(set(by_file.values())) > 1:
        values = ", ".join(f"{value} in {name}" for name, value in by_file.items())
        yield f"the {what} differs: {values}"
