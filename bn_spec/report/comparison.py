"""What changed between two runs: the circumstances, the status of each check, and err / bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TypeAlias

from bn_spec.report.records import BAD, FAIL, KNOWN, NOT_CLAIMED, PASS, Record
from bn_spec.report.run_file import RunFile
from bn_spec.report.sentences import sentence_of
from bn_spec.report.text import in_a_line
from bn_spec.report.view import counted, in_order, share

FACTOR = 1.5
"""Smallest factor by which err / bound must grow or shrink to be reported."""

MOST_SHARES = 20
"""Largest number of lines about err / bound that grew, and about err / bound that shrank."""

CellKey: TypeAlias = tuple[str, str, str]
"""Backend, requirement and dtype of a check."""

GONE = "not judged"
"""Stands for the status of a check that a run does not have."""


@dataclass(frozen=True)
class Change:
    """A check and its status in both runs, :data:`GONE` if a run does not have it."""

    cell: CellKey
    before: str
    after: str

    @property
    def worse(self) -> bool:
        """Whether a check that held now fails, or a judged check is no longer judged.

        A check holds if it passes or if its failure is known.
        """
        was_judged = self.before not in (NOT_CLAIMED, GONE)
        vanished = was_judged and self.after in (NOT_CLAIMED, GONE)
        return vanished or (self.before in (PASS, KNOWN) and self.after in BAD)


@dataclass(frozen=True)
class ShareChange:
    """The worst err / bound of an observable of a check in both runs."""

    cell: CellKey
    observable: str
    before: float
    after: float

    @property
    def factor(self) -> float:
        """Factor by which err / bound grew; below 1 if it shrank."""
        if self.before:
            return self.after / self.before
        return inf if self.after else 1.0

    @property
    def large(self) -> bool:
        """Whether the change is large enough to be reported."""
        return self.factor >= FACTOR or self.factor <= 1 / FACTOR


@dataclass(frozen=True)
class Comparison:
    """An earlier run and a later one."""

    before: RunFile
    after: RunFile

    @cached_property
    def changes(self) -> list[Change]:
        """Checks whose status changed, worse ones first, including checks of one run only."""
        old, new = _cells(self.before), _cells(self.after)
        found = []
        for cell in sorted(old.keys() | new.keys()):
            before = old[cell].status if cell in old else GONE
            after = new[cell].status if cell in new else GONE
            if before != after:
                found.append(Change(cell, before, after))
        return sorted(found, key=lambda each: not each.worse)

    @property
    def worse(self) -> list[Change]:
        """Checks that got worse."""
        return [each for each in self.changes if each.worse]

    @cached_property
    def shares(self) -> list[ShareChange]:
        """Large changes of err / bound in checks that hold in both runs, the largest first."""
        old, new = _cells(self.before), _cells(self.after)
        found = []
        for cell in sorted(old.keys() & new.keys()):
            before, after = old[cell], new[cell]
            if BAD.isdisjoint((before.status, after.status)):
                for observable in sorted(before.shares.keys() & after.shares.keys()):
                    values = before.shares[observable], after.shares[observable]
                    found.append(ShareChange(cell, observable, *values))
        large = [each for each in found if each.large]
        return sorted(large, key=lambda each: -max(each.before, each.after))

    def lines(self) -> Iterator[str]:
        """Yield what changed, a section after the other, for people."""
        for title, found in self._sections():
            if told := list(found):
                yield title
                yield from (f"  {in_a_line(each)}" for each in told)
                yield ""
        worse = counted(len(self.worse), "check")
        yield f"{worse} got worse" if self.worse else "no check got worse"

    def _sections(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Yield the title and the lines of each section; a section may have no lines."""
        circumstances = _circumstances(self.before), _circumstances(self.after)
        yield "judged under different conditions", _differences(*circumstances)
        yield "got worse", _by_dtype(self.worse)
        others = [each for each in self.changes if not each.worse]
        in_both = [each for each in others if GONE not in (each.before, each.after)]
        yield "changed", _by_dtype(in_both)
        yield "new checks", _by_backend(each.cell for each in others if each.before == GONE)
        dropped = [each.cell for each in others if each.after == GONE]
        yield "dropped checks that were not claimed before", _by_backend(dropped)
        old, new = _findings(self.before), _findings(self.after)
        yield "new findings", (_finding(*key, new[key]) for key in new if key not in old)
        yield "findings that are gone", (_finding(*key, old[key]) for key in old if key not in new)
        yield "grades", _differences(_grades(self.before), _grades(self.after))
        yield "err/bound grew", _shortened([each for each in self.shares if each.factor > 1])
        yield "err/bound shrank", _shortened([each for each in self.shares if each.factor <= 1])


