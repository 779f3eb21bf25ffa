"""What reports say of a run, before it is written in a format: who conforms, what was found, what was reached."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite

from bn_spec.case.dtypes import DTYPES
from bn_spec.report.causes import causes, known
from bn_spec.report.records import (
    BAD,
    CONFORMING,
    INCOMPLETE,
    KNOWN,
    NEW_FINDING,
    NOT_CLAIMED,
    Record,
    having,
)
from bn_spec.report.run_file import Judged, RunFile
from bn_spec.report.table import share_of
from bn_spec.specification.requirement import CHAPTERS, REQUIREMENTS
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.regions import AXES

TEN, TEN_THOUSAND = 10.0, 1e4
"""From here on, how many times the bound an error is needs no digits behind the point, or two digits at all."""


def share(worst: float | None) -> str:
    """Return err / bound in two digits, or nothing; a large one as a power of ten."""
    if worst is None:
        return ""
    if isfinite(worst) and worst >= TEN:
        return f"{worst:.0f}" if worst < TEN_THOUSAND else f"{worst:.1e}".replace("e+", "e")
    return share_of(worst) if isfinite(worst) else {inf: "∞"}.get(worst, "NaN")


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun, as in ``1 finding`` and ``2,000 findings``."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def sentence_of(requirement: str) -> str:
    """Return the sentence of a requirement, or that this version of the specification has none."""
    known_one = REQUIREMENTS.get(requirement)
    return known_one.sentence if known_one else "not in the specification of this bn-spec"


def in_order(dtypes: Iterable[str]) -> list[str]:
    """Return dtypes in the order of their table, others after them."""
    known_ones = list(DTYPES)
    return sorted(
        set(dtypes),
        key=lambda name: (known_ones.index(name) if name in DTYPES else len(DTYPES), name),
    )


@dataclass(frozen=True)
class Group:
    """Records of one backend that belong together, in the order of their dtypes."""

    backend: str
    records: tuple[Record, ...]

    @property
    def dtypes(self) -> list[str]:
        """The dtypes that are judged."""
        return in_order(r.dtype for r in self.records)

    @property
    def claimed(self) -> list[Record]:
        """Those that the backend claims."""
        return [r for r in self.records if r.status != NOT_CLAIMED]

    @property
    def bad(self) -> list[Record]:
        """Those that make the run fail."""
        return [r for r in self.records if r.status in BAD]

    @property
    def excused(self) -> list[Record]:
        """The known failures."""
        return having(self.records, KNOWN)

    @property
    def worst(self) -> float | None:
        """The worst err / bound; what failed has its own."""
        return max((share for r in self.claimed for share in r.shares.values()), default=None)

    @property
    def status(self) -> str:
        """The worst that became of them, as one word that a page can be styled by."""
        if self.bad:
            return "failed"
        if self.excused:
            return "known"
        return "passed" if self.claimed else "unclaimed"

    def sum(self, name: str) -> int:
        """Return the sum of a count of all."""
        return sum(getattr(r, name) for r in self.records)


@dataclass(frozen=True)
class Requirement(Group):
    """A requirement judged on a backend, in each dtype."""

    id: str

    @property
    def sentence(self) -> str:
        """What it asks for."""
        return sentence_of(self.id)

    @property
    def worst_record(self) -> Record | None:
        """The record of the worst err / bound whose case is kept."""
        kept = [r for r in self.records if r.worst_case and r.worst is not None]
        return max(kept, key=lambda r: r.worst or 0.0, default=None)

    def by_dtype(self, dtype: str) -> Record | None:
        """Return the record in a dtype."""
        return next((r for r in self.records if r.dtype == dtype), None)


@dataclass(frozen=True)
class Chapter(Group):
    """A chapter of the specification judged on a backend."""

    id: str

    @property
    def title(self) -> str:
        """What it is about."""
        return CHAPTERS.get(self.id, "another specification")

    @cached_property
    def requirements(self) -> list[Requirement]:
        """Its requirements."""
        names = sorted({r.requirement for r in self.records})
        return [
            Requirement(self.backend, _in_order(self.records, "requirement", name), name)
            for name in names
        ]


@dataclass(frozen=True)
class Backend(Group):
    """A backend, and what became of it; ``judged`` says who it is, where the run says so."""

    judged: Judged

    @cached_property
    def chapters(self) -> list[Chapter]:
        """The chapters that were judged, in the order of the specification."""
        return [
            Chapter(self.backend, _in_order(self.records, "chapter", name), name)
            for name in _chapters(self)
        ]

    def chapter(self, name: str) -> Chapter | None:
        """Return a chapter, if it was judged."""
        return next((each for each in self.chapters if each.id == name), None)

    @property
    def measured(self) -> list[tuple[str, list[str]]]:
        """The measured grades, each with the dtypes in which it was measured."""
        grades: dict[str, list[str]] = {}
        for dtype in in_order(self.judged.measured):
            grades.setdefault(self.judged.measured[dtype], []).append(dtype)
        return list(grades.items())

    @property
    def claimed_grade(self) -> str:
        """The grade that it claims."""
        return str(self.judged.claims.get("grade", ""))

    @property
    def verdict(self) -> str:
        """Whether it conforms, in a few words."""
        if not self.claimed:
            return "nothing tested"
        if self.bad:
            return f"does not conform: {len(self.bad):,} of {counted(len(self.claimed), 'check')} failed"
        return (
            f"conforms, {counted(len(self.excused), 'known failure')} apart"
            if self.excused
            else "conforms"
        )


@dataclass(frozen=True)
class Finding(Group):
    """What made the run fail: a requirement and a backend, with a record for each dtype in which it failed."""

    requirement: str

    @property
    def sentence(self) -> str:
        """What is asked for."""
        return sentence_of(self.requirement)

    @property
    def statuses(self) -> list[str]:
        """What the failures are, each kind once."""
        return list(dict.fromkeys(r.status for r in self.records))


@dataclass(frozen=True)
class Excuse:
    """A known failure: whose, why, and where it was seen."""

    backend: str
    reason: str
    where: tuple[str, ...]


@dataclass(frozen=True)
class Region:
    """A region of the space of cases: how many cases reached it, and which backends reached it with none."""

    name: str
    cases: int
    without: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """A run, as reports tell of it."""

    run: RunFile

    @cached_property
    def backends(self) -> list[Backend]:
        """The backends that were judged, in the order of the run."""
        known_ones = {judged.name: judged for judged in self.run.backends}
        names = [*known_ones, *sorted({r.backend for r in self.run.records} - known_ones.keys())]
        return [
            Backend(
                name,
                _in_order(self.run.records, "backend", name),
                known_ones.get(name, Judged(name, "")),
            )
            for name in names
        ]

    @cached_property
    def chapters(self) -> list[str]:
        """The chapters that were judged on any backend."""
        return _chapters(Group("", self.run.records))

    @cached_property
    def findings(self) -> list[Finding]:
        """What made the run fail, a backend after the other."""
        groups: dict[tuple[str, str], list[Record]] = {}
        for backend in self.backends:
            for record in sorted(backend.bad, key=lambda r: r.requirement):
                groups.setdefault((record.backend, record.requirement), []).append(record)
        return [Finding(backend, tuple(own), name) for (backend, name), own in groups.items()]

    @cached_property
    def causes(self) -> list[str]:
        """What explains several failures of a backend at once, in a sentence each."""
        return [*map(str, causes(self.run.records))]

    @cached_property
    def excuses(self) -> list[Excuse]:
        """The known failures, a reason once for each backend."""
        told = known(having(self.run.records, KNOWN))
        return [Excuse(backend, reason, tuple(where)) for (backend, reason), where in told.items()]

    @cached_property
    def regions(self) -> Mapping[str, list[Region]]:
        """What the cases reached, by the axes along which they are divided."""
        reached: dict[str, Counter[str]] = {}
        for record in self.run.records:
            reached.setdefault(record.backend, Counter()).update(record.reached)
        tested = {name: counts for name, counts in reached.items() if counts.total()}

        def region(axis: str, name: str) -> Region:
            without = tuple(backend for backend, counts in tested.items() if not counts[name])
            short = name.removeprefix(axis).strip()
            return Region(short, sum(counts[name] for counts in tested.values()), without)

        return (
            {axis: [region(axis, name) for name in each.regions] for axis, each in AXES.items()}
            if tested
            else {}
        )

    @property
    def headline(self) -> str:
        """What came of the run, in a sentence."""
        if self.run.exit_code == INCOMPLETE:
            return "The run is incomplete"
        tested = [backend for backend in self.backends if backend.claimed]
        failing = [backend for backend in tested if backend.bad]
        if not tested:
            return "Nothing was tested"
        if failing:
            return f"{len(failing)} of {counted(len(tested), 'backend')} {_do(len(failing))} not conform"
        if self.run.exit_code == NEW_FINDING:
            return "The run as a whole failed"
        return f"{_all(len(tested))} {'conforms' if len(tested) == 1 else 'conform'}"

    @property
    def good(self) -> bool:
        """Whether all that was tested conforms."""
        return self.run.exit_code == CONFORMING

    def sum(self, name: str) -> int:
        """Return the sum of a count of all records."""
        return sum(getattr(r, name) for r in self.run.records)


def _all(number: int) -> str:
    return {1: "The backend", 2: "Both backends"}.get(number, f"All {number} backends")


def _do(number: int) -> str:
    return "does" if number == 1 else "do"


def _chapters(group: Group) -> list[str]:
    judged = {r.chapter for r in group.records}
    return [*(name for name in CHAPTERS if name in judged), *sorted(judged - CHAPTERS.keys())]


def _in_order(records: Iterable[Record], attribute: str, value: str) -> tuple[Record, ...]:
    own = [r for r in records if getattr(r, attribute) == value]
    order = {dtype: place for place, dtype in enumerate(in_order(r.dtype for r in own))}
    return tuple(sorted(own, key=lambda r: order[r.dtype]))


def commands(sources: Mapping[str, RunFile]) -> Iterator[str]:
    """Yield the commands that repeat the runs; a profile's own number of examples need not be given."""
    for run in sources.values():
        by = run.judged_by
        profile = PROFILES.get(by["profile"])
        usual = profile is not None and profile.examples == by["examples"]
        examples = "" if usual else f" --max-examples {by['examples']}"
        names = shlex.join(judged.address for judged in run.backends)
        yield f"bn-spec run {names} --profile {by['profile']} --seed {by['seed']}{examples}"
