"""Explains a failure by catalogued faults: those whose specimens fail as the backend does.

The failing case is played on every faulty specimen that claims it. A specimen is a suspect if its
answers agree with the backend's and if it violates the same requirement. The suspects then play
some cases near it: with other values, states, eps, momenta and sizes, and with the history twice
over. The fault of each suspect that agrees on these cases too is an explanation. Two wrong numbers
agree if they are no farther apart than right ones may be, in proportion to their size.

Some faults amplify roundings. No two implementations of such a fault agree on numbers, not even its
specimen with a copy of itself that sums in another order. So if no suspect agrees, the explanations
are the faults of this sort whose specimens are wrong about the same observables on all these cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, TypeAlias

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
"""Number of cases of each kind near the failing one."""

ROUNDINGS = 64
"""Roundings by which two implementations of a fault may differ, in addition to the bounds."""

LARGEST = 2**18
"""Maximum number of values of a case to explain; larger ones would take too long."""


def explanations(
    case: Case,
    backend: Backend,
    requirement: str,
    fails: Callable[[Specimen], bool],
    specimens: Iterable[Specimen] | None = None,
) -> list[Specimen] | None:
    """Return the faulty specimens that fail as the backend does, the likeliest first.

    Specimens that cannot be told apart are ranked: first those of the backend's dialect; among
    these, the one whose pinned case this is; then those that the requirement must catch.

    Args:
        case: The failing case.
        backend: The backend that fails.
        requirement: Id of the violated requirement.
        fails: Whether a specimen violates the requirement on the case.
        specimens: The specimens to compare with; all by default.

    Returns:
        The specimens, or None if the case is too large.

    """
    if case.values > LARGEST:
        return None
    known = SPECIMENS.values() if specimens is None else specimens
    fails = cache(fails)
    claiming = [s for s in known if not s.sound and is_claimed(case, s.capabilities)]
    near = [*near_cases(case, sizes=not backend.capabilities.expensive_signatures)]
    # Whether a specimen agrees is cheaper to find out than whether it fails.
    alike = [s for s in _agreeing(claiming, [case], backend) if fails(s)]
    named = _agreeing(alike, near, backend)
    if not named:
        named = _wrong_alike([s for s in claiming if fails(s)], [case, *near], backend)
    return sorted(named, key=lambda specimen: _rank(specimen, case, requirement, backend))


def explain(cell: Cell, found: Violation) -> Violation:
    """Return the violation with the titles of the catalogued faults that explain it."""
    if found.finding.discrepancy.observable == SURVIVAL:
        # No catalogued fault ends its process.
        return found
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
    """Return the specimens that answer as the backend does in every case."""
    for case in cases:
        if suspects:
            agrees = _agreement(case, play(case, backend), backend.capabilities)
            suspects = [s for s in suspects if agrees(play(case, s))]
    return suspects


def _wrong_alike(suspects: list[Specimen], near: list[Case], backend: Backend) -> list[Specimen]:
    """Return the specimens that amplify roundings and get the same observables wrong each time."""
    for case in near:
        if suspects:
            wrong = _wrong(case, backend)
            suspects = [s for s in suspects if _wrong(case, s) == wrong]
    return [s for s in suspects if any(_amplifies_roundings(case, s) for case in near)]


def reordered(specimen: Specimen) -> Specimen:
    """Return a copy of a specimen that sums from right to left, unless it fixes its own order."""
    return replace(specimen, kernel=type("Reordered", (specimen.kernel, SumsRightToLeft), {}))


def _amplifies_roundings(case: Case, specimen: Specimen) -> bool:
    """Whether a specimen and its reordered copy disagree on a case."""
    one, other = play(case, specimen), play(case, reordered(specimen))
    return not agree(case, one, other, specimen.capabilities)


def _wrong(case: Case, backend: Backend) -> set[str]:
    return {discrepancy.observable for discrepancy in check(case, backend)}


def _rank(
    specimen: Specimen, case: Case, requirement: str, backend: Backend
) -> tuple[bool, bool, int, str]:
    """Return a sort key of a specimen that explains a case: the likeliest is the smallest."""
    smallest, names = pinned().get(specimen.name), specimen.caught_by
    place = names.index(requirement) if requirement in names else len(names)
    other_dialect = specimen.capabilities.dialect != backend.capabilities.dialect
    other_case = smallest is None or not identical(smallest.case, case)
    return other_dialect, other_case, place, specimen.name


# Whether two observations agree -------------------------------------------------------------------


def agree(case: Case, one: Observation, other: Observation, claims: Accuracy) -> bool:
    """Whether two observations of a case differ by no more than roundings.

    Args:
        case: The case.
        one: An observation of it.
        other: Another observation of it.
        claims: Claims that bound the roundings.

    """
    return _agreement(case, one, claims)(other)


@np.errstate(all="ignore")
def _agreement(case: Case, one: Observation, claims: Accuracy) -> Callable[[Observation], bool]:
    """Return a function that says whether another observation of the case agrees with one."""
    judged = [*steps(case, one, claims)]

    @np.errstate(all="ignore")
    def agrees(other: Observation) -> bool:
        if not _built_alike(case, one.initial, other.initial):
            return False
        if len(one.answers) != len(other.answers):
            return False
        pairs = zip(judged, other.answers, strict=False)
        return all(_answers_agree(step, answer) for step, answer in pairs)

    return agrees


def _built_alike(case: Case, one: State | Oddity, other: State | Oddity) -> bool:
    """Whether two new layers agree in the form of each tensor, and in which tensors are wrong.

    The numbers in a wrong tensor may differ.
    """
    if not isinstance(one, State) or not isinstance(other, State):
        return type(one) is type(other)
    wanted = case.state or initial_state(case.config)
    return all(
        _form(a) == _form(b) and _same(a, w) == _same(b, w)
        for (_, a), (_, b), (_, w) in zip(one.items(), other.items(), wanted.items(), strict=True)
    )


def _answers_agree(step: JudgedStep, other: Answer) -> bool:
    one, expected = step.answer, step.expected
    results = {"output": expected.output, **expected.results}
    state = {"running_mean": expected.running_mean, "running_var": expected.running_var}
    return (
        _all_close(one.returned(), other.returned(), results)
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
    """Whether two returned values differ by no more than roundings.

    Each may be wrong. A bound is one of right results, so it grows with wrong ones.
    """
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
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    within = (np.abs(a - b) <= room) | np.isinf(bound)
    return bool((equal | within).all())


def _largest(a: Floats) -> float:
    return float(np.abs(a[np.isfinite(a)]).max(initial=0))


def _side_effects(answer: Answer) -> tuple[object, ...]:
    """Return what a step did beside its results.

    That is: the arrays handed over that it changed, the returned arrays that changed later, writes
    around arrays, results that share memory, and a changed floating-point mode.
    """
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


# Cases near a case --------------------------------------------------------------------------------


CaseChange: TypeAlias = Callable[[Case, np.random.Generator], Case]
"""Returns a case near another one."""


def near_cases(case: Case, sizes: bool) -> Iterator[Case]:
    """Yield cases near a case, always the same ones.

    Args:
        case: The case.
        sizes: Also change the state, eps, momentum, sizes and lengths, and not only values.

    """
    for number, change in enumerate(CHANGES if sizes else CHANGES[:1]):
        for again in range(NEAR):
            try:
                yield change(case, np.random.default_rng((number, again)))
            except ConfigError:
                break


def _other_values(case: Case, rng: np.random.Generator) -> Case:
    """Change inputs and gradients where they are finite; equal arrays stay equal."""
    renewed: dict[tuple[object, ...], Array] = {}

    def renew(a: Array) -> Array:
        key = (a.tobytes(), a.shape, a.strides, a.dtype)
        if key not in renewed:
            renewed[key] = _moved(a, rng)
        return renewed[key]

    return replace(case, steps=tuple(_mapped(step, renew) for step in case.steps))


def _other_state(case: Case, rng: np.random.Generator) -> Case:
    """Change the state and all values."""
    state_before = case.state or initial_state(case.config)
    # The counter has no dimensions: it stays.
    state = state_before.map(lambda a: _moved(a, rng) if a.ndim else a)
    if state.running_var is not None:
        state = replace(state, running_var=np.abs(state.running_var))
    return _other_values(replace(case, state=state), rng)


def _other_config(case: Case, rng: np.random.Generator) -> Case:
    """Change eps, momentum unless it is None, the state and all values."""
    config = case.config
    momentum = None if config.momentum is None else float(rng.choice((0.1, 0.3, 0.75)))
    config = replace(config, eps=config.eps * float(rng.choice((0.5, 3.0))), momentum=momentum)
    return _other_state(replace(case, config=config), rng)


def _longer(case: Case, rng: np.random.Generator) -> Case:
    """Do all steps twice; change the state, and all values each time."""
    forwards = sum(isinstance(step, Forward) for step in case.steps)
    saves = sum(isinstance(step, Save) for step in case.steps)
    first = _other_state(case, rng)
    second = _other_state(case, rng)
    again = [_shifted(step, forwards, saves) for step in second.steps]
    return replace(first, steps=(*first.steps, *again))


def _larger(case: Case, rng: np.random.Generator) -> Case:
    """Repeat samples and pixels, in C order; change the state and all values."""
    times = [(1, 1, 1, 3), (3, 1, 1, 1), (2, 1, 3, 2)][int(rng.integers(3))]

    def enlarge(a: Array) -> Array:
        return np.tile(a, times) if a.ndim == 4 and a.size else a

    enlarged = tuple(_mapped(step, enlarge) for step in case.steps)
    return _other_state(replace(case, steps=enlarged), rng)


CHANGES: tuple[CaseChange, ...] = (_other_values, _other_state, _other_config, _longer, _larger)
"""The changes that lead to cases near a case; the first changes values alone."""


def _shifted(step: Step, forwards: int, saves: int) -> Step:
    """Return a step of the second round, which refers to forwards and checkpoints of that round.

    A negative reference counts from the end and stays as it is.
    """
    if isinstance(step, Backward | DoubleBackward) and step.of >= 0:
        return replace(step, of=step.of + forwards)
    if isinstance(step, Restore) and step.of >= 0:
        return replace(step, of=step.of + saves)
    return step


def _mapped(step: Any, change: Callable[[Array], Array]) -> Any:
    """Return a step with each of its arrays changed."""
    values: dict[str, Any] = {f.name: getattr(step, f.name) for f in fields(step)}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.ndim:
            changed[name] = change(value)
    if "running_var" in changed:
        # A variance is not negative.
        changed["running_var"] = np.abs(changed["running_var"])
    return replace(step, **changed) if changed else step


def _moved(a: Array, rng: np.random.Generator) -> Array:
    """Return a copy of an array, with its finite elements moved by about half of their range."""
    if not is_floating(a.dtype) or not a.size:
        return a
    values: Floats = a.astype(np.float64)
    finite = values[np.isfinite(values)]
    spread = np.ptp(finite) if finite.size else 0.0
    if spread == 0:
        # All equal: move by about half of their size, or of 1 if they are zero.
        spread = np.abs(finite).max(initial=0) or 1.0
    moved = private_copy(a)
    with np.errstate(over="ignore"):
        moved[...] = values + 0.5 * spread * rng.standard_normal(a.shape)
    return moved
