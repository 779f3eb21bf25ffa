"""What a run leaves behind: one record per cell, and a verdict on the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

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

    ``shares`` holds the worst err / bound by observable; ``judged`` and ``outside`` count elements within and outside
    the domain of the bounds; ``seconds`` is the duration; ``text`` explains every status but ``pass``; ``grade`` is
    the measured one, where the requirement measures it, and ``claimed_grade`` what the backend claims; ``reached``
    counts the cases that reached each region of :mod:`bn_spec.coverage`.
    """

    requirement: str
    backend: str
    dtype: str
    status: str
    examples: int = 0
    judged: int = 0
    outside: int = 0
    seconds: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    text: str = ""
    grade: str = ""
    claimed_grade: str = ""
    reached: dict[str, int] = field(default_factory=dict)

    @property
    def chapter(self) -> str:
        """The chapter of the specification under which the requirement stands."""
        return self.requirement.partition("-")[0]

    def to_json(self) -> str:
        """Return the record as text that travels between workers."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Record:
        """Return the record that :meth:`to_json` wrote."""
        return Record(**json.loads(text))


@dataclass
class Run:
    """The records of a run, and what was collected and reported, so that a gap cannot go unnoticed."""

    records: list[Record] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    collected: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    stopped: bool = False
    """Whether the user asked to stop at a failure, so that unreported tests are no gap."""

    @property
    def missing(self) -> list[str]:
        """The tests that were collected and never reported."""
        return [] if self.stopped else sorted(self.collected - self.reported)

    @property
    def exit_code(self) -> int:
        """Return the exit code of ``bn-spec run`` for this run."""
        if self.lost or self.missing:
            return INCOMPLETE
        if any(record.status in BAD for record in self.records):
            return NEW_FINDING
        tested = any(record.status != NOT_CLAIMED for record in self.records)
        return CONFORMING if tested else NOTHING_TESTED


def having(records: Iterable[Record], status: str) -> list[Record]:
    """Return the records of a status, in the order of backend, dtype and requirement."""
    chosen = (record for record in records if record.status == status)
    return sorted(chosen, key=lambda r: (r.backend, r.dtype, r.requirement))
