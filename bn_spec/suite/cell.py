"""A cell: one property, one backend, one dtype. Draw, play, judge, and keep count.

A property of the suite is declared with :func:`conforms` and asks its cell to judge the drawn
case::

    @conforms("RUN-03", momentum=(1.0,))
    def test_running_var_takes_the_unbiased_variance(cell, case):
        cell.judge(case, "running_var")
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import Phase, currently_in_test_context, given, seed, settings, target

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.floating_point import ROUNDING, departures
from bn_spec.backend.known_failure import KnownFailure, known_failures
from bn_spec.backend.needs import is_claimed
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.script import Case, negated
from bn_spec.case.steps import Step
from bn_spec.errors import BnSpecError, ConfigError, allowed
from bn_spec.judge.channels import in_parts
from bn_spec.judge.finding import Finding
from bn_spec.judge.judging import SURVIVAL, judge, judge_construction, judge_drift, judge_repetition
from bn_spec.judge.observables import OF_MEMORY
from bn_spec.judge.verdict import Discrepancy, Verdict
from bn_spec.oracle.bounds import GRADES
from bn_spec.play.observation import LOOKS, STATES, Observation
from bn_spec.play.player import play, play_together
from bn_spec.specification.requirement import Requirement, requirement_named
from bn_spec.strategies import cases
from bn_spec.suite.foreign_constants import without_foreign_constants
from bn_spec.suite.pinned import of_requirement
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.regions import OR, REGIONS, conditioning, reached, unreached

if TYPE_CHECKING:
    from bn_spec.specimens import Specimen
    from bn_spec.suite.databases import Databases


class Violation(AssertionError):
    """Raised inside a property by a finding.

    Each requirement and observable has a subclass of its own, so that a shrinker, which tells
    failures apart by their type, keeps the same one.
    """

    finding: Finding
    drawn: Case
    """The case that the property was given, which it may have changed before it judged that of the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding
        self.drawn = finding.case


@functools.cache
def _violation_of(requirement: str, observable: str) -> type[Violation]:
    return type(f"Violation of {requirement} ({observable})", (Violation,), {})


def _unsteady(several: BaseExceptionGroup[BaseException]) -> Violation | None:
    """Return the violation among the exceptions with which Hypothesis says that a case does not fail each time."""
    violations = several.subgroup(Violation)
    while violations is not None:
        first = violations.exceptions[0]
        if isinstance(first, Violation):
            note = "the same case played again did not fail: the backend is not deterministic"
            return type(first)(
                replace(first.finding, note="; ".join(filter(None, (first.finding.note, note))))
            )
        violations = first
    return None


class _EnoughDeaths(BaseException):
    """Ends a search: so many processes have died in it."""


class Vacuous(BnSpecError):
    """A property went through all its examples without judging anything, or without reaching what it is about."""


WORSE = "worse than textbook"
"""The measured grade of a kernel that satisfies the bounds of none."""

MANY = 20
"""So many cases on which a known failure is to be expected, without it, say that it is no longer one."""

SEEN, MISSED, UNREACHED, UNSETTLED = FATES = ("seen", "missed", "unreached", "unsettled")
"""What becomes of a known failure in a cell: it is seen; it is not, though :data:`MANY` cases are
where it is to be expected; it is not, and no case is; or too little was looked at to tell."""

LEAST_EXAMPLES = 5
"""However little effort a property needs, it looks at so many examples."""

MOST_DEATHS = 25
"""Cases in which a process dies, or hangs, after which the smallest of them is small enough: each costs a new one."""

LARGE = 256
"""Values beyond which a pinned case is played after all others."""

OTHER_DTYPES = 0.2
"""The share of examples in every dtype but the first that a backend claims: most of the code is the same."""

Body: TypeAlias = Callable[["Cell", Case], None]


