"""What changed between two runs: who judged whom, what became of each check, and how much of the bounds is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TypeAlias

from bn_spec.report.records import BAD, FAIL, KNOWN, NOT_CLAIMED, PASS, Record
from bn_spec.report.run_file import RunFile
from bn_spec.report.text import in_a_line
from bn_spec.report.view import counted, in_order, sentence_of, share

FACTOR = 1.5
"""By which err / bound must have grown or shrunk to be told."""

MOST_SHARES = 20
"""That are told of those that grew, and of those that shrank."""

Cell: TypeAlias = tuple[str, str, str]
"""Backend, requirement and dtype."""

GONE = "not judged"
"""Stands for the status of a cell that a run does not have."""


@dataclass(frozen=True)
class Change:
    """What became of a check: its status in both runs, ``GONE`` where a run does not have it."""

    cell: Cell
    before: str
    after: str

    @property
    def worse(self) -> bool:
        """Whether a check that passed, or whose failure was known, now fails, or a check is no more."""
        judged = self.before not in (NOT_CLAIMED, GONE)
        vanished = judged and self.after in (NOT_CLAIMED, GONE)
        return vanished or (self.before in (PASS, KNOWN) and self.after in BAD)


@dataclass(frozen=True)
class Share:
    """The worst err / bound of an observable of a check in both runs."""

    cell: Cell
    observable: str
    before: float
    after: float

    @property
    def factor(self) -> float:
        """By how much it has grown."""
        return self.after / self.before if self.before else inf if self.after else 1.0


@dataclass(frozen=True)
class Comparison:
    """Two runs, the later one second."""

    before: RunFile
    after: RunFile

    @cached_property
    def changes(self) -> list[Change]:
        """The checks whose status is not what it was, those that got worse first; cells of one run alone are some."""
        old, new = _cells(self.before), _cells(self.after)
        both = (
            Change(
                cell,
                old[cell].status if cell in old else GONE,
                new[cell].status if cell in new else GONE,
            )
            for cell in sorted(old.keys() | new.keys())
        )
        return sorted(
            (each for each in both if each.before != each.after), key=lambda each: not each.worse
        )

    @property
    def worse(self) -> list[Change]:
        """Those that got worse."""
        return [each for each in self.changes if each.worse]

    @cached_property
    def shares(self) -> list[Share]:
        """Where err / bound grew or shrank by :data:`FACTOR` or more in checks that hold in both, largest first."""
        old, new = _cells(self.before), _cells(self.after)
        found = (
            Share(cell, observable, old[cell].shares[observable], new[cell].shares[observable])
            for cell in sorted(old.keys() & new.keys())
            if BAD.isdisjoint((old[cell].status, new[cell].status))
            for observable in sorted(old[cell].shares.keys() & new[cell].shares.keys())
        )
        telling = (each for each in found if each.factor >= FACTOR or each.factor <= 1 / FACTOR)
        return sorted(telling, key=lambda each: -max(each.before, each.after))

    def lines(self) -> Iterator[str]:
        """Yield what changed, for people."""
        for title, found in self._sections():
            if told := list(found):
                yield from (title, *(f"  {in_a_line(each)}" for each in told), "")
        worse = counted(len(self.worse), "check")
        yield f"{worse} got worse" if self.worse else "no check got worse"

    def _sections(self) -> Iterator[tuple[str, Iterable[str]]]:
        yield (
            "judged otherwise",
            _differences(_circumstances(self.before), _circumstances(self.after)),
        )
        yield "got worse", _by_dtype(self.worse)
        others = [each for each in self.changes if not each.worse]
        yield (
            "changed",
            _by_dtype([each for each in others if GONE not in (each.before, each.after)]),
        )
        yield "new checks", _by_backend(each.cell for each in others if each.before == GONE)
        yield (
            "not there any more, and not claimed before",
            _by_backend(c.cell for c in others if c.after == GONE),
        )
        old, new = _findings(self.before), _findings(self.after)
        yield "new findings", (_finding(*key, new[key]) for key in new if key not in old)
        yield "vanished findings", (_finding(*key, old[key]) for key in old if key not in new)
        yield "grades", _differences(_grades(self.before), _grades(self.after))
        for title, grown in (("err/bound grew", True), ("err/bound shrank", False)):
            told = [_share(each) for each in self.shares if (each.factor > 1) is grown]
            more = [f"and {len(told) - MOST_SHARES:,} more"] if len(told) > MOST_SHARES else []
            yield title, told[:MOST_SHARES] + more


def _cells(run: RunFile) -> Mapping[Cell, Record]:
    return {(r.backend, r.requirement, r.dtype): r for r in run.records}


def _circumstances(run: RunFile) -> dict[str, str]:
    """Return what a run depends on, and whom it judged."""
    by, where = run.judged_by, run.environment
    told = {name: str(value) for name, value in by.items()}
    told |= {name: str(where[name]) for name in ("python", "machine")}
    told |= {name: str(version) for name, version in where["packages"].items()}
    return told | {f"backend {judged.name}": judged.description for judged in run.backends}


def _grades(run: RunFile) -> dict[str, str]:
    """Return the grades that were measured, and those that are claimed."""
    told = {
        f"{b.name} ({dtype})": grade for b in run.backends for dtype, grade in b.measured.items()
    }
    return told | {f"{b.name} claims": str(b.claims.get("grade", "")) for b in run.backends}


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, "none"), after.get(name, "none")
        if old != new:
            yield f"{name}: {old} → {new}"


def _by_dtype(changes: Sequence[Change]) -> Iterator[str]:
    """Tell of changes that differ in their dtype only together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in changes:
        backend, requirement, dtype = each.cell
        groups.setdefault((requirement, backend, each.before, each.after), []).append(dtype)
    for (requirement, backend, before, after), dtypes in groups.items():
        yield f"{requirement} {backend} ({', '.join(in_order(dtypes))}): {before} → {after}"


def _by_backend(cells: Iterable[Cell]) -> Iterator[str]:
    counts: dict[str, list[str]] = {}
    for backend, requirement, _ in cells:
        counts.setdefault(backend, []).append(requirement)
    for backend, requirements in counts.items():
        chapters = sorted({name.partition("-")[0] for name in requirements})
        yield f"{backend}: {counted(len(requirements), 'check')} of {', '.join(chapters)}"


def _findings(run: RunFile) -> dict[tuple[str, str, str], list[str]]:
    """Return findings by backend, requirement and what was wrong, each with its dtypes."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in run.records:
        if record.status == FAIL:
            found.setdefault((record.backend, record.requirement, record.observable), []).append(
                record.dtype
            )
    return found


def _finding(backend: str, requirement: str, observable: str, dtypes: Sequence[str]) -> str:
    what = f" {observable} is wrong:" if observable else ""
    return (
        f"{requirement} {backend} ({', '.join(in_order(dtypes))}):{what} {sentence_of(requirement)}"
    )


def _share(each: Share) -> str:
    backend, requirement, dtype = each.cell
    factor = each.factor if each.factor > 1 else 1 / each.factor if each.factor else inf
    told = (
        f"{factor:.3g} times"
        if factor < inf
        else "from nothing"
        if each.factor > 1
        else "to nothing"
    )
    before, after = share(each.before), share(each.after)
    if before == after:  # both are small
        before, after = f"{each.before:.2g}", f"{each.after:.2g}"
    return f"{requirement} {backend} ({dtype}) {each.observable}: {before} → {after} ({told})"
