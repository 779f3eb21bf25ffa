"""What every report shows of a run, before it is written in a format."""

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
from bn_spec.report.sentences import sentence_of
from bn_spec.report.table import share_of
from bn_spec.specification.requirement import CHAPTERS
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.regions import AXES

NO_DECIMALS_FROM = 10.0
"""err / bound from which it is shown without decimals."""

POWERS_FROM = 1e4
"""err / bound from which it is shown as a power of ten."""


def share(worst: float | None) -> str:
    """Return err / bound as reports show it: few digits, a large one as a power of ten."""
    if worst is None:
        return ""
    if worst == inf:
        return "∞"
    if not isfinite(worst):
        return "NaN"
    if worst < NO_DECIMALS_FROM:
        return share_of(worst)
    return f"{worst:.0f}" if worst < POWERS_FROM else f"{worst:.1e}".replace("e+", "e")


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun, as in ``1 finding`` and ``2,000 findings``."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def in_order(dtypes: Iterable[str]) -> list[str]:
    """Return dtypes in the order of :data:`bn_spec.case.dtypes.DTYPES`, unknown ones last."""
    places = {name: place for place, name in enumerate(DTYPES)}
    return sorted(set(dtypes), key=lambda name: (places.get(name, len(places)), name))


@dataclass(frozen=True)
class Group:
    """Some records of one backend, in the order of their dtypes."""

    backend: str
    records: tuple[Record, ...]

    @property
    def dtypes(self) -> list[str]:
        """Dtypes of the records."""
        return in_order(r.dtype for r in self.records)

    @property
    def claimed(self) -> list[Record]:
        """Records that the backend claims."""
        return [r for r in self.records if r.status != NOT_CLAIMED]

    @property
    def bad(self) -> list[Record]:
        """Records that make the run fail."""
        return [r for r in self.records if r.status in BAD]

    @property
    def excused(self) -> list[Record]:
        """Records of known failures."""
        return having(self.records, KNOWN)

    @property
    def worst(self) -> float | None:
        """Worst err / bound, failures included, or None if nothing was measured."""
        return max((share for r in self.claimed for share in r.shares.values()), default=None)

    @property
    def status(self) -> str:
        """Worst status of the records, as the CSS class of the page."""
        if self.bad:
            return "failed"
        if self.excused:
            return "known"
        return "passed" if self.claimed else "unclaimed"

    @property
    def status_in_words(self) -> str:
        """Worst status of the records, for people."""
        words = {"known": "known failure", "unclaimed": "not claimed"}
        return words.get(self.status, self.status)

    def sum(self, name: str) -> int:
        """Return the sum of a count, as in ``examples``, over the records."""
        return sum(getattr(r, name) for r in self.records)


@dataclass(frozen=True)
class RequirementRow(Group):
    """A requirement judged on a backend: a row of the page, with a record for each dtype."""

    id: str

    @property
    def sentence(self) -> str:
        """Sentence of the requirement."""
        return sentence_of(self.id)

    @property
    def worst_record(self) -> Record | None:
        """Record with the worst err / bound among those that kept its case."""
        kept = [r for r in self.records if r.worst_case and r.worst is not None]
        return max(kept, key=lambda r: r.worst or 0.0, default=None)

    def by_dtype(self, dtype: str) -> Record | None:
        """Return the record of a dtype."""
        return next((r for r in self.records if r.dtype == dtype), None)


@dataclass(frozen=True)
class ChapterView(Group):
    """A chapter of the specification judged on a backend."""

    id: str

    @property
    def title(self) -> str:
        """Title of the chapter."""
        return CHAPTERS.get(self.id, "another specification")

    @cached_property
    def requirements(self) -> list[RequirementRow]:
        """Requirements of the chapter that were judged."""
        names = sorted({r.requirement for r in self.records})
        return [
            RequirementRow(self.backend, _in_order(self.records, "requirement", name), name)
            for name in names
        ]


@dataclass(frozen=True)
class BackendView(Group):
    """A backend and its results; ``judged`` is its description in the file of the run."""

    judged: Judged

    @cached_property
    def chapters(self) -> list[ChapterView]:
        """Chapters that were judged, in the order of the specification."""
        return [
            ChapterView(self.backend, _in_order(self.records, "chapter", name), name)
            for name in _chapters(self)
        ]

    def chapter(self, name: str) -> ChapterView | None:
        """Return a chapter, or None if it was not judged."""
        return next((each for each in self.chapters if each.id == name), None)

    @property
    def measured(self) -> list[tuple[str, list[str]]]:
        """Measured grades, each with the dtypes in which it was measured."""
        dtypes: dict[str, list[str]] = {}
        for dtype in in_order(self.judged.measured):
            dtypes.setdefault(self.judged.measured[dtype], []).append(dtype)
        return list(dtypes.items())

    @property
    def claimed_grade(self) -> str:
        """Grade that the backend claims."""
        return str(self.judged.claims.get("grade", ""))

    @property
    def verdict(self) -> str:
        """Whether the backend conforms, in a few words."""
        if not self.claimed:
            return "nothing tested"
        if self.bad:
            checks = counted(len(self.claimed), "check")
            return f"does not conform: {len(self.bad):,} of {checks} failed"
        if self.excused:
            checks = counted(len(self.excused), "check")
            return f"conforms, except for known failures in {checks}"
        return "conforms"