@dataclass(frozen=True)
class Property:
    """A declared property: the requirement that it judges, its body, and the choices its cases are drawn with.

    ``effort`` is the share of a profile's examples that it needs. A ``deep`` one is for the nightly
    profile, or for who names it; a ``huge`` one, of a single case that takes minutes and gigabytes,
    for who names it alone. One with ``dtypes`` says something about these only. ``reaches`` names
    the regions of :mod:`bn_spec.suite.regions` without which it says nothing (of several joined by
    " or ", one is enough).

    Raises:
        ConfigError: a region is not known.

    """

    requirement: Requirement
    body: Body
    choices: dict[str, Any]
    effort: float = 1.0
    deep: bool = False
    huge: bool = False
    dtypes: tuple[str, ...] = tuple(DTYPES)
    reaches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for region in self.reaches:
            for one in region.split(OR):
                if one not in REGIONS:
                    raise ConfigError(allowed("region", one, sorted(REGIONS)))


PROPERTIES: dict[str, list[Property]] = {}
"""The properties declared so far, by requirement."""


@dataclass
class Cell:
    """One property against one backend in one dtype.

    ``share`` is that of the examples that a property needs, less than 1 where another dtype gets
    them all. ``address`` is the name under which the backend was asked for, for people who want to
    load it again. ``excused`` are known failures of a file, beside those that the backend declares.
    ``stored`` are the cases, by id, on which the backend failed in earlier runs, and
    ``passed_again`` those of which it does not any more; the ``fatal`` ones of them have killed a
    process, and are played by ``isolated``, if it is there. ``databases`` hold what made it fail
    elsewhere, and are told what makes it fail here. ``shares`` holds the worst err / bound by
    observable, ``worst_case`` the case of the worst of all; ``grades`` the worst of all under the
    bounds of each grade, ``conditioning`` likewise by decades of |mean| / σ. ``discarded`` counts
    the examples that judged nothing, ``judged`` and ``outside`` elements within and outside the
    domain of the bounds, ``reached`` cases by the regions that they reach; ``known`` are the known
    failures that were seen, ``expecting`` counts the cases on which each was to be expected.
    """

    prop: Property
    backend: Backend
    dtype: str
    profile: settings = field(default_factory=lambda: PROFILES["ci"].settings())
    seed: int = 0
    address: str = ""
    share: float = 1.0
    excused: tuple[KnownFailure, ...] = ()
    stored: Mapping[str, Case] = field(default_factory=dict)
    fatal: frozenset[str] = frozenset()
    isolated: Backend | None = None
    databases: Databases | None = None
    passed_again: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    worst_case: Case | None = None
    examples: int = 0
    discarded: int = 0
    judged: int = 0
    outside: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    grades: dict[str, float] = field(default_factory=dict)
    conditioning: dict[str, dict[str, float]] = field(default_factory=dict)
    known: list[KnownFailure] = field(default_factory=list)
    expecting: Counter[KnownFailure] = field(default_factory=Counter)

    @property
    def claims(self) -> Capabilities:
        """What the backend claims."""
        return self.backend.capabilities

    @property
    def not_claimed(self) -> str:
        """Why the backend does not claim this requirement, or an empty string."""
        if self.dtype not in self.prop.dtypes:
            return f"{self.backend.name} does not claim {' or '.join(self.prop.dtypes)}"
        for flag in filter(None, self.prop.requirement.needs.split(" and ")):
            if not self.claims.has(flag, self.dtype):
                where = f" in {self.dtype}" if getattr(self.claims, flag) else ""
                return f"{self.backend.name} does not claim {flag}{where}"
        layouts = self.prop.choices.get("layouts", ())
        if layouts and set(layouts).isdisjoint(self.claims.layouts):
            return f"{self.backend.name} does not claim the layout {' or '.join(layouts)}"
        return ""

    @property
    def expected_failures(self) -> list[KnownFailure]:
        """The known failures of this requirement: those of a file, and those that the backend declares."""
        known = (*self.excused, *known_failures(self.backend))
        return [each for each in known if each.concerns(self.prop.requirement.id, self.dtype)]

    @property
    def no_longer_failing(self) -> list[KnownFailure]:
        """The known failures that the backend declares and that were not seen, though they were to be expected.

        One that covers several requirements need not show in each of them.
        """
        own = [
            known
            for known in self.expected_failures
            if known.requirement == self.prop.requirement.id
        ]
        return [known for known in own if known not in self.excused and self.fate(known) == MISSED]

    def fate(self, known: KnownFailure) -> str:
        """Return what became of a known failure: one of :data:`FATES`."""
        if known in self.known:
            return SEEN
        if not self._thorough(self.share):
            return UNSETTLED
        if not self.expecting[known]:
            return UNREACHED
        return MISSED if self.expecting[known] >= self._number_of(MANY, 1.0) else UNSETTLED

    @property
    def unreached(self) -> list[str]:
        """The regions that the property is about and that no case has reached, though so many were drawn."""
        return (
            unreached(self.prop.reaches, self.reached, self.claims, self.dtype)
            if self._thorough()
            else []
        )

    def _thorough(self, share: float = 1.0) -> bool:
        """Whether as many examples were looked at as in CI, so that what was not seen says something."""
        return self.examples >= self._number_of(PROFILES["ci"].examples, share)

    def _number_of(self, examples: int, share: float) -> int:
        return max(round(examples * self.prop.effort * share), min(examples, LEAST_EXAMPLES))

    @property
    def measured_grade(self) -> str:
        """The best grade whose bounds all examples satisfied, :data:`WORSE`, or nothing if none was measured."""
        if not self.grades:
            return ""
        return next((grade for grade in GRADES if self.grades[grade] <= 1), WORSE)

    def run(self) -> None:
        """Play the stored cases and the pinned ones, then draw others; explain what is found by known faults.

        Pinned cases that are large come last: any fault may show in them, and most in smaller ones.

        Raises what :meth:`examine` raises.
        """
        try:
            self.play_stored()
            self.replay(large=False)
            self.examine()
            self.replay(large=True)
        except Violation as found:
            raise self._explained(found) from None

    def play_stored(self) -> None:
        """Judge the cases on which the backend failed before; they count for nothing else.

        Raises:
            Violation: one of them fails still.

        """
        for name, case in self.stored.items():
            if is_claimed(case, self.claims):
                if found := self._apart(self.isolated if name in self.fatal else None).violation(
                    case
                ):
                    raise found
                self.passed_again.append(name)

    def _apart(self, backend: Backend | None = None) -> Cell:
        """Return a cell that keeps its own count, and may have a stand-in for the backend."""
        return Cell(
            self.prop,
            backend or self.backend,
            self.dtype,
            address=self.address,
            excused=self.excused,
        )

    def replay(self, *, large: bool) -> None:
        """Judge the smallest cases on which this requirement has caught the faults of the catalogue, or the others.

        They count for nothing else.

        Raises:
            Violation: a requirement is violated.

        """
        self._check_arithmetic()
        if self.claims.expensive_signatures:
            return  # each of these cases has one of its own
        for case in (known.case for known in of_requirement(self.prop.requirement.id)):
            played_now = large == (case.values > LARGE)
            if played_now and case.config.dtype == self.dtype and is_claimed(case, self.claims):
                apart = self._apart()
                if found := apart.violation(case):
                    self.grades = self.grades or apart.grades  # nothing else will be measured
                    raise found

    def _explained(self, found: Violation) -> Violation:
        """Return the violation with the catalogued faults that fail as the backend does; none kills its process."""
        if found.finding.discrepancy.observable == SURVIVAL:
            return found
        faults = self.explanations(found)
        named = None if faults is None else tuple(fault.title for fault in faults)
        return type(found)(replace(found.finding, faults=named))

    def explained_violation(self, case: Case) -> Violation | None:
        """Judge one case, and return what it violates, explained; raise what :meth:`run` does but that."""
        self._check_arithmetic()
        found = self.violation(case)
        return found and self._explained(found)

    def explanations(
        self, found: Violation, specimens: Iterable[Specimen] | None = None
    ) -> list[Specimen] | None:
        """Return what :func:`bn_spec.tools.diagnosis.explanations` returns for a violation of this cell."""

        def fails(specimen: Backend) -> bool:
            return isinstance(
                Cell(self.prop, specimen, self.dtype).violation(found.drawn), type(found)
            )

        from bn_spec.tools.diagnosis import explanations  # who passes needs no specimens

        return explanations(
            found.finding.case, self.backend, self.prop.requirement.id, fails, specimens
        )

    def violation(self, case: Case) -> Violation | None:
        """Judge one case as the property does, and return what it violates; it counts as no example."""
        try:
            self.prop.body(self, case)
        except Violation as found:
            found.drawn = case
            return found
        return None

    def examine(self) -> None:
        """Draw cases and judge them; raise :class:`Violation` with the smallest case that fails.

        Raises:
            Violation: a requirement is violated. Vacuous: no example judged anything, or none
            reached a region that the property is about. BnSpecError: the arithmetic of this process
            is not that of IEEE 754, so that nothing can be judged.

        """
        self._check_arithmetic()
        deaths: list[Violation] = []

        def check(case: Case) -> None:
            self.examples += 1
            before = self.judged
            if found := self.violation(case):
                deaths.extend([found] if found.finding.discrepancy.observable == SURVIVAL else [])
                if len(deaths) == MOST_DEATHS:
                    raise _EnoughDeaths
                raise found
            self.discarded += self.judged == before

        strategy = cases(dtype=self.dtype, claims=self.claims, **self.prop.choices)
        # The seed inside the settings: outside, it takes their database away.
        search = self._settings()(
            seed(f"{self.seed}:{self.prop.requirement.id}")(given(strategy)(check))
        )
        with warnings.catch_warnings():
            # Hypothesis prints every failing case itself; ours are printed by the finding.
            warnings.filterwarnings("ignore", "Generating overly large repr")
            try:
                with without_foreign_constants():
                    search()
            except _EnoughDeaths:
                raise min(deaths, key=lambda found: found.drawn.size) from None
            except BaseExceptionGroup as several:
                raise _unsteady(several) or several from None
        name = self.prop.requirement.id
        if not self.judged:
            raise Vacuous(f"{name}: {self.examples} examples, nothing judged")
        if self.unreached:
            raise Vacuous(
                f"{name}: {self.examples} examples, none of which reached {', or '.join(self.unreached)}"
            )

    def _settings(self) -> settings:
        if self.prop.huge:
            return settings(self.profile, max_examples=1, phases=[Phase.generate])
        profile = settings(
            self.profile, max_examples=self._number_of(self.profile.max_examples, self.share)
        )
        if self.databases is None:
            return profile
        database = self.databases.of_cell(self.prop.requirement.id, self.backend.name, self.dtype)
        return settings(profile, database=database, phases=[Phase.reuse, *profile.phases])

    def _check_arithmetic(self) -> None:
        if (odd := departures()) and (self.claims.subnormals or ROUNDING in odd):
            raise BnSpecError(
                f"before any call, this process {' and '.join(odd)}: something loaded or called earlier has changed"
                " its floating-point mode (a library built with -ffast-math, torch.set_flush_denormal); check the"
                " backend in a process without it"
            )

    def judge(self, case: Case, *observables: str) -> None:
        """Play the case and judge the named observables of every step."""
        self._settle(case, judge(case, self._played(case, observables), observables, self.claims))

    def measure(self, case: Case, *observables: str) -> None:
        """Judge like :meth:`judge`, and note the worst err / bound under every grade, steering towards more of it."""
        observation = self._played(case, observables)
        verdicts = {
            grade: judge(case, observation, observables, replace(self.claims, grade=grade))
            for grade in GRADES
        }
        for grade, verdict in verdicts.items():
            worst = max([*verdict.shares.values(), 0.0, *(d.factor for d in verdict.discrepancies)])
            self.grades[grade] = max(worst, self.grades.get(grade, 0.0))
            of_decade = self.conditioning.setdefault(conditioning(case), {})
            of_decade[grade] = max(worst, of_decade.get(grade, 0.0))
            if currently_in_test_context():  # not where a case is played again
                target(log2(min(max(worst, 2.0**-60), 2.0**60)), label=f"err/bound of {grade}")
        fitting = next(
            (grade for grade, verdict in verdicts.items() if not verdict.discrepancies), WORSE
        )
        self._settle(
            case,
            verdicts[self.claims.grade],
            f"claimed is {self.claims.grade}; what was got is {fitting}",
        )

    def judge_steps(self, case: Case, kind: type[Step] | UnionType, *observables: str) -> None:
        """Play the case and judge the named observables of its steps of a kind."""
        observation = self._played(case, observables)
        self._settle(case, judge(case, observation, observables, self.claims, kind=kind))

    def judge_in_parts(self, case: Case, *observables: str, values: int = 2**22) -> None:
        """Play a case of one forward, and judge the named observables of some channels after the others.

        For inputs of gigabytes: parts have so many ``values``, and the output is judged where it
        lies.
        """
        observation = play(case, self.backend, ())
        verdict = Verdict()
        for some, part, answered in in_parts(case, observation, values):
            where = f" of channels {some.start} to {some.stop - 1}, taken alone"
            verdict.add(judge(part, answered, observables, self.claims), where)
        self._settle(case, verdict)

    def judge_construction(self, case: Case, *tensors: str) -> None:
        """Build the layer of the case and judge the named tensors of its state."""
        self._settle(case, judge_construction(case, play(case, self.backend, (STATES,)), tensors))

    def judge_drift(self, case: Case) -> None:
        """Play the case without looking at the state, and judge the running statistics at its end."""
        self._settle(case, judge_drift(case, play(case, self.backend, ()), self.claims))

    def judge_repetition(self, case: Case) -> None:
        """Play the case on two layers, one after the other, and judge whether they answer the same."""
        self._settle(
            case, judge_repetition(*(play(case, self.backend, (STATES,)) for _ in range(2)))
        )

    def judge_threads(self, case: Case, *observables: str) -> None:
        """Play the case and its opposite in two threads at a time, and judge the named observables of both."""
        both = case, negated(case)
        for one, observation in zip(both, play_together(both, self.backend), strict=True):
            note = "while another layer was driven by another thread, with the numbers of opposite signs"
            self._settle(one, judge(one, observation, observables, self.claims), note)

    def _played(self, case: Case, observables: tuple[str, ...]) -> Observation:
        """Play the case, and look at what is to be judged."""
        return play(case, self.backend, LOOKS if OF_MEMORY.intersection(observables) else (STATES,))

    def _settle(self, case: Case, verdict: Verdict, note: str = "") -> None:
        self.expecting.update(known for known in self.expected_failures if known.where(case))
        if (
            currently_in_test_context()
        ):  # not where a case is played again, or by a specimen to explain it
            self.reached.update(reached(case))
        self.judged += verdict.judged
        self.outside += verdict.outside
        excused = {d.observable for d in verdict.discrepancies if self._known(d, case)}
        for name, share in verdict.shares.items():
            if name not in excused:
                if share > max(self.shares.values(), default=0.0):
                    self.worst_case = case
                self.shares[name] = max(share, self.shares.get(name, 0.0))
        for discrepancy in verdict.discrepancies:
            if known := self._known(discrepancy, case):
                if known not in self.known:
                    self.known.append(known)
            else:
                address, requirement = self.address or self.backend.name, self.prop.requirement
                said = "; ".join(
                    filter(None, (note, self.claims.dialect.departure(requirement.convention)))
                )
                finding = Finding(requirement, self.backend.name, address, case, discrepancy, said)
                raise _violation_of(self.prop.requirement.id, discrepancy.observable)(finding)

    def _known(self, discrepancy: Discrepancy, case: Case) -> KnownFailure | None:
        return next(
            (k for k in self.expected_failures if k.covers(discrepancy.observable, case)), None
        )


def conforms(
    requirement: str,
    *,
    effort: float = 1.0,
    deep: bool = False,
    huge: bool = False,
    dtypes: tuple[str, ...] = tuple(DTYPES),
    reaches: tuple[str, ...] = (),
    **choices: Any,
) -> Callable[[Body], Callable[[Cell], None]]:
    """Declare the property that judges ``requirement``, on cases drawn with ``choices``.

    ``effort``, ``deep``, ``huge``, ``dtypes`` and ``reaches`` are those of :class:`Property`. The
    choices are keyword arguments of :func:`bn_spec.strategies.cases`; the dtype and the claims of
    the backend under test are added to them. The declared function becomes a test that takes the
    cell alone.
    """

    def declare(body: Body) -> Callable[[Cell], None]:
        prop = Property(
            requirement_named(requirement), body, choices, effort, deep, huge, dtypes, reaches
        )
        PROPERTIES.setdefault(requirement, []).append(prop)

        @functools.wraps(body)
        def test(cell: Cell) -> None:
            cell.run()

        test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("cell", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        )
        test.bn_property = prop  # type: ignore[attr-defined]
        return test

    return declare
