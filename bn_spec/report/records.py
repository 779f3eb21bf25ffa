"""The records of a run, one per cell, and the exit code that follows from them."""

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
"""Statuses of a cell; each cell has exactly one."""

BAD = frozenset({FAIL, UNEXPECTED_PASS, CRASHED, VACUOUS})
"""Statuses that make a run fail."""

CONFORMING, NEW_FINDING, UNUSABLE, INCOMPLETE, NOTHING_TESTED = 0, 1, 2, 3, 5
"""Exit codes of the ``bn-spec`` command."""


@dataclass(frozen=True)
class Record:
    """One cell: a requirement judged on one backend in one dtype.

    Attributes:
        requirement: Id of the requirement, as in ``RUN-03``.
        backend: Name of the backend.
        dtype: Dtype of the cell.
        status: One of the seven statuses above.
        examples: Cases that were drawn.
        discarded: Drawn cases that had nothing to judge.
        judged: Elements within the domain of the bounds.
        outside: Elements outside the domain of the bounds.
        seconds: Duration in seconds.
        shares: Worst err / bound of each observable.
        worst_case: The case with the largest err / bound, as Python source; empty if it is long.
        text: Explanation of every status but ``pass``.
        observable: The observable that a finding got wrong.
        explanations: Catalogued faults that fail in the same way, the likeliest first.
        cases: Ids of the cases that are stored.
        grade: Measured grade, if the requirement measures it.
        claimed_grade: Grade that the backend claims.
        conditioning: Worst err / bound under the bounds of each grade, by decades of |mean| / σ.
        reached: Number of cases that reached each region of :mod:`bn_spec.suite.regions`.

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
        """Chapter of the specification that the requirement belongs to."""
        return self.requirement.partition("-")[0]

    @property
    def worst(self) -> float | None:
        """Largest err / bound of all observables, or None if nothing was measured."""
        return max(self.shares.values(), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Record:
        """Return the record that :meth:`to_dict` returned as plain data."""
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
    """Return shares as numbers; the file stores NaN and infinity as text."""
    return {name: float(share) for name, share in shares.items()}


@dataclass
class Run:
    """The records of a run while it goes on.

    Comparing the tests that were collected with those that reported shows every gap.
    """

    records: list[Record] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Reasons why backends could not run, by backend."""
    collected: set[str] = field(default_factory=set)
    """Ids of the tests that were collected."""
    reported: set[str] = field(default_factory=set)
    """Ids of the tests that reported a result."""
    lost: list[str] = field(default_factory=list)
    """Workers that were lost, a sentence each."""
    faults: list[str] = field(default_factory=list)
    """Faults of the run as a whole, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """Further sentences to print at the end of the run."""
    stopped: bool = False
    """Whether the user asked to stop at a failure, so that unreported tests are no gap."""

    @property
    def missing(self) -> list[str]:
        """Ids of the tests that were collected but never reported."""
        if self.stopped:
            return []
        return sorted(self.collected - self.reported)

    @property
    def exit_code(self) -> int:
        """Exit code of ``bn-spec run`` for this run."""
        return exit_code(self.records, self.faults, [*self.lost, *self.missing])


def exit_code(records: Sequence[Record], faults: Sequence[str], incomplete: Sequence[str]) -> int:
    """Return the exit code for a run with these records, faults and gaps."""
    if incomplete:
        return INCOMPLETE
    if faults or any(record.status in BAD for record in records):
        return NEW_FINDING
    tested = any(record.status != NOT_CLAIMED for record in records)
    return CONFORMING if tested else NOTHING_TESTED


def having(records: Iterable[Record], status: str) -> list[Record]:
    """Return the records with a status, ordered by backend, dtype and requirement."""
    chosen = (record for record in records if record.status == status)
    return sorted(chosen, key=lambda r: (r.backend, r.dtype, r.requirement))
