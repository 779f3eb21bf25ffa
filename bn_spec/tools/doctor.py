"""Examines a backend that does not work yet, or that could claim more.

Each claim is judged by the properties of the suite that are about it, on a few examples each, as if
the backend made that claim. Beside it, only what has been found to hold before is claimed, so one
wrong claim does not spoil the others. What holds could be claimed; only ``bn-spec run`` decides.

Claims about how a kernel computes are different: examples can refute such a claim, but never prove
it. So these claims are examined only where the backend makes them. The grade is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from bn_spec.backend.claims import CLAIMS, Capabilities, Claim
from bn_spec.backend.contract import Backend
from bn_spec.backend.proxy import Deputy
from bn_spec.case.config import Config, State
from bn_spec.case.dialect import KNOWN, Dialect
from bn_spec.case.dtypes import DTYPES, dtype_named
from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.script import Case
from bn_spec.case.steps import Forward
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import GRADES
from bn_spec.play.player import play
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search, Vacuous

OK, PROBLEM, BETTER, ABSENT = "ok", "PROBLEM", "could claim", "not claimed"
"""Verdicts of a probe.

``ok``: a claim holds, or something works. ``PROBLEM``: it does not. ``could claim``: what the
backend does not claim holds. ``not claimed``: that does not hold, or cannot be examined.
"""

EXAMPLES = 15
"""Number of examples per property to check a claim that the backend makes."""

MORE_EXAMPLES = 40
"""Number of examples per property to propose a new claim, and to measure the grade."""


@dataclass(frozen=True)
class Look:
    """One result of a probe.

    Attributes:
        verdict: One of :data:`OK`, :data:`PROBLEM`, :data:`BETTER` and :data:`ABSENT`.
        text: What the probe has found.
        todo: What to do next.
        claims: Values of claims that the probe has found to hold.

    """

    verdict: str
    text: str
    todo: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)


class Claiming(Deputy):
    """A backend with other claims."""

    def __init__(self, backend: Backend, claims: Capabilities) -> None:
        super().__init__(backend)
        self.claims = claims

    @property
    def capabilities(self) -> Capabilities:
        """The claims that this proxy makes."""
        return self.claims


@dataclass(frozen=True)
class Outcome:
    """The outcome of a few examples of a property.

    Attributes:
        cell: The cell that was judged.
        wrong: What is wrong, if anything.
        not_asked: Why the property could not be judged, if so.

    """

    cell: Cell
    wrong: str = ""
    not_asked: str = ""

    @property
    def holds(self) -> bool:
        """Whether the property was judged, and nothing is wrong."""
        return not self.wrong and not self.not_asked

    @property
    def text(self) -> str:
        """What is wrong, with the id of the requirement; or why it could not be judged."""
        if self.wrong:
            return f"{self.cell.prop.requirement.id}: {self.wrong}"
        return self.not_asked

    @property
    def todo(self) -> str:
        """The command that shows more."""
        return f"bn-spec run {self.cell.address} --requirement {self.cell.prop.requirement.id}"


_LEAST: Mapping[str, Any] = MappingProxyType(
    {claim.flag: claim.least for claim in CLAIMS.values() if claim.least is not None}
)
"""The weakest values of the claims that decide what is drawn and how it is judged."""


Probe: TypeAlias = Callable[["Patient"], Iterator[Look]]
"""Examines one aspect of a backend."""


@dataclass
class Patient:
    """A backend under examination.

    Attributes:
        backend: The backend.
        address: The name by which it was loaded.
        found: Values of claims that have been found to hold so far.

    """

    backend: Backend
    address: str
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def declared(self) -> Capabilities:
        """What the backend claims."""
        return self.backend.capabilities

    @property
    def established(self) -> Capabilities:
        """What has been found to hold so far, and little else."""
        layouts = self.declared.layouts[:1]
        return replace(self.declared, **{**_LEAST, "layouts": layouts, **self.found})

    @property
    def proposed(self) -> Capabilities:
        """What the backend claims, corrected by what has been found."""
        return replace(self.declared, **self.found)

    def looked_at(self, probe: Probe) -> Iterator[Look]:
        """Yield the results of a probe, and keep the claims that it finds; an error is a result."""
        try:
            for look in probe(self):
                self.found |= look.claims
                yield look
        except Exception as error:  # noqa: BLE001 - an error of the backend is a result
            yield Look(
                PROBLEM,
                f"raised {type(error).__name__}: {error}",
                "fix it, and run the examination again",
            )

    def asked(
        self, requirement: str, dtype: str = "", examples: int = EXAMPLES, **claims: Any
    ) -> Outcome:
        """Judge a few examples of a property, as if the backend made these claims too.

        Args:
            requirement: Id of the requirement.
            dtype: Name of the dtype; by default, the first one in which the property is judged.
            examples: Number of examples.
            **claims: Claims, in addition to those that are established.

        """
        prop = replace(PROPERTIES[requirement], effort=1.0, reaches=())
        layouts = claims.get("layouts")
        if layouts:
            prop = replace(prop, choices=replace(prop.choices, layouts=layouts))
        subject = Claiming(self.backend, replace(self.established, **claims))
        if not dtype:
            common = [name for name in subject.capabilities.dtypes if name in prop.dtypes]
            dtype = [*common, *subject.capabilities.dtypes][0]
        cell = Cell(prop, subject, dtype, self.address)
        if cell.not_claimed:
            return Outcome(cell, not_asked=cell.not_claimed)
        try:
            Search(cell, PROFILES["smoke"].settings(examples)).examine()
        except Violation as found:
            return Outcome(cell, _first_line(found.finding.discrepancy))
        except Vacuous:
            return Outcome(
                cell, not_asked=f"nothing can be judged in {examples} examples of {requirement}"
            )
        except Exception as error:  # noqa: BLE001 - an error of the backend is an outcome
            return Outcome(cell, f"raised {type(error).__name__}: {error}")
        return Outcome(cell)

    def asked_all(
        self, requirements: tuple[str, ...], claimed: bool, dtype: str = "", **claims: Any
    ) -> Outcome:
        """Judge several properties until one is violated.

        Args:
            requirements: Ids of the requirements.
            claimed: Whether the backend makes the claim; if not, more examples are drawn.
            dtype: As for :meth:`asked`.
            **claims: As for :meth:`asked`.

        Returns:
            The outcome with a violation; or else the last one that holds; or else the last one.

        """
        outcomes: list[Outcome] = []
        for requirement in requirements:
            examples = EXAMPLES if claimed else MORE_EXAMPLES
            outcome = self.asked(requirement, dtype, examples, **claims)
            if outcome.wrong:
                return outcome
            outcomes.append(outcome)
        holding = [outcome for outcome in outcomes if outcome.holds]
        return holding[-1] if holding else outcomes[-1]


def examination(patient: Patient) -> Iterator[tuple[str, Iterator[Look]]]:
    """Yield the name of each probe with its results.

    Read the results of a probe before you ask for the next one, which builds on them. If no forward
    returns an output, the probes that need one are left out.
    """
    load_suite()
    works = True
    for name, probe in PROBES.items():
        if works:
            yield name, patient.looked_at(probe)
        if probe is _forward:
            works = _answers(patient)


def _first_line(found: Discrepancy) -> str:
    text = found.got
    if not text.startswith("raised "):
        text = f"expected {found.expected}; got {found.got}"
    return text.partition("\n")[0]


# What works at all --------------------------------------------------------------------------------


def _state(patient: Patient) -> Iterator[Look]:
    for dtype in patient.declared.dtypes:
        state = play(Case(Config(3, dtype=dtype)), patient.backend).initial
        if isinstance(state, State):
            yield Look(OK, f"{dtype}: {len(state.tensors())} tensors of a new layer can be read")
        else:
            todo = "layer(config, None) must return a layer whose state() returns a bn_spec.State"
            yield Look(PROBLEM, f"{dtype}: {state}", todo)


_JUDGED_FIRST = (
    "output",
    "output_form",
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "state_form",
)
"""Observables of the first forward."""


def _tiny(dtype: str) -> Case:
    """Return a case of one forward whose numbers you can check by hand."""
    x = np.array([[[[0, 1]], [[2, -3]]], [[[4, 1]], [[1, 0]]]], dtype_named(dtype).data.dtype)
    return Case(Config(2, dtype=dtype), steps=(Forward(x),))


def _forward(patient: Patient) -> Iterator[Look]:
    for dtype in patient.declared.dtypes:
        case = _tiny(dtype)
        observation = play(case, patient.backend)
        found = judge(case, observation, _JUDGED_FIRST, patient.declared).discrepancies
        if not found:
            yield Look(OK, f"{dtype}: output and running statistics of a tiny batch are right")
        for each in found[:3]:
            (x,) = case.forwards()
            todo = f"the input was x = {x.astype(int).tolist()}, in training on a new layer"
            yield Look(PROBLEM, f"{dtype}: {_first_line(each)}", todo)


def _answers(patient: Patient) -> bool:
    """Whether a tiny forward returns an array, in any dtype."""
    for dtype in patient.declared.dtypes:
        for answer in play(_tiny(dtype), patient.backend).answers:
            if isinstance(answer.output, np.ndarray):
                return True
    return False


def _mode(patient: Patient) -> Iterator[Look]:
    outcome = patient.asked("NUM-12")
    if outcome.wrong:
        yield Look(PROBLEM, outcome.text, "restore the mode before a call returns")
    else:
        yield Look(OK, "a call leaves the floating-point mode as it found it")


# What to claim ------------------------------------------------------------------------------------

_MIXED = tuple(name for name, row in DTYPES.items() if row.parameters != row.data)

_CONVENTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...], Collection[str]], ...] = (
    (("running_var", "averages", "training_output"), ("TRN-02", "RUN-01", "RUN-03"), DTYPES),
    (("single_value",), ("ERR-01", "TRN-10"), DTYPES),
    (("mixed_output",), ("TRN-05",), _MIXED),
)
"""Conventions that the answers of a backend reveal, and how.

