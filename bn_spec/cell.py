"""A cell: one property, one backend, one dtype. Draw, play, judge, and keep count.

A property of the suite is declared with :func:`conforms` and asks its cell to judge the drawn case::

    @conforms("RUN-03", momentum=st.just(1.0))
    def test_running_var_takes_the_unbiased_variance(cell, case):
        cell.judge(case, "running_var")
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log2
from typing import Any, TypeAlias

from hypothesis import given, seed, settings, target

from .backend import Backend, Capabilities, KnownFailure, known_failures
from .bounds import GRADES
from .case import Case, Step
from .dtypes import DTYPES
from .errors import BnSpecError
from .finding import Finding
from .floating_point import ROUNDING, departures
from .judge import Discrepancy, Verdict, judge, judge_construction
from .play import play
from .profiles import PROFILES
from .requirements import Requirement, requirement_named
from .strategies import cases


class Violation(AssertionError):
    """Raised inside a property by a finding.

    Each requirement and observable has a subclass of its own, so that a shrinker, which tells failures apart by
    their type, keeps the same one.
    """

    finding: Finding

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@functools.cache
def _violation_of(requirement: str, observable: str) -> type[Violation]:
    return type(f"Violation of {requirement} ({observable})", (Violation,), {})


class Vacuous(BnSpecError):
    """A property went through all its examples without judging anything."""


WORSE = "worse than textbook"
"""The measured grade of a kernel that satisfies the bounds of none."""

MANY = 20
"""So many cases on which a known failure is to be expected, without it, say that it is no longer one."""

LEAST_EXAMPLES = 5
"""However little effort a property needs, it looks at so many examples."""

Body: TypeAlias = Callable[["Cell", Case], None]


@dataclass(frozen=True)
class Property:
    """A declared property: the requirement that it judges, its body, and the choices its cases are drawn with.

    ``effort`` is the share of a profile's examples that it needs; a ``deep`` one is for the nightly profile alone;
    one with ``dtypes`` says something about these only.
    """

    requirement: Requirement
    body: Body
    choices: dict[str, Any]
    effort: float = 1.0
    deep: bool = False
    dtypes: tuple[str, ...] = tuple(DTYPES)


PROPERTIES: dict[str, list[Property]] = {}
"""The properties declared so far, by requirement."""


@dataclass
class Cell:
    """One property against one backend in one dtype.

    ``address`` is the name under which the backend was asked for, for people who want to load it again. ``shares``
    holds the worst err / bound by observable, ``grades`` the worst of all under the bounds of each grade;
    ``judged`` and ``outside`` count elements within and outside the domain of the bounds; ``known`` are the known
    failures that were seen, ``expecting`` counts the cases on which each was to be expected.
    """

    prop: Property
    backend: Backend
    dtype: str
    profile: settings = field(default_factory=lambda: PROFILES["ci"].settings())
    seed: int = 0
    address: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    examples: int = 0
    judged: int = 0
    outside: int = 0
    grades: dict[str, float] = field(default_factory=dict)
    known: list[KnownFailure] = field(default_factory=list)
    expecting: Counter[KnownFailure] = field(default_factory=Counter)

    @property
    def claims(self) -> Capabilities:
        """What the backend claims."""
        return self.backend.capabilities

    @property
    def not_claimed(self) -> str:
        """Why the backend does not claim this requirement, or an empty string."""
        for flag in filter(None, self.prop.requirement.needs.split(" and ")):
            claim = getattr(self.claims, flag)
            if not claim:
                return f"{self.backend.name} does not claim {flag}"
            if isinstance(claim, tuple) and self.dtype not in claim:
                return f"{self.backend.name} does not claim {flag} in {self.dtype}"
        return ""

    @property
    def expected_failures(self) -> list[KnownFailure]:
        """The known failures that the backend declares for this requirement."""
        return [
            known for known in known_failures(self.backend) if known.concerns(self.prop.requirement.id, self.dtype)
        ]

    @property
    def no_longer_failing(self) -> list[KnownFailure]:
        """The known failures that were not seen on any of many cases where they are expected.

        One that covers several requirements need not show in each of them.
        """
        if self.examples < self._number_of(PROFILES["ci"].examples):
            return []
        own = [known for known in self.expected_failures if known.requirement == self.prop.requirement.id]
        return [known for known in own if known not in self.known and self.expecting[known] >= self._number_of(MANY)]

    def _number_of(self, examples: int) -> int:
        return min(max(round(examples * self.prop.effort), LEAST_EXAMPLES), examples)

    @property
    def measured_grade(self) -> str:
        """The best grade whose bounds all examples satisfied, :data:`WORSE`, or nothing if none was measured."""
        if not self.grades:
            return ""
        return next((grade for grade in GRADES if self.grades[grade] <= 1), WORSE)

    def examine(self) -> None:
        """Draw cases and judge them; raise :class:`Violation` with the smallest case that fails.

        Raises:
            Violation: a requirement is violated.
            Vacuous: no example judged anything.
            BnSpecError: the arithmetic of this process is not that of IEEE 754, so that nothing can be judged.

        """
        if (odd := departures()) and (self.claims.subnormals or ROUNDING in odd):
            raise BnSpecError(
                f"before any call, this process {' and '.join(odd)}: something loaded or called earlier has changed"
                " its floating-point mode (a library built with -ffast-math, torch.set_flush_denormal); check the"
                " backend in a process without it"
            )

        def check(case: Case) -> None:
            self.examples += 1
            self.prop.body(self, case)

        strategy = cases(dtype=self.dtype, claims=self.claims, **self.prop.choices)
        profile = settings(self.profile, max_examples=self._number_of(self.profile.max_examples))
        search = seed(f"{self.seed}:{self.prop.requirement.id}")(profile(given(strategy)(check)))
        with warnings.catch_warnings():
            # Hypothesis prints every failing case itself; ours are printed by the finding.
            warnings.filterwarnings("ignore", "Generating overly large repr")
            search()
        if not self.judged:
            raise Vacuous(f"{self.prop.requirement.id}: {self.examples} examples, nothing judged")

    def judge(self, case: Case, *observables: str) -> None:
        """Play the case and judge the named observables of every step."""
        self._settle(case, judge(case, play(case, self.backend), observables, self.claims))

    def measure(self, case: Case, *observables: str) -> None:
        """Judge like :meth:`judge`, and note the worst err / bound under every grade, steering towards more of it."""
        observation = play(case, self.backend)
        verdicts = {
            grade: judge(case, observation, observables, replace(self.claims, grade=grade)) for grade in GRADES
        }
        for grade, verdict in verdicts.items():
            worst = max([*verdict.shares.values(), 0.0, *(d.factor for d in verdict.discrepancies)])
            self.grades[grade] = max(worst, self.grades.get(grade, 0.0))
            target(log2(min(max(worst, 2.0**-60), 2.0**60)), label=f"err/bound of {grade}")
        fitting = next((grade for grade, verdict in verdicts.items() if not verdict.discrepancies), WORSE)
        self._settle(case, verdicts[self.claims.grade], f"claimed is {self.claims.grade}; what was got is {fitting}")

    def judge_steps(self, case: Case, kind: type[Step], *observables: str) -> None:
        """Play the case and judge the named observables of its steps of a kind."""
        observation = play(case, self.backend)
        self._settle(case, judge(case, observation, observables, self.claims, kind=kind))

    def judge_construction(self, case: Case, *tensors: str) -> None:
        """Build the layer of the case and judge the named tensors of its state."""
        self._settle(case, judge_construction(case, play(case, self.backend), tensors))

    def _settle(self, case: Case, verdict: Verdict, note: str = "") -> None:
        self.expecting.update(known for known in self.expected_failures if known.where(case))
        self.judged += verdict.judged
        self.outside += verdict.outside
        excused = {d.observable for d in verdict.discrepancies if self._known(d, case)}
        for name, share in verdict.shares.items():
            if name not in excused:
                self.shares[name] = max(share, self.shares.get(name, 0.0))
        for discrepancy in verdict.discrepancies:
            if known := self._known(discrepancy, case):
                if known not in self.known:
                    self.known.append(known)
            else:
                address = self.address or self.backend.name
                finding = Finding(self.prop.requirement, self.backend.name, address, case, discrepancy, note)
                raise _violation_of(self.prop.requirement.id, discrepancy.observable)(finding)

    def _known(self, discrepancy: Discrepancy, case: Case) -> KnownFailure | None:
        return next((k for k in self.expected_failures if k.covers(discrepancy.observable, case)), None)


def conforms(
    requirement: str,
    *,
    effort: float = 1.0,
    deep: bool = False,
    dtypes: tuple[str, ...] = tuple(DTYPES),
    **choices: Any,
) -> Callable[[Body], Callable[[Cell], None]]:
    """Declare the property that judges ``requirement``, on cases drawn with ``choices``.

    ``effort``, ``deep`` and ``dtypes`` are those of :class:`Property`.
    The choices are keyword arguments of :func:`bn_spec.strategies.cases`; the dtype and the claims of the backend
    under test are added to them. The declared function becomes a test that takes the cell alone.
    """

    def declare(body: Body) -> Callable[[Cell], None]:
        prop = Property(requirement_named(requirement), body, choices, effort, deep, dtypes)
        PROPERTIES.setdefault(requirement, []).append(prop)

        @functools.wraps(body)
        def test(cell: Cell) -> None:
            cell.examine()

        test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("cell", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        )
        test.bn_property = prop  # type: ignore[attr-defined]
        return test

    return declare
