"""The search for a case on which a cell fails: stored cases, pinned cases, then drawn ones.

This module alone runs Hypothesis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import Phase, given, seed, settings, target

from bn_spec.backend.contract import Backend
from bn_spec.backend.floating_point import check_arithmetic
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.backend.needs import is_claimed
from bn_spec.case.script import Case
from bn_spec.errors import BnSpecError
from bn_spec.judge.judging import SURVIVAL
from bn_spec.strategies.hypothesis_cases import cases_of
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.foreign_constants import without_foreign_constants
from bn_spec.suite.pinned import of_requirement
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.regions import Wanted, alternatives, unreached
from bn_spec.suite.tally import Tally

if TYPE_CHECKING:
    from bn_spec.suite.databases import Databases

Explain: TypeAlias = Callable[[Cell, Violation], Violation]
"""Returns a violation of a cell with its explanation."""

MANY = 20
"""Eligible cases without a known failure after which it is reported as fixed."""

SEEN, MISSED, UNREACHED, UNSETTLED = FATES = ("seen", "missed", "unreached", "unsettled")
"""What becomes of a known failure in a cell.

It is seen; it is missed on at least :data:`MANY` eligible cases; no case is eligible; or too few
cases were judged to tell.
"""

LEAST_EXAMPLES = 5
"""Minimum number of examples per property."""

MOST_DEATHS = 25
"""Deaths of the backend's process after which a search ends: each costs a new process."""

LARGE = 256
"""Number of input values above which a pinned case is played after all other cases."""

OTHER_DTYPES = 0.2
"""Share of the examples in every dtype but the first: most of the code is the same."""


class Vacuous(BnSpecError):
    """A search that judged nothing, or that missed the regions that its property is about."""


class _EnoughDeaths(BaseException):
    """Ends a search in which :data:`MOST_DEATHS` processes have died."""


