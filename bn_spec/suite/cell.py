"""A cell: one property, one backend, one dtype. It plays a case, judges it, and keeps a tally.

The body of a property calls the methods of a cell::

    cell.judge(case, "running_var")

:class:`bn_spec.suite.search.Search` looks for a failing case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import TypeAlias

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.known_failure import KnownFailure, known_failures
from bn_spec.case.script import Case, negated
from bn_spec.case.steps import Step
from bn_spec.judge.channels import in_parts
from bn_spec.judge.finding import Finding
from bn_spec.judge.judging import judge, judge_construction, judge_drift, judge_repetition
from bn_spec.judge.observables import looks_at_memory
from bn_spec.judge.verdict import Discrepancy, Verdict
from bn_spec.oracle.bounds import GRADES
from bn_spec.play.observation import LOOKS, STATES, Observation
from bn_spec.play.player import play, play_together
from bn_spec.suite.property import Property
from bn_spec.suite.regions import conditioning, reached
from bn_spec.suite.tally import WORSE, Tally

Steer: TypeAlias = Callable[[float, str], None]
"""Reports to a search how close an example is to failing: a number to increase, and its label."""


class Violation(AssertionError):
    """Raised inside a property when a case yields a finding.

    Each pair of requirement and observable has its own subclass. A shrinker tells failures apart
    by their type, so it keeps shrinking the same failure.
    """

    finding: Finding
    drawn: Case
    """The case that the property received; the property may have judged a variant of it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding
        self.drawn = finding.case


@functools.cache
def _violation_of(requirement: str, observable: str) -> type[Violation]:
    return type(f"Violation of {requirement} ({observable})", (Violation,), {})


