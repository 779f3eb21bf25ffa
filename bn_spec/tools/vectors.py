"""Test vectors: calls of a BatchNorm2d with what they must give, for kernels that Python cannot reach.

They are the suite's own cases: those that show the faults of the catalogue, then others drawn by
its properties. Every call stands for itself, with all that goes into it, so that its bounds hold
whatever the calls before gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from hypothesis import given, seed

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.needs import is_claimed
from bn_spec.backend.registry import load
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array, Bools, Floats, dtype_named
from bn_spec.case.script import Case, identical
from bn_spec.case.steps import DIFFERENTIABLE, GRADIENTS, Backward, Forward
from bn_spec.errors import ConfigError, allowed
from bn_spec.judge.judging import steps
from bn_spec.judge.observables.judged_step import JudgedStep
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import GRADES
from bn_spec.oracle.expectation import Context
from bn_spec.play.observation import STATES
from bn_spec.play.player import play
from bn_spec.specification.requirement import Requirement, requirements_matching
from bn_spec.strategies.hypothesis_cases import cases_of
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.foreign_constants import without_foreign_constants
from bn_spec.suite.pinned import of_requirement
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES, Property

MOST_VALUES = 2**13
"""Of an input; cases of larger ones are left out."""

DRAWN_FOR_EACH = 5
"""Cases that are drawn for each that is asked for: some are too large, others hold no call that can be judged."""

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class Expected:
    """What a call must give, element by element: ``got`` is right where |got − value| <= bound, if it is judged."""

    value: Floats
    bound: Floats
    judged: Bools

    def met(self, got: Array) -> bool:
        """Whether an array of the same shape is right."""
        with np.errstate(all="ignore"):
            right = np.abs(got.astype(np.float64) - self.value) <= self.bound
        return bool(right[self.judged].all())


@dataclass(frozen=True, eq=False)
class Call:
    """A forward, or the backward of one, and what it must give.

    ``tensors`` holds what goes in, by name: the input ``x`` and, as far as the layer has them,
    weight, bias and the running statistics before the forward; ``dy`` for a backward. ``batches``
    is num_batches_tracked before and after the call, None without it.
    """

    kind: str
    training: bool
    eps: float
    momentum: float | None
    batches: tuple[int, int] | None
    tensors: Mapping[str, Array]
    expected: Mapping[str, Expected]


@dataclass(frozen=True, eq=False)
class Vector:
    """The calls of one case, drawn for a requirement."""

    name: str
    requirement: Requirement
    config: Config
    calls: tuple[Call, ...]


def claims_of(dtypes: Sequence[str], grade: str) -> Capabilities:
    """Return what a kernel is taken to claim.

    Raises:
        ConfigError: a dtype or the grade is not known.

    """
    for dtype in dtypes:
        dtype_named(dtype)
    if grade not in GRADES:
        raise ConfigError(allowed("grade", grade, GRADES))
    return Capabilities(dtypes=tuple(dtypes), grade=grade, gradients=True)


def vectors(
    claims: Capabilities, pattern: str = "*", count: int = 3, run_seed: int = 0
) -> Iterator[Vector]:
    """Yield vectors for the requirements that match, in each dtype: the pinned cases and ``count`` drawn ones.

    The same arguments give the same vectors, in the same versions.

    Raises:
        ConfigError: no requirement matches.

    """
    load_suite()
    for requirement in requirements_matching(pattern):
        prop = PROPERTIES[requirement.id]
        to_draw = 0 if prop.huge or prop.deep else count  # these draw cases that are too large
        for dtype in claims.dtypes:
            yield from _of_property(prop, dtype, claims, to_draw, run_seed)


def _of_property(
    prop: Property, dtype: str, claims: Capabilities, count: int, run_seed: int
) -> Iterator[Vector]:
    requirement = prop.requirement
    if dtype not in prop.dtypes or not all(claims.has(flag, dtype) for flag in requirement.needs):
        return
    known = (pin.case for pin in of_requirement(requirement.id) if is_claimed(pin.case, claims))
    pinned = _with_calls((case for case in known if case.config.dtype == dtype), claims)
    drawn = _with_calls(_drawn(prop, dtype, claims, count, run_seed), claims)
    for number, (case, calls) in enumerate([*pinned, *islice(drawn, count)]):
        yield Vector(f"{requirement.id}/{dtype}/{number}", requirement, case.config, calls)


def _with_calls(
    found: Iterable[Case], claims: Capabilities
) -> Iterator[tuple[Case, tuple[Call, ...]]]:
    """Yield those cases that have calls to be judged, with these."""
    return ((case, calls) for case in found if (calls := _calls(case, claims)))


def _drawn(
    prop: Property, dtype: str, claims: Capabilities, count: int, run_seed: int
) -> list[Case]:
    """Return different cases as the property draws them."""
    if not count:
        return []
    found: list[Case] = []

    def keep(case: Case) -> None:
        if not any(identical(case, other) for other in found):
            found.append(case)

    strategy = cases_of(prop.choices, dtype, claims)
    profile = PROFILES["smoke"].settings(count * DRAWN_FOR_EACH)
    with without_foreign_constants():
        seed(f"{run_seed}:{prop.requirement.id}")(profile(given(strategy)(keep)))()
    return found


# Calls -------------------------------------------------------------------------------------------------


def _calls(case: Case, claims: Capabilities) -> tuple[Call, ...]:
    """Return the forwards and backwards of a case that have anything to be judged; none of one that is too large."""
    if any(x.size > MOST_VALUES for x in case.forwards()):
        return ()
    observation = play(
        case, load("bn_spec.backend.adapters.reference_backend:reference"), (STATES,)
    )
    calls = (call for step in steps(case, observation, claims) if (call := _call(step)))
    return tuple(call for call in calls if any(e.judged.any() for e in call.expected.values()))


def _call(step: JudgedStep) -> Call | None:
    asked, expected = step.answer.step, step.expected
    if expected.refusal is not None:
        return None
    if isinstance(asked, Forward) and asked.x.size:
        context = Context(step.config, step.answer.before, step.answer.training, asked)
        return _made("forward", context, {}, _of_forward(step), expected.state)
    if isinstance(asked, Backward) and step.forward is not None and step.forward.step.x.size:
        results = {
            name: _judged(b) for name in GRADIENTS if (b := expected.results.get(name)) is not None
        }
        return _made("backward", step.forward, {"dy": asked.dy}, results, step.forward.before)
    return None


def _made(
    kind: str,
    forward: Context,
    more: Mapping[str, Array],
    expected: Mapping[str, Expected],
    after: State,
) -> Call:
    held = {
        name: a
        for name, a in forward.before.tensors().items()
        if name in (*DIFFERENTIABLE, *STATISTICS)
    }
    counters = forward.before.num_batches_tracked, after.num_batches_tracked
    return Call(
        kind,
        forward.training,
        forward.config.eps,
        forward.config.momentum,
        None if None in counters else (int(counters[0]), int(counters[1])),  # type: ignore[arg-type]
        {"x": forward.step.x, **held, **more},
        expected,
    )


def _of_forward(step: JudgedStep) -> dict[str, Expected]:
    expected, found = step.expected, dict[str, Expected]()
    if expected.output is not None:
        found["output"] = _judged(expected.output)
    for name in STATISTICS:
        bounded, stays = getattr(expected, name), getattr(expected.state, name)
        if bounded is not None:
            found[name] = _judged(bounded)
        elif stays is not None:
            value = stays.astype(np.float64)
            found[name] = Expected(value, np.zeros(value.shape), np.isfinite(value))
    return found


@np.errstate(all="ignore")
def _judged(bounded: Bounded) -> Expected:
    """Return a value in float64; what that rounding costs is added to its bound, upwards."""
    value, low = bounded.value.hi, np.abs(np.broadcast_to(bounded.value.lo, bounded.bound.shape))
    bound = np.where(low > 0, np.nextafter(bounded.bound + low, np.inf), bounded.bound)
    judged = bounded.inside & np.isfinite(value)
    return Expected(np.where(judged, value, 0.0), np.where(judged, bound, np.inf), judged)