@dataclass
class Search:
    """Looks for a case on which a cell fails.

    Attributes:
        cell: What is judged.
        profile: Settings of Hypothesis.
        seed: Seed of the run.
        share: Share of the property's examples; less than 1 if another dtype gets them all.
        stored: Cases on which the backend failed in earlier runs, by id.
        fatal: Ids of the stored cases that ended a process.
        isolated: Plays the fatal cases in a process of its own, if there is one.
        databases: Example databases that are read and written.
        explain: Explains a violation.
        passed_again: Ids of the stored cases that no longer fail.

    """

    cell: Cell
    profile: settings = field(default_factory=lambda: PROFILES["ci"].settings())
    seed: int = 0
    share: float = 1.0
    stored: Mapping[str, Case] = field(default_factory=dict)
    fatal: frozenset[str] = frozenset()
    isolated: Backend | None = None
    databases: Databases | None = None
    explain: Explain | None = None
    passed_again: list[str] = field(default_factory=list)

    @property
    def tally(self) -> Tally:
        """What judging has given so far."""
        return self.cell.tally

    @property
    def no_longer_failing(self) -> list[KnownFailure]:
        """Known failures that the backend declares for this requirement alone, and that are missed.

        A known failure of several requirements need not occur in each of them.
        """
        name = self.cell.prop.requirement.id
        return [
            known
            for known in self.cell.expected_failures
            if known.requirement == name
            and known not in self.cell.excused
            and self.fate(known) == MISSED
        ]

    def fate(self, known: KnownFailure) -> str:
        """Return what became of a known failure: one of :data:`FATES`."""
        eligible = self.tally.eligible[known]
        if known in self.tally.known:
            return SEEN
        if not self._thorough(self.share):
            return UNSETTLED
        if not eligible:
            return UNREACHED
        return MISSED if eligible >= self._number_of(MANY, 1.0) else UNSETTLED

    @property
    def unreached(self) -> list[Wanted]:
        """Regions of the property that no case has reached, if enough cases were drawn to tell."""
        if not self._thorough():
            return []
        cell = self.cell
        return unreached(cell.prop.reaches, self.tally.reached, cell.claims, cell.dtype)

    def _thorough(self, share: float = 1.0) -> bool:
        """Whether as many examples were drawn as in CI, so that a miss says something."""
        return self.tally.examples >= self._number_of(PROFILES["ci"].examples, share)

    def _number_of(self, examples: int, share: float) -> int:
        wanted = round(examples * self.cell.prop.effort * share)
        return max(wanted, min(examples, LEAST_EXAMPLES))

    def run(self) -> None:
        """Play the stored cases and the pinned ones, then draw others; explain what is found.

        Large pinned cases come last. Any fault may show in them, and most show in smaller ones.

        Raises:
            Violation: A case fails.
            Vacuous: Nothing was judged, or a region was missed.
            BnSpecError: The arithmetic of this process is not that of IEEE 754.

        """
        try:
            self.play_stored()
            self.play_pinned(large=False)
            self.examine()
            self.play_pinned(large=True)
        except Violation as found:
            if self.explain is None:
                raise
            raise self.explain(self.cell, found) from None

    def play_stored(self) -> None:
        """Judge the cases on which the backend failed before; they do not count in the tally.

        Raises:
            Violation: A case still fails.

        """
        for name, case in self.stored.items():
            if not is_claimed(case, self.cell.claims):
                continue
            cell = self.cell.apart(self.isolated if name in self.fatal else None)
            if found := cell.violation(case):
                raise found
            self.passed_again.append(name)

    def play_pinned(self, *, large: bool) -> None:
        """Judge the small or the large pinned cases of the requirement; they do not count.

        Raises:
            Violation: A case fails.
            BnSpecError: The arithmetic of this process is not that of IEEE 754.

        """
        cell = self.cell
        check_arithmetic(subnormals=cell.claims.subnormals)
        if cell.claims.expensive_signatures:
            return  # each pinned case has a signature of its own
        for pinned in of_requirement(cell.prop.requirement.id):
            case = pinned.case
            wanted = case.config.dtype == cell.dtype and large == (case.values > LARGE)
            if not wanted or not is_claimed(case, cell.claims):
                continue
            apart = cell.apart()
            if found := apart.violation(case):
                # The record has a grade, although nothing will be drawn.
                self.tally.grades = self.tally.grades or apart.tally.grades
                raise found

    def examine(self) -> None:
        """Draw cases and judge them.

        Raises:
            Violation: A case fails; it is the smallest one found.
            Vacuous: Nothing was judged, or a region was missed.
            BnSpecError: The arithmetic of this process is not that of IEEE 754.

        """
        cell, tally = self.cell, self.tally
        check_arithmetic(subnormals=cell.claims.subnormals)
        deaths: list[Violation] = []

        def check(case: Case) -> None:
            tally.examples += 1
            before = tally.judged
            if found := cell.violation(case):
                if found.finding.discrepancy.observable == SURVIVAL:
                    deaths.append(found)
                if len(deaths) == MOST_DEATHS:
                    raise _EnoughDeaths
                raise found
            tally.discarded += tally.judged == before

        cell.steer = _steer
        try:
            self._draw(check)
        except _EnoughDeaths:
            raise min(deaths, key=lambda found: found.drawn.size) from None
        except BaseExceptionGroup as several:
            raise _unsteady(several) or several from None
        finally:
            cell.steer = None
        self._check_regions()

    def _draw(self, check: Callable[[Case], None]) -> None:
        cell = self.cell
        strategy = cases_of(cell.prop.choices, cell.dtype, cell.claims)
        seeded = seed(f"{self.seed}:{cell.prop.requirement.id}")
        # The seed goes inside the settings: outside, it takes their database away.
        search = self._settings()(seeded(given(strategy)(check)))
        with warnings.catch_warnings(), without_foreign_constants():
            # Hypothesis prints every failing case itself; a finding prints ours.
            warnings.filterwarnings("ignore", "Generating overly large repr")
            search()

    def _check_regions(self) -> None:
        name = self.cell.prop.requirement.id
        if not self.tally.judged:
            raise Vacuous(f"{name}: {self.tally.examples} examples, nothing judged")
        if missed := self.unreached:
            regions = ", or ".join(" or ".join(alternatives(wanted)) for wanted in missed)
            raise Vacuous(
                f"{name}: {self.tally.examples} examples, none of which reached {regions}"
            )

    def _settings(self) -> settings:
        prop = self.cell.prop
        if prop.huge:
            return settings(self.profile, max_examples=1, phases=[Phase.generate])
        examples = self._number_of(self.profile.max_examples, self.share)
        profile = settings(self.profile, max_examples=examples)
        if self.databases is None:
            return profile
        database = self.databases.of_cell(
            prop.requirement.id, self.cell.backend.name, self.cell.dtype
        )
        return settings(profile, database=database, phases=[Phase.reuse, *profile.phases])


def _steer(share: float, label: str) -> None:
    """Tell Hypothesis to look for larger shares, on a logarithmic scale of bounded range."""
    target(log2(min(max(share, 2.0**-60), 2.0**60)), label=label)


def _unsteady(several: BaseExceptionGroup[BaseException]) -> Violation | None:
    """Return the violation in the group by which Hypothesis says that a case fails only sometimes."""
    violations = several.subgroup(Violation)
    while violations is not None:
        first = violations.exceptions[0]
        if isinstance(first, Violation):
            note = "the same case played again did not fail: the backend is not deterministic"
            notes = "; ".join(filter(None, (first.finding.note, note)))
            return type(first)(replace(first.finding, note=notes))
        violations = first
    return None
