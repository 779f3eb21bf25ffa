"""Which catalogued fault explains a failure: one whose specimen fails as the backend does.

The case is played on every faulty specimen that claims it. Those that agree with the backend on all
that was seen, numbers within the bounds, and violate the same requirement by it, then play some
cases near it: of other values, states, eps, momenta and sizes, and with the history twice over. Who
agrees on these as well is named. Two wrong numbers agree if they are no farther apart than right
ones may be, in proportion to their size.

Where a fault amplifies roundings, no two implementations of it agree on numbers, not even the
specimen with itself summing in another order. So if nobody agrees, such specimens are named that
are wrong about the same observables on all of these cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np

from bn_spec.backend.contract import Backend
from bn_spec.backend.needs import is_claimed
from bn_spec.case.arrays import private_copy, same_bits
from bn_spec.case.config import State, initial_state
from bn_spec.case.dtypes import Array, Floats, format_named, is_floating
from bn_spec.case.script import Case, identical
from bn_spec.case.steps import Backward, DoubleBackward, Forward, Restore, Save, Step
from bn_spec.errors import ConfigError
from bn_spec.judge.check import check
from bn_spec.judge.judging import SURVIVAL, steps
from bn_spec.judge.observables.judged_step import JudgedStep
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.observation import Answer, Observation, Oddity
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.sound import SumsRightToLeft
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.pinned import pinned

NEAR = 3
"""Cases of each kind near the one that fails."""

ROUNDINGS = 64
"""Of a result, by which two implementations of one fault may differ beside what bounds allow."""

LARGEST = 2**18
"""Values of a case beyond which nobody is asked: it would take too long."""


def explanations(
    case: Case,
    backend: Backend,
    requirement: str,
    fails: Callable[[Specimen], bool],
    specimens: Iterable[Specimen] | None = None,
) -> list[Specimen] | None:
    """Return the faulty specimens that fail as the backend does, the likeliest first; None of too large a case.

    ``fails`` tells whether a specimen violates the requirement by the case; ``specimens`` are all
    by default. Of those that cannot be told apart, those come first that speak the backend's
    dialect, of these that whose smallest case this is, then those that name the requirement.
    """
    if case.values > LARGEST:
        return None
    known, fails = SPECIMENS.values() if specimens is None else specimens, cache(fails)
    claiming = [s for s in known if not s.sound and is_claimed(case, s.capabilities)]
    near = [*_near(case, sizes=not backend.capabilities.expensive_signatures)]
    alike = [
        s for s in _agreeing(claiming, [case], backend) if fails(s)
    ]  # who agrees is told sooner than who fails
    named = _agreeing(alike, near, backend)
    if not named:
        named = _wrong_alike([s for s in claiming if fails(s)], [case, *near], backend)
    return sorted(named, key=lambda specimen: _rank(specimen, case, requirement, backend))


def explain(cell: Cell, found: Violation) -> Violation:
    """Return the violation with the catalogued faults that fail as the backend does."""
    if found.finding.discrepancy.observable == SURVIVAL:
        return found  # no catalogued fault ends its process
    faults = explanations_of(cell, found)
    named = None if faults is None else tuple(fault.title for fault in faults)
    return type(found)(replace(found.finding, faults=named))


def explanations_of(
    cell: Cell, found: Violation, specimens: Iterable[Specimen] | None = None
) -> list[Specimen] | None:
    """Return the :func:`explanations` of a violation of a cell."""

    def fails(specimen: Backend) -> bool:
        judged = Cell(cell.prop, specimen, cell.dtype)
        return isinstance(judged.violation(found.drawn), type(found))

    return explanations(
        found.finding.case, cell.backend, cell.prop.requirement.id, fails, specimens
    )


def _agreeing(suspects: list[Specimen], cases: list[Case], backend: Backend) -> list[Specimen]:
    """Return those that answer as the backend does in every case."""
    for case in cases:
        if suspects:
            agrees = _agreement(case, play(case, backend), backend.capabilities)
            suspects = [s for s in suspects if agrees(play(case, s))]
    return suspects


def _wrong_alike(suspects: list[Specimen], near: list[Case], backend: Backend) -> list[Specimen]:
    """Return those that amplify roundings and are wrong about the same observables in every case."""
    for case in near:
        if suspects:
            wrong = _wrong(case, backend)
            suspects = [s for s in suspects if _wrong(case, s) == wrong]
    return [s for s in suspects if any(_amplifies_roundings(case, s) for case in near)]


def reordered(specimen: Specimen) -> Specimen:
    """Return a specimen that sums from right to left, unless it has an order of its own."""
    return replace(specimen, kernel=type("Reordered", (specimen.kernel, SumsRightToLeft), {}))


def _amplifies_roundings(case: Case, specimen: Specimen) -> bool:
    return not agree(
        case, play(case, specimen), play(case, reordered(specimen)), specimen.capabilities
    )


def _wrong(case: Case, backend: Backend) -> set[str]:
    return {discrepancy.observable for discrepancy in check(case, backend)}


def _rank(
    specimen: Specimen, case: Case, requirement: str, backend: Backend
) -> tuple[bool, bool, int, str]:
    smallest, names = pinned().get(specimen.name), specimen.caught_by
    place = names.index(requirement) if requirement in names else len(names)
    stranger = specimen.capabilities.dialect != backend.capabilities.dialect
    return stranger, smallest is None or not identical(smallest.case, case), place, specimen.name


# Whether two observations agree ----------------------------------------------------------------------------


def agree(case: Case, one: Observation, other: Observation, claims: Accuracy) -> bool:
    """Whether two observations of a case are those of one implementation, but for roundings that ``claims`` bound."""
    return _agreement(case, one, claims)(other)


@np.errstate(all="ignore")
def _agreement(case: Case, one: Observation, claims: Accuracy) -> Callable[[Observation], bool]:
    """Return what tells of other observations of the case whether they agree with one."""
    judged = [*steps(case, one, claims)]

    @np.errstate(all="ignore")
    def agrees(other: Observation) -> bool:
        if not _built_alike(case, one.initial, other.initial) or len(one.answers) != len(
            other.answers
        ):
            return False
        return all(
            _answers_agree(step, answer)
            for step, answer in zip(judged, other.answers, strict=False)
        )

    return agrees


def _built_alike(case: Case, one: State | Oddity, other: State | Oddity) -> bool:
    """Whether both layers hold what they should, or depart from it in the same tensors, whatever is in these."""
    if not isinstance(one, State) or not isinstance(other, State):
        return type(one) is type(other)
    wanted = case.state or initial_state(case.config)
    return all(
        _form(a) == _form(b) and _same(a, w) == _same(b, w)
        for (_, a), (_, b), (_, w) in zip(one.items(), other.items(), wanted.items(), strict=True)
    )


def _answers_agree(step: JudgedStep, other: Answer) -> bool:
    one, expected = step.answer, step.expected
    given = {"output": expected.output, **expected.results}
    state = {"running_mean": expected.running_mean, "running_var": expected.running_var}
    return (
        _all_close(one.returned(), other.returned(), given)
        and _all_close(_state(one.after), _state(other.after), state)
        and _side_effects(one) == _side_effects(other)
    )


def _all_close(
    one: Mapping[str, object], other: Mapping[str, object], expected: Mapping[str, Bounded | None]
) -> bool:
    return one.keys() == other.keys() and all(
        _close(a, other[name], expected.get(name)) for name, a in one.items()
    )


def _close(one: object, other: object, expected: Bounded | None) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return type(one) is type(other)
    if _form(one) != _form(other):
        return False
    if not is_floating(one.dtype):
        return same_bits(one, other)
    a, b = one.astype(np.float64), other.astype(np.float64)
    room = ROUNDINGS * format_named(one.dtype.name).u * (np.abs(a) + np.abs(b))
    bound = np.zeros(a.shape)
    if expected is not None and expected.bound.shape == a.shape:
        bound = expected.bound
        room = room + 4 * bound * max(_largest(a) / (_largest(expected.value.hi) or np.inf), 1.0)
    return bool(
        ((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= room) | np.isinf(bound)).all()
    )


def _largest(a: Floats) -> float:
    return float(np.abs(a[np.isfinite(a)]).max(initial=0))


def _side_effects(answer: Answer) -> tuple[object, ...]:
    """Return what was written to, at once or later, though it was only handed over or given, and the like."""
    seen = answer.seen()
    at_once = tuple(name for name, (was, now) in answer.handed.items() if not _same(was, now))
    later = tuple(name for name, now in answer.later.items() if not _same(seen[name], now))
    return at_once, later, bool(answer.overrun), set(answer.shared), bool(answer.mode)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return same_bits(a, b)
    return type(a) is type(b)


def _form(a: object) -> object:
    return (a.shape, a.dtype) if isinstance(a, np.ndarray) else type(a)


def _state(state: State | Oddity) -> dict[str, object]:
    return dict(state.items()) if isinstance(state, State) else {"state": state}


# Cases near a case -------------------------------------------------------------------------------------


Change = Callable[[Case, np.random.Generator], Case]


def _near(case: Case, sizes: bool) -> Iterator[Case]:
    """Yield cases near a case: always the same ones."""
    for number, change in enumerate(CHANGES if sizes else CHANGES[:1]):
        for again in range(NEAR):
            try:
                yield change(case, np.random.default_rng((number, again)))
            except ConfigError:
                break


def _other_values(case: Case, rng: np.random.Generator) -> Case:
    """Other inputs and gradients, where they are finite; what was the same stays so."""
    renewed: dict[tuple[object, ...], Array] = {}

    def renew(a: Array) -> Array:
        key = (a.tobytes(), a.shape, a.strides, a.dtype)
        if key not in renewed:
            renewed[key] = _moved(a, rng)
        return renewed[key]

    return replace(case, steps=tuple(_mapped(step, renew) for step in case.steps))


def _other_state(case: Case, rng: np.random.Generator) -> Case:
    """Another state, and other values."""
    held = case.state or initial_state(case.config)
    state = held.map(lambda a: _moved(a, rng) if a.ndim else a)
    if state.running_var is not None:
        state = replace(state, running_var=np.abs(state.running_var))
    return _other_values(replace(case, state=state), rng)


def _other_config(case: Case, rng: np.random.Generator) -> Case:
    """Another eps, and another momentum if there is one; another state, and other values."""
    config = case.config
    momentum = None if config.momentum is None else float(rng.choice((0.1, 0.3, 0.75)))
    config = replace(config, eps=config.eps * float(rng.choice((0.5, 3.0))), momentum=momentum)
    return _other_state(replace(case, config=config), rng)


def _longer(case: Case, rng: np.random.Generator) -> Case:
    """All steps twice, with another state and other values each time."""
    forwards, saves = (
        sum(isinstance(step, kind) for step in case.steps) for kind in (Forward, Save)
    )
    first, second = (_other_state(case, rng) for _ in range(2))
    return replace(
        first, steps=(*first.steps, *(_shifted(step, forwards, saves) for step in second.steps))
    )


def _larger(case: Case, rng: np.random.Generator) -> Case:
    """More samples and pixels, in C order; another state, and other values."""
    times = [(1, 1, 1, 3), (3, 1, 1, 1), (2, 1, 3, 2)][int(rng.integers(3))]

    def enlarge(a: Array) -> Array:
        return np.tile(a, times) if a.ndim == 4 and a.size else a

    return _other_state(
        replace(case, steps=tuple(_mapped(step, enlarge) for step in case.steps)), rng
    )


CHANGES: tuple[Change, ...] = (_other_values, _other_state, _other_config, _longer, _larger)


def _shifted(step: Step, forwards: int, saves: int) -> Step:
    """The step with what it refers to so much later, if it counts from the first."""
    if isinstance(step, Backward | DoubleBackward) and step.of >= 0:
        return replace(step, of=step.of + forwards)
    if isinstance(step, Restore) and step.of >= 0:
        return replace(step, of=step.of + saves)
    return step


def _mapped(step: Any, change: Callable[[Array], Array]) -> Any:
    """The step with each of its arrays changed; a running variance stays one."""
    arrays: dict[str, Any] = {f.name: getattr(step, f.name) for f in fields(step)}
    changed = {
        name: change(a) for name, a in arrays.items() if isinstance(a, np.ndarray) and a.ndim
    }
    if "running_var" in changed:
        changed["running_var"] = np.abs(changed["running_var"])
    return replace(step, **changed) if changed else step


def _moved(a: Array, rng: np.random.Generator) -> Array:
    """Return a copy of an array whose finite elements are moved by about half of how far they are apart."""
    if not is_floating(a.dtype) or not a.size:
        return a
    values: Floats = a.astype(np.float64)
    finite = values[np.isfinite(values)]
    apart = np.ptp(finite) if finite.size else 0.0
    moved = private_copy(a)
    with np.errstate(over="ignore"):
        moved[...] = values + 0.5 * (
            apart or np.abs(finite).max(initial=0) or 1.0
        ) * rng.standard_normal(a.shape)
    return moved
