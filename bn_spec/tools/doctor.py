"""Looks at a backend that does not work yet, or whose maintainer wonders what to claim.

A claim is put to the properties of the suite that judge it, as if it were made, on a few examples
each, beside nothing but what has been found to hold before: so one wrong claim does not spoil the
others. What holds could be claimed; ``bn-spec run`` is the judge. How a kernel computes is another
matter: examples can refute a claim about that and never prove one, so such claims are looked at
only where they are made. The grade is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
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
"""A claim holds; it does not, or nothing works; what is not claimed holds; it does not, or cannot be looked at."""

EXAMPLES = 15
"""Of a property, to see whether a claim holds that is made."""

MORE_EXAMPLES = 40
"""To propose one that is not, and to measure the grade."""


@dataclass(frozen=True)
class Look:
    """What a probe saw: a verdict, a sentence, what to do next, and what to claim where that is something else."""

    verdict: str
    text: str
    todo: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)


class Claiming(Deputy):
    """A backend as if it claimed something else."""

    def __init__(self, backend: Backend, claims: Capabilities) -> None:
        super().__init__(backend)
        self.claims = claims

    @property
    def capabilities(self) -> Capabilities:
        """What it is taken to claim."""
        return self.claims


@dataclass(frozen=True)
class Seen:
    """What a few examples of a property said: what is wrong, or why the backend was not asked, or neither."""

    cell: Cell
    wrong: str = ""
    not_asked: str = ""

    @property
    def holds(self) -> bool:
        """Whether the backend was asked, and nothing is wrong."""
        return not self.wrong and not self.not_asked

    @property
    def told(self) -> str:
        """What is wrong, with the number of the requirement; or why the backend was not asked."""
        return f"{self.cell.prop.requirement.id}: {self.wrong}" if self.wrong else self.not_asked

    @property
    def todo(self) -> str:
        """How to see more of it."""
        return f"bn-spec run {self.cell.address} --requirement {self.cell.prop.requirement.id}"


_LITTLE: Mapping[str, Any] = MappingProxyType(
    {claim.flag: claim.least for claim in CLAIMS.values() if claim.least is not None}
)
"""The least that can be claimed, for claims that decide what is drawn and how it is judged."""


Probe: TypeAlias = Callable[["Patient"], Iterator[Look]]


@dataclass
class Patient:
    """A backend, the name under which it was loaded, and what has been found so far of what can be claimed."""

    backend: Backend
    address: str
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def declared(self) -> Capabilities:
        """What the backend claims today."""
        return self.backend.capabilities

    @property
    def established(self) -> Capabilities:
        """What has been found to hold by now; little else is claimed."""
        layouts = self.declared.layouts[:1]
        return replace(self.declared, **{**_LITTLE, "layouts": layouts, **self.found})

    @property
    def proposed(self) -> Capabilities:
        """What is declared, but for what was found to be otherwise."""
        return replace(self.declared, **self.found)

    def looked_at(self, probe: Probe) -> Iterator[Look]:
        """Yield what a probe sees, and keep what it finds; if it raises, that is all it sees."""
        try:
            for look in probe(self):
                self.found |= look.claims
                yield look
        except Exception as error:  # noqa: BLE001 - whatever ends a run otherwise fails it too
            yield Look(
                PROBLEM, f"raised {type(error).__name__}: {error}", "mend it, and look again"
            )

    def asked(
        self, requirement: str, dtype: str = "", examples: int = EXAMPLES, **claims: Any
    ) -> Seen:
        """Judge a few examples of a property as if this, too, were claimed; whatever is raised is told."""
        prop = replace(PROPERTIES[requirement], effort=1.0, reaches=())
        if layouts := claims.get("layouts"):
            prop = replace(prop, choices=replace(prop.choices, layouts=layouts))
        subject = Claiming(self.backend, replace(self.established, **claims))
        common = [name for name in subject.capabilities.dtypes if name in prop.dtypes]
        dtype = dtype or next(iter([*common, *subject.capabilities.dtypes]))
        cell = Cell(prop, subject, dtype, self.address)
        if reason := cell.not_claimed:
            return Seen(cell, not_asked=reason)
        try:
            Search(cell, PROFILES["smoke"].settings(examples)).examine()
        except Violation as found:
            return Seen(cell, _told(found.finding.discrepancy))
        except Vacuous:
            return Seen(
                cell,
                not_asked=f"{examples} examples of {requirement} have nothing that can be judged",
            )
        except Exception as error:  # noqa: BLE001 - whatever ends a run otherwise fails it too
            return Seen(cell, f"raised {type(error).__name__}: {error}")
        return Seen(cell)

    def asked_all(
        self, requirements: tuple[str, ...], claimed: bool, dtype: str = "", **claims: Any
    ) -> Seen:
        """Ask all that can be asked, until one does not hold, and return what the last one said."""
        said: list[Seen] = []
        for requirement in requirements:
            seen = self.asked(requirement, dtype, EXAMPLES if claimed else MORE_EXAMPLES, **claims)
            if seen.wrong:
                return seen
            said.append(seen)
        return next((seen for seen in reversed(said) if seen.holds), said[-1])


def examination(patient: Patient) -> Iterator[tuple[str, Iterator[Look]]]:
    """Yield the name of each probe and what it sees, to be read before the next, which builds on what it finds.

    If no forward gives anything, the probes that need one are left out.
    """
    load_suite()
    works = True
    for name, probe in PROBES.items():
        if works:
            yield name, patient.looked_at(probe)
        if probe is _forward:
            works = _answers(patient)


def _told(d: Discrepancy) -> str:
    text = d.got if d.got.startswith("raised ") else f"expected {d.expected}; got {d.got}"
    return text.partition("\n")[0]


# What works at all -------------------------------------------------------------------------------------


def _state(patient: Patient) -> Iterator[Look]:
    for dtype in patient.declared.dtypes:
        held = play(Case(Config(3, dtype=dtype)), patient.backend).initial
        if isinstance(held, State):
            yield Look(OK, f"{dtype}: {len(held.tensors())} tensors of a new layer can be read")
        else:
            yield Look(
                PROBLEM,
                f"{dtype}: {held}",
                "layer(config, None) returns a layer; its state(), a bn_spec.State",
            )


_TINY = (
    "output",
    "output_form",
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "state_form",
)


def _tiny(dtype: str) -> Case:
    x = np.array([[[[0, 1]], [[2, -3]]], [[[4, 1]], [[1, 0]]]], dtype_named(dtype).data.dtype)
    return Case(Config(2, dtype=dtype), steps=(Forward(x),))


def _forward(patient: Patient) -> Iterator[Look]:
    for dtype in patient.declared.dtypes:
        case = _tiny(dtype)
        found = judge(case, play(case, patient.backend), _TINY, patient.declared).discrepancies
        if not found:
            yield Look(OK, f"{dtype}: output and running statistics of a tiny batch are right")
        for each in found[:3]:
            (x,) = case.forwards()
            todo = f"a new layer, in training, was handed x = {x.astype(int).tolist()}"
            yield Look(PROBLEM, f"{dtype}: {_told(each)}", todo)


def _answers(patient: Patient) -> bool:
    """Whether a tiny forward gives an array, in some dtype."""
    cases = map(_tiny, patient.declared.dtypes)
    answers = (answer for case in cases for answer in play(case, patient.backend).answers)
    return any(isinstance(answer.output, np.ndarray) for answer in answers)


def _mode(patient: Patient) -> Iterator[Look]:
    seen = patient.asked("NUM-12")
    if seen.wrong:
        yield Look(PROBLEM, seen.told, "set the mode back before a call returns")
    else:
        yield Look(OK, "a call leaves the floating-point mode as it found it")


# What to claim -----------------------------------------------------------------------------------------

_MIXED = tuple(name for name, row in DTYPES.items() if row.parameters != row.data)

_CONVENTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...], Collection[str]], ...] = (
    (("running_var", "averages", "training_output"), ("TRN-02", "RUN-01", "RUN-03"), DTYPES),
    (("single_value",), ("ERR-01", "TRN-10"), DTYPES),
    (("mixed_output",), ("TRN-05",), _MIXED),
)
"""Conventions that can be told from what a backend answers, those together that show in the same
numbers; the requirements that judge them; and the dtypes in which they show."""


def _dialect(patient: Patient) -> Iterator[Look]:
    for names, judges, dtypes in _CONVENTIONS:
        claimed = patient.established.dialect
        dtype = next((name for name in patient.declared.dtypes if name in dtypes), "")
        if not dtype:
            continue
        seen = patient.asked_all(judges, True, dtype)
        if not seen.wrong:
            values = "; ".join(f"{name}: {getattr(claimed, name)}" for name in names)
            yield Look(OK, f"{values}{f' ({seen.told})' if seen.told else ''}")
        elif found := next(
            filter(partial(_speaks, patient, judges, dtype), _others(claimed, names)), None
        ):
            told = [
                f"{name}: {now}, where {was} is claimed"
                for name in names
                for now, was in [(getattr(found, name), getattr(claimed, name))]
                if now != was
            ]
            todo = "a mistake, unless the framework means it so: then it is a dialect, and claimed"
            yield Look(PROBLEM, "; ".join(told), todo, {"dialect": found})
        else:
            yield Look(PROBLEM, f"{', '.join(names)}: {seen.told}", seen.todo)


def _others(claimed: Dialect, names: tuple[str, ...]) -> list[Dialect]:
    """Return the other dialects, those first that differ from what is claimed in the fewest of these conventions."""

    def differing(other: Dialect) -> int:
        return sum(getattr(other, name) != getattr(claimed, name) for name in names)

    values: Iterator[dict[str, Any]] = (
        dict(zip(names, chosen, strict=True))
        for chosen in product(*(KNOWN[name] for name in names))
    )
    return sorted(filter(differing, (replace(claimed, **each) for each in values)), key=differing)


def _speaks(patient: Patient, judges: tuple[str, ...], dtype: str, dialect: Dialect) -> bool:
    return patient.asked_all(judges, False, dtype, dialect=dialect).holds


def _grade(patient: Patient) -> Iterator[Look]:
    claimed, worst = patient.declared.grade, 0
    for dtype in patient.declared.dtypes:
        seen = patient.asked(CLAIMS["grade"].judged_by[0], dtype, MORE_EXAMPLES)
        measured = seen.cell.tally.measured_grade
        if measured not in GRADES:
            worst = len(GRADES) - 1
            yield Look(
                PROBLEM,
                f"{dtype}: {measured or 'none'}; {seen.told}",
                seen.todo,
                {"grade": GRADES[-1]},
            )
            continue
        worst = max(worst, GRADES.index(measured))
        verdicts = {-1: BETTER, 0: OK, 1: PROBLEM}
        verdict = verdicts[int(np.sign(GRADES.index(measured) - GRADES.index(claimed)))]
        wrong = f"; {seen.told}" if seen.wrong else ""
        text = f"{dtype}: {measured}{'' if measured == claimed else f', where {claimed} is claimed'}{wrong}"
        yield Look(verdict, text, seen.todo if verdict == PROBLEM else "", {"grade": GRADES[worst]})


def _dtypes(patient: Patient) -> Iterator[Look]:
    """Whether dtypes hold that are not claimed; of those that are, the forward and the grade have told."""
    if set(patient.declared.dtypes) == set(DTYPES):
        yield Look(OK, "there are none")
    for dtype in DTYPES:
        if dtype not in patient.declared.dtypes:
            more = (*patient.established.dtypes, dtype)
            seen = patient.asked_all(
                ("DTY-01", "TRN-05", "TRN-02", "RUN-01", "RUN-02"), False, dtype, dtypes=more
            )
            yield _of_claim(dtype, False, seen, {"dtypes": more}, {})


_LAYOUTS: Mapping[str, str] = MappingProxyType(
    {"contiguous": "TRN-02", "expanded": "LAY-02", "ambiguous": "LAY-03"}
)
"""The requirements about single layouts; LAY-01 is about all others."""


def _layouts(patient: Patient) -> Iterator[Look]:
    held: tuple[str, ...] = ()
    for layout in LAYOUTS:
        seen = patient.asked(_LAYOUTS.get(layout, "LAY-01"), layouts=(layout,))
        held = (*held, layout) if seen.holds else held
        found = {"layouts": held} if held else {}
        yield _of_claim(layout, layout in patient.declared.layouts, seen, found, found)


def _of_claim(
    label: str, claimed: bool, seen: Seen, holds: Mapping[str, Any], fails: Mapping[str, Any]
) -> Look:
    """Return what to say of a claim that is made or not; ``holds`` and ``fails`` are what has been found then."""
    if seen.holds:
        return Look(OK if claimed else BETTER, label, "", holds)
    if not claimed or not seen.wrong:
        return Look(ABSENT, f"{label} ({seen.told})")
    return Look(
        PROBLEM, f"{label}: {seen.told}", f"mend it, or do not claim it; {seen.todo}", fails
    )


def _flag(claim: Claim) -> Probe:
    """Probe whether a flag holds, by the properties that judge it."""

    def look(patient: Patient) -> Iterator[Look]:
        name = claim.flag
        made: dict[str, Any] = {name: True}
        claimed = getattr(patient.declared, name)
        seen = patient.asked_all(claim.judged_by, claimed, **made)
        yield _of_claim(name, claimed, seen, made, {name: False})

    return look


def _double_backward(patient: Patient) -> Iterator[Look]:
    held: tuple[str, ...] = ()
    for dtype in patient.established.dtypes:
        claimed = dtype in patient.declared.double_backward
        seen = patient.asked_all(
            CLAIMS["double_backward"].judged_by, claimed, dtype, double_backward=(dtype,)
        )
        held = (*held, dtype) if seen.holds else held
        found = {"double_backward": held}
        yield _of_claim(dtype, claimed, seen, found, found)


def _refutable(claim: Claim) -> Probe:
    """Probe whether examples refute a claim about how the kernel computes, if it is made."""

    def look(patient: Patient) -> Iterator[Look]:
        name = claim.flag
        claimed, least = getattr(patient.declared, name), _LITTLE.get(name, False)
        if claimed == least:
            yield Look(ABSENT, f"{name}, which examples cannot prove")
            return
        seen = patient.asked(claim.judged_by[0], **{name: claimed})
        label = name if claimed is True else f"{name} {claimed}"
        yield _of_claim(label, True, seen, {name: claimed}, {name: least})

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
"""Probes of claims that are no plain flags."""


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
"""The probes in their order: each relies on nothing but what the ones before have established."""
