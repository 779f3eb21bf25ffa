"""Counts and worst values over the cases that a cell has judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.script import Case
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import GRADES

WORSE = "worse than textbook"
"""The measured grade of a kernel that exceeds the bounds of every grade."""


@dataclass
class Tally:
    """Counts and worst values over the cases that a cell has judged.

    Attributes:
        examples: Drawn cases.
        discarded: Drawn cases in which nothing was judged.
        judged: Elements within the domain of the bounds.
        outside: Elements outside the domain of the bounds.
        shares: Worst err / bound, by observable.
        worst_case: The case of the worst err / bound.
        grades: Worst err / bound under the bounds of each grade.
        conditioning: Worst err / bound under each grade, by decade of |mean| / σ.
        reached: Number of drawn cases that reached each region.
        known: Known failures that occurred.
        eligible: Number of cases on which each known failure could have occurred.

    """

    examples: int = 0
    discarded: int = 0
    judged: int = 0
    outside: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    worst_case: Case | None = None
    grades: dict[str, float] = field(default_factory=dict)
    conditioning: dict[str, dict[str, float]] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    known: list[KnownFailure] = field(default_factory=list)
    eligible: Counter[KnownFailure] = field(default_factory=Counter)

    @property
    def measured_grade(self) -> str:
        """The best grade whose bounds all cases satisfy, or :data:`WORSE`; empty if unmeasured."""
        if not self.grades:
            return ""
        return next((grade for grade in GRADES if self.grades[grade] <= 1), WORSE)

    def add(self, case: Case, verdict: Verdict, excused: set[str]) -> None:
        """Add a verdict; the shares of excused observables do not count."""
        self.judged += verdict.judged
        self.outside += verdict.outside
        for name, share in verdict.shares.items():
            if name in excused:
                continue
            if share > max(self.shares.values(), default=0.0):
                self.worst_case = case
            self.shares[name] = max(share, self.shares.get(name, 0.0))

    def measure(self, decade: str, worst: dict[str, float]) -> None:
        """Add the worst err / bound of a case under each grade.

        Args:
            decade: The largest decade of |mean| / σ that the case reaches.
            worst: Worst err / bound, by grade.

        """
        of_decade = self.conditioning.setdefault(decade, {})
        for grade, share in worst.items():
            self.grades[grade] = max(share, self.grades.get(grade, 0.0))
            of_decade[grade] = max(share, of_decade.get(grade, 0.0))

    def meet(self, known: KnownFailure) -> None:
        """Note that a known failure occurred."""
        if known not in self.known:
            self.known.append(known)