@dataclass(frozen=True)
class FindingView(Group):
    """A requirement that makes the run fail on a backend, with a record for each failing dtype."""

    requirement: str

    @property
    def sentence(self) -> str:
        """Sentence of the requirement."""
        return sentence_of(self.requirement)

    @property
    def statuses(self) -> list[str]:
        """Statuses of the records, each once."""
        return list(dict.fromkeys(r.status for r in self.records))


@dataclass(frozen=True)
class KnownFailureView:
    """A known failure of a backend: its declared reason, and the requirements that it excuses."""

    backend: str
    reason: str
    where: tuple[str, ...]


@dataclass(frozen=True)
class RegionView:
    """A region, the number of cases that reached it, and the backends whose cases never did."""

    name: str
    cases: int
    without: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """A run as reports show it."""

    run: RunFile

    @cached_property
    def backends(self) -> list[BackendView]:
        """Backends that were judged, in the order of the run."""
        described = {judged.name: judged for judged in self.run.backends}
        # A file may have records of a backend that it does not describe.
        names = [*described, *sorted({r.backend for r in self.run.records} - described.keys())]
        return [
            BackendView(
                name,
                _in_order(self.run.records, "backend", name),
                described.get(name, Judged(name, "")),
            )
            for name in names
        ]

    @cached_property
    def chapters(self) -> list[str]:
        """Chapters that were judged on any backend."""
        return _chapters(Group("", self.run.records))

    @cached_property
    def findings(self) -> list[FindingView]:
        """Requirements that make the run fail, one backend after the other."""
        groups: dict[tuple[str, str], list[Record]] = {}
        for backend in self.backends:
            for record in sorted(backend.bad, key=lambda r: r.requirement):
                groups.setdefault((record.backend, record.requirement), []).append(record)
        return [FindingView(backend, tuple(own), name) for (backend, name), own in groups.items()]

    @cached_property
    def causes(self) -> list[str]:
        """Causes that explain several failures of a backend, a sentence each."""
        return [str(cause) for cause in causes(self.run.records)]

    @cached_property
    def known_failures(self) -> list[KnownFailureView]:
        """Known failures; a backend has each of its reasons once."""
        excused = known(having(self.run.records, KNOWN))
        return [
            KnownFailureView(backend, reason, tuple(where))
            for (backend, reason), where in excused.items()
        ]

    @cached_property
    def regions(self) -> Mapping[str, list[RegionView]]:
        """Regions by their axis; empty if the records do not count regions."""
        reached: dict[str, Counter[str]] = {}
        for record in self.run.records:
            reached.setdefault(record.backend, Counter()).update(record.reached)
        tested = {name: counts for name, counts in reached.items() if counts.total()}
        if not tested:
            return {}

        def view(axis: str, region: str) -> RegionView:
            without = tuple(backend for backend, counts in tested.items() if not counts[region])
            short = region.removeprefix(axis).strip()
            return RegionView(short, sum(counts[region] for counts in tested.values()), without)

        regions: dict[str, list[RegionView]] = {}
        for name, axis in AXES.items():
            regions[name] = [view(name, region) for region in axis.regions]
        return regions

    @property
    def headline(self) -> str:
        """Result of the run, in a sentence without a full stop."""
        if self.run.exit_code == INCOMPLETE:
            return "The run is incomplete"
        tested = [backend for backend in self.backends if backend.claimed]
        failing = sum(bool(backend.bad) for backend in tested)
        if not tested:
            return "Nothing was tested"
        if failing:
            does = "does" if failing == 1 else "do"
            return f"{failing} of {counted(len(tested), 'backend')} {does} not conform"
        if self.run.exit_code == NEW_FINDING:
            return "The run as a whole failed"
        return _all_conform(len(tested))

    @property
    def good(self) -> bool:
        """Whether everything that was tested conforms."""
        return self.run.exit_code == CONFORMING

    def sum(self, name: str) -> int:
        """Return the sum of a count, as in ``examples``, over all records."""
        return sum(getattr(r, name) for r in self.run.records)


def _all_conform(backends: int) -> str:
    if backends == 1:
        return "The backend conforms"
    return "Both backends conform" if backends == 2 else f"All {backends} backends conform"


def _chapters(group: Group) -> list[str]:
    """Return the chapters of some records, those of other specifications last."""
    judged = {r.chapter for r in group.records}
    return [*(name for name in CHAPTERS if name in judged), *sorted(judged - CHAPTERS.keys())]


def _in_order(records: Iterable[Record], attribute: str, value: str) -> tuple[Record, ...]:
    """Return the records whose attribute has a value, in the order of their dtypes."""
    own = [r for r in records if getattr(r, attribute) == value]
    order = {dtype: place for place, dtype in enumerate(in_order(r.dtype for r in own))}
    return tuple(sorted(own, key=lambda r: order[r.dtype]))


def commands(sources: Mapping[str, RunFile]) -> Iterator[str]:
    """Yield the commands that repeat runs."""
    for run in sources.values():
        by = run.judged_by
        names = shlex.join(judged.address for judged in run.backends)
        command = f"bn-spec run {names} --profile {by['profile']} --seed {by['seed']}"
        profile = PROFILES.get(by["profile"])
        # The profile already sets its own number of examples.
        usual = profile is not None and profile.examples == by["examples"]
        yield command if usual else f"{command} --max-examples {by['examples']}"
