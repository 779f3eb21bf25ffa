"""What a run leaves behind: one record per cell, and a verdict on the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PASS, FAIL, KNOWN, UNEXPECTED_PASS, NOT_CLAIMED, CRASHED, VACUOUS = (
    "pass",
    "fail",
    "known failure",
    "unexpected pass",
    "not claimed",
    "crashed",
    "vacuous",
)
"""Every cell lands in exactly one of these."""

BAD = frozenset({FAIL, UNEXPECTED_PASS, CRASHED, VACUOUS})
"""The statuses that make a run fail."""

CONFORMING, NEW_FINDING, UNUSABLE, INCOMPLETE, NOTHING_TESTED = 0, 1, 2, 3, 5
"""Exit codes of the ``bn-spec`` command."""


@dataclass(frozen=True)
class Record:
    """One cell: a requirement judged on one backend in one dtype.

    ``examples`` were drawn; the ``discarded`` ones of them had nothing to judge. ``judged`` and
    ``outside`` count elements within and outside the domain of the bounds. ``shares`` holds the
    worst err / bound by observable, and ``worst_case`` the case of the worst of all, as Python,
    where it is short. ``seconds`` is the duration; ``text`` explains every status but ``pass``,
    ``observable`` is what a finding got wrong, ``explanations`` are faults of the catalogue that do
    so, the likeliest first, and ``cases`` are the ids of those that are kept. ``grade`` is the
    measured one, where the requirement measures it, ``claimed_grade`` what the backend claims,
    ``conditioning`` the worst err / bound under the bounds of each grade by decades of |mean| / σ;
    ``reached`` counts the cases that reached each region of :mod:`bn_spec.suite.regions`.
    """

    requirement: str
    backend: str
    dtype: str
    status: str
    examples: int = 0
    discarded: int = 0
    judged: int = 0
    outside: int = 0
    seconds: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    worst_case: str = ""
    text: str = ""
    observable: str = ""
    explanations: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    grade: str = ""
    claimed_grade: str = ""
    conditioning: dict[str, dict[str, float]] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)

    @property
    def chapter(self) -> str:
        """The chapter of the specification under which the requirement stands."""
        return self.requirement.partition("-")[0]

    @property
    def worst(self) -> float | None:
        """The worst err / bound of all observables, if one was measured."""
        return max(self.shares.values(), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Record:
        """Return the record that :meth:`to_dict` took apart."""
        by_decade = content["conditioning"].items()
        return Record(
            **{
                **content,
                "cases": tuple(content["cases"]),
                "explanations": tuple(content["explanations"]),
                "shares": _floats(content["shares"]),
                "conditioning": {decade: _floats(shares) for decade, shares in by_decade},
            }
        )


def _floats(shares: Mapping[str, Any]) -> dict[str, float]:
    """Return shares as numbers; JSON has those that are not finite as text."""
    return {name: float(share) for name, share in shares.items()}


@dataclass
class Run:
    """The records of a run, and what was collected and reported, so that a gap cannot go unnoticed."""

    records: list[Record] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    collected: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What is wrong with the run as a whole, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What else is to be said at its end."""
    stopped: bool = False
    """Whether the user asked to stop at a failure, so that unreported tests are no gap."""

    @property
    def missing(self) -> list[str]:
        """The tests that were collected and never reported."""
        return [] if self.stopped else sorted(self.collected - self.reported)

    @property
    def exit_code(self) -> int:
        """Return the exit code of ``bn-spec run`` for this run."""
        return exit_code(self.records, self.faults, [*self.lost, *self.missing])


def exit_code(records: Sequence[Record], faults: Sequence[str], incomplete: Sequence[str]) -> int:
    """Return the exit code for a run that left these records, with what is wrong with it and what it lost."""
    if incomplete:
        return INCOMPLETE
    if faults or any(record.status in BAD for record in records):
        return NEW_FINDING
    return CONFORMING if any(record.status != NOT_CLAIMED for record in records) else NOTHING_TESTED


def having(records: Iterable[Record], status: str) -> list[Record]:
    """Return the records of a status, in the order of backend, dtype and requirement."""
    chosen = (record for record in records if record.status == status)
    return sorted(chosen, key=lambda r: (r.backend, r.dtype, r.requirement))