Each row has conventions that show in the same numbers, the requirements that judge them, and the
dtypes in which they show.
"""


def _dialect(patient: Patient) -> Iterator[Look]:
    for names, judges, dtypes in _CONVENTIONS:
        dtype = next((name for name in patient.declared.dtypes if name in dtypes), "")
        if dtype:
            yield _conventions(patient, names, judges, dtype)


def _conventions(
    patient: Patient, names: tuple[str, ...], judges: tuple[str, ...], dtype: str
) -> Look:
    """Examine some conventions that show in the same numbers."""
    claimed = patient.established.dialect
    outcome = patient.asked_all(judges, True, dtype)
    if not outcome.wrong:
        text = "; ".join(f"{name}: {getattr(claimed, name)}" for name in names)
        if outcome.text:
            text += f" ({outcome.text})"
        return Look(OK, text)
    for dialect in _others(claimed, names):
        if patient.asked_all(judges, False, dtype, dialect=dialect).holds:
            todo = (
                "a mistake, unless the framework intends it; then claim it as a convention of your"
                " dialect"
            )
            text = _differences(dialect, claimed, names)
            return Look(PROBLEM, text, todo, {"dialect": dialect})
    return Look(PROBLEM, f"{', '.join(names)}: {outcome.text}", outcome.todo)


def _differences(found: Dialect, claimed: Dialect, names: tuple[str, ...]) -> str:
    sentences = []
    for name in names:
        here, there = getattr(found, name), getattr(claimed, name)
        if here != there:
            sentences.append(f"{name}: {here}, where {there} is claimed")
    return "; ".join(sentences)


def _others(claimed: Dialect, names: tuple[str, ...]) -> list[Dialect]:
    """Return the dialects that differ in these conventions, those with few differences first."""

    def differing(other: Dialect) -> int:
        return sum(getattr(other, name) != getattr(claimed, name) for name in names)

    dialects = []
    for values in product(*(KNOWN[name] for name in names)):
        conventions: dict[str, Any] = dict(zip(names, values, strict=True))
        dialects.append(replace(claimed, **conventions))
    return sorted(filter(differing, dialects), key=differing)


def _grade(patient: Patient) -> Iterator[Look]:
    claimed, worst = patient.declared.grade, 0
    for dtype in patient.declared.dtypes:
        outcome = patient.asked(CLAIMS["grade"].judged_by[0], dtype, MORE_EXAMPLES)
        measured = outcome.cell.tally.measured_grade
        if measured not in GRADES:
            worst = len(GRADES) - 1
            text = f"{dtype}: {measured or 'none'}; {outcome.text}"
            yield Look(PROBLEM, text, outcome.todo, {"grade": GRADES[-1]})
            continue
        # The proposed grade must hold in all dtypes. GRADES starts with the best one.
        worst = max(worst, GRADES.index(measured))
        verdict, todo = OK, ""
        text = f"{dtype}: {measured}"
        if measured != claimed:
            text += f", where {claimed} is claimed"
            verdict = BETTER
        if GRADES.index(measured) > GRADES.index(claimed):
            verdict, todo = PROBLEM, outcome.todo
        if outcome.wrong:
            text += f"; {outcome.text}"
        yield Look(verdict, text, todo, {"grade": GRADES[worst]})


_DTYPE_JUDGES = ("DTY-01", "TRN-05", "TRN-02", "RUN-01", "RUN-02")
"""Requirements that a dtype must satisfy to be proposed."""


def _dtypes(patient: Patient) -> Iterator[Look]:
    """Examine the dtypes that are not claimed; other probes examine those that are."""
    if set(patient.declared.dtypes) == set(DTYPES):
        yield Look(OK, "there are none")
    for dtype in DTYPES:
        if dtype not in patient.declared.dtypes:
            more = (*patient.established.dtypes, dtype)
            outcome = patient.asked_all(_DTYPE_JUDGES, False, dtype, dtypes=more)
            yield _of_claim(dtype, False, outcome, {"dtypes": more}, {})


_LAYOUTS: Mapping[str, str] = MappingProxyType(
    {"contiguous": "TRN-02", "expanded": "LAY-02", "ambiguous": "LAY-03"}
)
"""The requirements about single layouts; LAY-01 is about all others."""


def _layouts(patient: Patient) -> Iterator[Look]:
    proven: tuple[str, ...] = ()
    for layout in LAYOUTS:
        outcome = patient.asked(_LAYOUTS.get(layout, "LAY-01"), layouts=(layout,))
        if outcome.holds:
            proven = (*proven, layout)
        found = {"layouts": proven} if proven else {}
        yield _of_claim(layout, layout in patient.declared.layouts, outcome, found, found)


def _of_claim(
    label: str, claimed: bool, outcome: Outcome, holds: Mapping[str, Any], fails: Mapping[str, Any]
) -> Look:
    """Return the result about one claim.

    Args:
        label: How the claim is called.
        claimed: Whether the backend makes it.
        outcome: What the examples have shown.
        holds: Values of claims that are found if it holds.
        fails: Values of claims that are found if it does not.

    """
    if outcome.holds:
        return Look(OK if claimed else BETTER, label, "", holds)
    if not claimed or not outcome.wrong:
        return Look(ABSENT, f"{label} ({outcome.text})")
    todo = f"fix it, or do not claim it; {outcome.todo}"
    return Look(PROBLEM, f"{label}: {outcome.text}", todo, fails)


def _flag(claim: Claim) -> Probe:
    """Return the probe of a flag, which asks the properties that judge it."""

    def look(patient: Patient) -> Iterator[Look]:
        name = claim.flag
        made: dict[str, Any] = {name: True}
        claimed = getattr(patient.declared, name)
        outcome = patient.asked_all(claim.judged_by, claimed, **made)
        yield _of_claim(name, claimed, outcome, made, {name: False})

    return look


def _double_backward(patient: Patient) -> Iterator[Look]:
    proven: tuple[str, ...] = ()
    judges = CLAIMS["double_backward"].judged_by
    for dtype in patient.established.dtypes:
        claimed = dtype in patient.declared.double_backward
        outcome = patient.asked_all(judges, claimed, dtype, double_backward=(dtype,))
        if outcome.holds:
            proven = (*proven, dtype)
        found = {"double_backward": proven}
        yield _of_claim(dtype, claimed, outcome, found, found)


def _refutable(claim: Claim) -> Probe:
    """Return the probe of a claim about how the kernel computes, which examples may refute."""

    def look(patient: Patient) -> Iterator[Look]:
        name = claim.flag
        claimed, least = getattr(patient.declared, name), _LEAST.get(name, False)
        if claimed == least:
            yield Look(ABSENT, f"{name}, which examples cannot prove")
            return
        outcome = patient.asked(claim.judged_by[0], **{name: claimed})
        label = name if claimed is True else f"{name} {claimed}"
        yield _of_claim(label, True, outcome, {name: claimed}, {name: least})

    return look


_SPECIAL: Mapping[str, Probe] = MappingProxyType(
    {
        "dialect": _dialect,
        "layouts": _layouts,
        "grade": _grade,
        "dtypes": _dtypes,
        "double_backward": _double_backward,
    }
)
"""Probes of claims that are more than a flag."""


def _probe_of(claim: Claim) -> Probe:
    if claim.flag in _SPECIAL:
        return _SPECIAL[claim.flag]
    return _flag(claim) if claim.provable else _refutable(claim)


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "state": _state,
        "forward": _forward,
        **{claim.label: _probe_of(claim) for claim in CLAIMS.values() if claim.label},
        "floating-point mode": _mode,
    }
)
"""The probes in their order: each relies only on what earlier probes have established."""