@dataclass
class Cell:
    """One property against one backend in one dtype.

    Attributes:
        prop: The property.
        backend: The backend under test.
        dtype: Name of the dtype.
        address: The name by which the backend can be loaded again.
        excused: Known failures from a file, in addition to those that the backend declares.
        tally: Counts and worst values so far.
        steer: Set while a search draws examples. Without it, cases do not count as drawn.

    """

    prop: Property
    backend: Backend
    dtype: str
    address: str = ""
    excused: tuple[KnownFailure, ...] = ()
    tally: Tally = field(default_factory=Tally)
    steer: Steer | None = None

    @property
    def claims(self) -> Capabilities:
        """What the backend claims."""
        return self.backend.capabilities

    @property
    def not_claimed(self) -> str:
        """Why this requirement is not asked of the backend, or an empty string."""
        name, claims = self.backend.name, self.claims
        if self.dtype not in self.prop.dtypes:
            return f"{name} does not claim {' or '.join(self.prop.dtypes)}"
        for flag in self.prop.requirement.needs:
            if not claims.has(flag, self.dtype):
                # Some claims are made by dtype: the flag may be claimed in another one.
                elsewhere = f" in {self.dtype}" if getattr(claims, flag) else ""
                return f"{name} does not claim {flag}{elsewhere}"
        choices = self.prop.choices
        if choices.about_layouts and set(choices.layouts).isdisjoint(claims.layouts):
            return f"{name} does not claim the layout {' or '.join(choices.layouts)}"
        return ""

    @property
    def expected_failures(self) -> list[KnownFailure]:
        """Known failures of this cell: from the file, and those that the backend declares."""
        known = (*self.excused, *known_failures(self.backend))
        return [each for each in known if each.concerns(self.prop.requirement.id, self.dtype)]

    def apart(self, backend: Backend | None = None) -> Cell:
        """Return a copy of this cell with an empty tally, and with another backend if given."""
        return replace(self, backend=backend or self.backend, tally=Tally(), steer=None)

    def violation(self, case: Case) -> Violation | None:
        """Judge one case by the property, and return the violation if there is one."""
        try:
            self.prop.body(self, case)
        except Violation as found:
            found.drawn = case
            return found
        return None

    def judge(self, case: Case, *observables: str) -> None:
        """Play the case and judge the named observables of every step."""
        observation = self._play(case, observables)
        self._settle(case, judge(case, observation, observables, self.claims))

    def measure(self, case: Case, *observables: str) -> None:
        """Judge the case under the bounds of every grade, and steer towards larger errors.

        The claimed grade decides whether the case fails, as in :meth:`judge`.
        """
        observation = self._play(case, observables)
        verdicts = {}
        worst = {}
        for grade in GRADES:
            claims = replace(self.claims, grade=grade)
            verdict = verdicts[grade] = judge(case, observation, observables, claims)
            factors = [discrepancy.factor for discrepancy in verdict.discrepancies]
            worst[grade] = max([0.0, *verdict.shares.values(), *factors])
        self.tally.measure(conditioning(case), worst)
        if self.steer is not None:
            for grade, share in worst.items():
                self.steer(share, f"err/bound of {grade}")
        fitting = [grade for grade in GRADES if not verdicts[grade].discrepancies]
        measured = fitting[0] if fitting else WORSE
        claimed = self.claims.grade
        note = f"claimed grade: {claimed}; measured grade: {measured}"
        self._settle(case, verdicts[claimed], note)

    def judge_steps(self, case: Case, kind: type[Step] | UnionType, *observables: str) -> None:
        """Play the case, and judge the named observables only at steps of one kind."""
        observation = self._play(case, observables)
        self._settle(case, judge(case, observation, observables, self.claims, kind=kind))

    def judge_in_parts(self, case: Case, *observables: str, values: int = 2**22) -> None:
        """Play a case of one forward, and judge the named observables a few channels at a time.

        This is for inputs of gigabytes: the output is not copied as a whole.

        Args:
            case: A case with a single forward.
            *observables: Names of the observables.
            values: Approximate number of elements of each part.

        """
        observation = play(case, self.backend, ())
        verdict = Verdict()
        for channels, part, answers in in_parts(case, observation, values):
            where = f" of channels {channels.start} to {channels.stop - 1}, taken alone"
            verdict.add(judge(part, answers, observables, self.claims), where)
        self._settle(case, verdict)

    def judge_construction(self, case: Case, *tensors: str) -> None:
        """Build the layer of the case and judge the named tensors of its state."""
        observation = play(case, self.backend, (STATES,))
        self._settle(case, judge_construction(case, observation, tensors))

    def judge_drift(self, case: Case) -> None:
        """Play the case without reading the state, and judge the running statistics at its end."""
        observation = play(case, self.backend, ())
        self._settle(case, judge_drift(case, observation, self.claims))

    def judge_repetition(self, case: Case) -> None:
        """Play the case on two layers, one after the other, and judge whether the answers agree."""
        first = play(case, self.backend, (STATES,))
        second = play(case, self.backend, (STATES,))
        self._settle(case, judge_repetition(first, second))

    def judge_threads(self, case: Case, *observables: str) -> None:
        """Play the case and its negative in two threads at the same time, and judge both."""
        both = case, negated(case)
        note = "while another thread drove another layer, with numbers of the opposite sign"
        for one, observation in zip(both, play_together(both, self.backend), strict=True):
            self._settle(one, judge(one, observation, observables, self.claims), note)

    def _play(self, case: Case, observables: tuple[str, ...]) -> Observation:
        """Play the case; watch the memory only if an observable needs it, since that is slow."""
        return play(case, self.backend, LOOKS if looks_at_memory(observables) else (STATES,))

    def _settle(self, case: Case, verdict: Verdict, note: str = "") -> None:
        """Add a verdict to the tally, and raise its first discrepancy that is no known failure."""
        expected = self.expected_failures
        self.tally.eligible.update(known for known in expected if known.where(case))
        if self.steer is not None:
            self.tally.reached.update(reached(case))
        explained_by = [_known(each, case, expected) for each in verdict.discrepancies]
        settled = list(zip(verdict.discrepancies, explained_by, strict=True))
        excused = {discrepancy.observable for discrepancy, known in settled if known}
        self.tally.add(case, verdict, excused)
        for discrepancy, known in settled:
            if known is None:
                raise self._violation_by(discrepancy, case, note)
            self.tally.meet(known)

    def _violation_by(self, discrepancy: Discrepancy, case: Case, note: str) -> Violation:
        requirement = self.prop.requirement
        departure = self.claims.dialect.departure(requirement.convention)
        notes = "; ".join(filter(None, (note, departure)))
        address = self.address or self.backend.name
        finding = Finding(requirement, self.backend.name, address, case, discrepancy, notes)
        return _violation_of(requirement.id, discrepancy.observable)(finding)


def _known(
    discrepancy: Discrepancy, case: Case, expected: list[KnownFailure]
) -> KnownFailure | None:
    """Return the first known failure that covers a discrepancy, if any does."""
    return next((known for known in expected if known.covers(discrepancy.observable, case)), None)
