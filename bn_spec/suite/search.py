"""The search for a case on which a cell fails: stored cases, pinned cases, then drawn cases.

No other module calls Hypothesis to judge a backend.
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
"""Number of eligible cases without a known failure after which it is reported as fixed."""

FATES = ("seen", "missed", "unreached", "unsettled")
"""Outcomes of a known failure in a cell.

``seen``: it occurred. ``missed``: it did not occur on at least :data:`MANY` eligible cases.
``unreached``: no case was eligible. ``unsettled``: too few cases were judged to tell.
"""

SEEN, MISSED, UNREACHED, UNSETTLED = FATES

LEAST_EXAMPLES = 5
"""Minimum number of examples per property."""

MOST_DEATHS = 25
"""Number of deaths of the backend's process that ends a search; each death costs a new process."""

LARGE = 256
"""Number of input values above which a pinned case is played after all other cases."""

OTHER_DTYPES = 0.2
"""Share of the examples in each dtype but the first, since dtypes share most of their code."""


class Vacuous(BnSpecError):
    """Raised by a search that judged nothing or missed the regions of its property."""


class _EnoughDeaths(BaseException):
    """Ends a search after :data:`MOST_DEATHS` deaths.

    Not an Exception, since Hypothesis would take that for one more failing example.
    """


@dataclass
class Search:
    """Looks for a case on which a cell fails.

    Attributes:
        cell: The cell that is judged.
        profile: Settings of Hypothesis.
        seed: Seed of the run.
        share: Share of the property's examples to draw; see :data:`OTHER_DTYPES`.
        stored: Cases on which the backend failed in earlier runs, by id.
        fatal: Ids of the stored cases that ended a process.
        isolated: The backend in a separate process, on which the fatal cases are played.
        databases: Example databases to read and write.
        explain: Explains a violation; without it, violations are raised as found.
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
        """Counts and worst values so far."""
        return self.cell.tally

    @property
    def no_longer_failing(self) -> list[KnownFailure]:
        """Known failures that are missed and that the backend declares for this requirement alone.

        Those declared for several requirements are left out: they need not occur in each of them.
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
        """Return the outcome of a known failure: one of :data:`FATES`."""
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
        """Regions of the property that no case has reached; empty if too few cases were drawn."""
        if not self._thorough():
            return []
        cell = self.cell
        return unreached(cell.prop.reaches, self.tally.reached, cell.claims, cell.dtype)

    def _thorough(self, share: float = 1.0) -> bool:
        """Whether at least as many examples were drawn as in CI, so that a miss means something."""
        return self.tally.examples >= self._number_of(PROFILES["ci"].examples, share)

    def _number_of(self, examples: int, share: float) -> int:
        """Return a number of examples, scaled by the effort of the property and a share."""
        wanted = round(examples * self.cell.prop.effort * share)
        return max(wanted, min(examples, LEAST_EXAMPLES))

    def run(self) -> None:
        """Play the stored and the pinned cases, then draw others; explain the violation found.

        Large pinned cases come last: they are slow, and most faults show in smaller cases.

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
        """Judge the cases on which the backend failed before; the tally does not count them.

        Raises:
            Violation: A case still fails.

        """
        for name, case in self.stored.items():
            if not is_claimed(case, self.cell.claims):
                continue
            backend = self.isolated if name in self.fatal else None
            found = self.cell.apart(backend).violation(case)
            if found is not None:
                raise found
            self.passed_again.append(name)

    def play_pinned(self, *, large: bool) -> None:
        """Judge the small or the large pinned cases of the requirement, outside the tally.

        Raises:
            Violation: A case fails.
            BnSpecError: The arithmetic of this process is not that of IEEE 754.

        """
        cell = self.cell
        check_arithmetic(subnormals=cell.claims.subnormals)
        if cell.claims.expensive_signatures:
            # Each pinned case has a signature of its own, and each costs such a backend seconds.
            return
        for pinned in of_requirement(cell.prop.requirement.id):
            case = pinned.case
            wanted = case.config.dtype == cell.dtype and large == (case.values > LARGE)
            if not wanted or not is_claimed(case, cell.claims):
                continue
            apart = cell.apart()
            found = apart.violation(case)
            if found is not None:
                # Nothing will be drawn after this, and the record still needs a measured grade.
                self.tally.grades = self.tally.grades or apart.tally.grades
                raise found

    def examine(self) -> None:
        """Draw cases and judge them.

        Raises:
            Violation: A case fails. The violation has the smallest case found.
            Vacuous: Nothing was judged, or a region was missed.
            BnSpecError: The arithmetic of this process is not that of IEEE 754.

        """
        cell, tally = self.cell, self.tally
        check_arithmetic(subnormals=cell.claims.subnormals)
        deaths: list[Violation] = []

        def check(case: Case) -> None:
            tally.examples += 1
            judged_before = tally.judged
            found = cell.violation(case)
            if found is not None:
                if found.finding.discrepancy.observable == SURVIVAL:
                    deaths.append(found)
                if len(deaths) == MOST_DEATHS:
                    raise _EnoughDeaths
                raise found
            if tally.judged == judged_before:
                tally.discarded += 1

        cell.steer = _steer
        try:
            self._draw(check)
        except _EnoughDeaths:
            raise min(deaths, key=lambda found: found.drawn.size) from None
        except BaseExceptionGroup as several:
            # Hypothesis raises a group where a failing case passes when it is played again.
            unsteady = _unsteady(several)
            raise (several if unsteady is None else unsteady) from None
        finally:
            cell.steer = None
        self._check_regions()

    def _draw(self, check: Callable[[Case], None]) -> None:
        cell = self.cell
        strategy = cases_of(cell.prop.choices, cell.dtype, cell.claims)
        seeded = seed(f"{self.seed}:{cell.prop.requirement.id}")
        # The seed must be applied before the settings: after them, it disables their database.
        search = self._settings()(seeded(given(strategy)(check)))
        with warnings.catch_warnings(), without_foreign_constants():
            # Hypothesis formats every failing case and warns if that is long; a finding formats
            # its own.
            warnings.filterwarnings("ignore", "Generating overly large repr")
            search()

    def _check_regions(self) -> None:
        name = self.cell.prop.requirement.id
        if not self.tally.judged:
            raise Vacuous(f"{name}: {self.tally.examples} examples, nothing judged")
        missed = [" or ".join(alternatives(wanted)) for wanted in self.unreached]
        if missed:
            raise Vacuous(
                f"{name}: {self.tally.examples} examples,"
                f" none of which reached {', or '.join(missed)}"
            )

    def _settings(self) -> settings:
        prop = self.cell.prop
        if prop.huge:
            # One example takes minutes, so there is no shrinking either.
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
    """Make Hypothesis look for larger shares, on a logarithmic scale of bounded range."""
    target(log2(min(max(share, 2.0**-60), 2.0**60)), label=label)


def _unsteady(several: BaseExceptionGroup[BaseException]) -> Violation | None:
    """Return the first violation of a group, with a note that the case fails only sometimes."""
    violations = several.subgroup(Violation)
    while violations is not None:
        first = violations.exceptions[0]
        if isinstance(first, Violation):
            note = "the same case played again did not fail: the backend is not deterministic"
            notes = "; ".join(filter(None, (first.finding.note, note)))
            return type(first)(replace(first.finding, note=notes))
        violations = first
    return None