def _cells(run: RunFile) -> Mapping[CellKey, Record]:
    return {(r.backend, r.requirement, r.dtype): r for r in run.records}


def _circumstances(run: RunFile) -> dict[str, str]:
    """Return the settings, the versions and the backends of a run."""
    by, where = run.judged_by, run.environment
    found = {name: str(value) for name, value in by.items()}
    found |= {name: str(where[name]) for name in ("python", "machine")}
    found |= {name: str(version) for name, version in where["packages"].items()}
    return found | {f"backend {judged.name}": judged.description for judged in run.backends}


def _grades(run: RunFile) -> dict[str, str]:
    """Return the measured grades and the claimed ones."""
    measured, claimed = {}, {}
    for backend in run.backends:
        claimed[f"{backend.name} claims"] = str(backend.claims.get("grade", ""))
        for dtype, grade in backend.measured.items():
            measured[f"{backend.name} ({dtype})"] = grade
    return measured | claimed


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Yield the entries that differ, with both values."""
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, "none"), after.get(name, "none")
        if old != new:
            yield f"{name}: {old} → {new}"


def _by_dtype(changes: Sequence[Change]) -> Iterator[str]:
    """Yield changes, those that differ in their dtype only in one line."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in changes:
        backend, requirement, dtype = each.cell
        groups.setdefault((requirement, backend, each.before, each.after), []).append(dtype)
    for (requirement, backend, before, after), dtypes in groups.items():
        yield f"{requirement} {backend} ({', '.join(in_order(dtypes))}): {before} → {after}"


def _by_backend(cells: Iterable[CellKey]) -> Iterator[str]:
    """Yield the number of checks of each backend, with their chapters."""
    counts: dict[str, list[str]] = {}
    for backend, requirement, _ in cells:
        counts.setdefault(backend, []).append(requirement)
    for backend, requirements in counts.items():
        chapters = sorted({name.partition("-")[0] for name in requirements})
        yield f"{backend}: {counted(len(requirements), 'check')} of {', '.join(chapters)}"


def _findings(run: RunFile) -> dict[tuple[str, str, str], list[str]]:
    """Return the dtypes of each finding, by backend, requirement and wrong observable."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in run.records:
        if record.status == FAIL:
            key = (record.backend, record.requirement, record.observable)
            found.setdefault(key, []).append(record.dtype)
    return found


def _finding(backend: str, requirement: str, observable: str, dtypes: Sequence[str]) -> str:
    where = f"{requirement} {backend} ({', '.join(in_order(dtypes))})"
    what = f" {observable} is wrong:" if observable else ""
    return f"{where}:{what} {sentence_of(requirement)}"


def _shortened(changes: Sequence[ShareChange]) -> list[str]:
    """Return the first :data:`MOST_SHARES` changes as lines, and the number of the others."""
    lines = [_share_change(each) for each in changes[:MOST_SHARES]]
    if len(changes) > MOST_SHARES:
        lines.append(f"and {len(changes) - MOST_SHARES:,} more")
    return lines


def _share_change(each: ShareChange) -> str:
    backend, requirement, dtype = each.cell
    before, after = share(each.before), share(each.after)
    if before == after:  # two digits after the point do not tell small values apart
        before, after = f"{each.before:.2g}", f"{each.after:.2g}"
    values = f"{before} → {after} ({_factor_in_words(each.factor)})"
    return f"{requirement} {backend} ({dtype}) {each.observable}: {values}"


def _factor_in_words(factor: float) -> str:
    if factor == inf:
        return "was zero"
    if factor == 0:
        return "is zero now"
    return f"{factor if factor > 1 else 1 / factor:.3g} times"
