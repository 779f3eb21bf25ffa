"""Test vectors: calls of a BatchNorm2d with their expected results, for other languages.

They come from the suite's own cases: first the pinned cases, then cases drawn by its properties.
Every call comes with all its inputs. So its bounds hold whatever a kernel has returned for earlier
calls.
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
from bn_spec.specification.requirement import Requirement
from bn_spec.strategies.hypothesis_cases import cases_of
from bn_spec.suite.chapters import requirements_matching
from bn_spec.suite.foreign_constants import without_foreign_constants
from bn_spec.suite.pinned import of_requirement
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES, Property

MOST_VALUES = 2**13
"""Maximum number of values of an input; cases with larger inputs are left out."""

DRAWN_FOR_EACH = 5
"""Number of cases that are drawn for each one that is wanted.

Some of them are too large, and others have no call that can be judged.
"""

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class ExpectedResult:
    """The expected result of a call.

    An element ``got`` is right if |got − value| <= bound, or if it is not judged.

    Attributes:
        value: The exact values, rounded to float64.
        bound: The largest error allowed for each element.
        judged: Whether each element is judged.

    """

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
    """A forward or a backward, with its expected results.

    Attributes:
        kind: ``forward`` or ``backward``.
        training: Whether the forward is in training mode.
        eps: eps of the forward.
        momentum: momentum of the forward.
        batches: num_batches_tracked before and after the call, or None if the layer has none.
        tensors: The inputs of the call by name: ``x`` and, where the layer has them, weight, bias
            and the running statistics before the forward; for a backward, also ``dy``.
        expected: The expected results by name.

    """

    kind: str
    training: bool
    eps: float
    momentum: float | None
    batches: tuple[int, int] | None
    tensors: Mapping[str, Array]
    expected: Mapping[str, ExpectedResult]


@dataclass(frozen=True, eq=False)
class Vector:
    """The calls of one case of a requirement.

    Attributes:
        name: Requirement, dtype and a number.
        requirement: The requirement.
        config: What the layer is built with.
        calls: The calls, in their order.

    """

    name: str
    requirement: Requirement
    config: Config
    calls: tuple[Call, ...]


def claims_of(dtypes: Sequence[str], grade: str) -> Capabilities:
    """Return the claims under which a kernel is judged.

    Raises:
        ConfigError: A dtype or the grade is unknown.

    """
    for dtype in dtypes:
        dtype_named(dtype)
    if grade not in GRADES:
        raise ConfigError(allowed("grade", grade, GRADES))
    return Capabilities(dtypes=tuple(dtypes), grade=grade, gradients=True)


def vectors(
    claims: Capabilities, pattern: str = "*", count: int = 3, run_seed: int = 0
) -> Iterator[Vector]:
    """Yield vectors for requirements: their pinned cases, then drawn ones.

    The same arguments give the same vectors, under the same versions of bn-spec and Hypothesis.

    Args:
        claims: The claims under which a kernel is judged; vectors come in each dtype.
        pattern: Glob of the requirements.
        count: Number of drawn cases per requirement and dtype.
        run_seed: Seed of the drawn cases.

    Raises:
        ConfigError: No requirement matches.

    """
    for requirement in requirements_matching(pattern):
        prop = PROPERTIES[requirement.id]
        # The cases of huge and deep properties are too large for a file.
        to_draw = 0 if prop.huge or prop.deep else count
        for dtype in claims.dtypes:
            yield from _of_property(prop, dtype, claims, to_draw, run_seed)


def _of_property(
    prop: Property, dtype: str, claims: Capabilities, count: int, run_seed: int
) -> Iterator[Vector]:
    requirement = prop.requirement
    if dtype not in prop.dtypes or not all(claims.has(flag, dtype) for flag in requirement.needs):
        return
    cases = [pin.case for pin in of_requirement(requirement.id)]
    known = [case for case in cases if case.config.dtype == dtype and is_claimed(case, claims)]
    pinned = _with_calls(known, claims)
    drawn = _with_calls(_drawn(prop, dtype, claims, count, run_seed), claims)
    for number, (case, calls) in enumerate([*pinned, *islice(drawn, count)]):
        yield Vector(f"{requirement.id}/{dtype}/{number}", requirement, case.config, calls)


def _with_calls(
    found: Iterable[Case], claims: Capabilities
) -> Iterator[tuple[Case, tuple[Call, ...]]]:
    """Yield the cases that have calls to judge, with these calls."""
    for case in found:
        calls = _calls(case, claims)
        if calls:
            yield case, calls


def _drawn(
    prop: Property, dtype: str, claims: Capabilities, count: int, run_seed: int
) -> list[Case]:
    """Return cases as the property draws them, without repetitions."""
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


# Calls --------------------------------------------------------------------------------------------


def _calls(case: Case, claims: Capabilities) -> tuple[Call, ...]:
    """Return the forwards and backwards of a case that can be judged; none if it is too large."""
    if any(x.size > MOST_VALUES for x in case.forwards()):
        return ()
    reference = load("bn_spec.backend.adapters.reference_backend:reference")
    observation = play(case, reference, (STATES,))
    calls = []
    for step in steps(case, observation, claims):
        call = _call(step)
        if call is not None and any(e.judged.any() for e in call.expected.values()):
            calls.append(call)
    return tuple(calls)


def _call(step: JudgedStep) -> Call | None:
    asked, expected = step.answer.step, step.expected
    if expected.refusal is not None:
        return None
    if isinstance(asked, Forward) and asked.x.size:
        context = Context(step.config, step.answer.before, step.answer.training, asked)
        return _made("forward", context, {}, _of_forward(step), expected.state)
    if isinstance(asked, Backward) and step.forward is not None and step.forward.step.x.size:
        results: dict[str, ExpectedResult] = {}
        for name in GRADIENTS:
            bounded = expected.results.get(name)
            if bounded is not None:
                results[name] = expected_of(bounded)
        return _made("backward", step.forward, {"dy": asked.dy}, results, step.forward.before)
    return None


def _made(
    kind: str,
    forward: Context,
    more: Mapping[str, Array],
    expected: Mapping[str, ExpectedResult],
    after: State,
) -> Call:
    """Return a call with the tensors that the layer had before its forward, and some more."""
    tensors = forward.before.tensors()
    stored = {name: a for name, a in tensors.items() if name in (*DIFFERENTIABLE, *STATISTICS)}
    first, last = forward.before.num_batches_tracked, after.num_batches_tracked
    batches = None
    if first is not None and last is not None:
        batches = int(first), int(last)
    return Call(
        kind,
        forward.training,
        forward.config.eps,
        forward.config.momentum,
        batches,
        {"x": forward.step.x, **stored, **more},
        expected,
    )


def _of_forward(step: JudgedStep) -> dict[str, ExpectedResult]:
    expected = step.expected
    found: dict[str, ExpectedResult] = {}
    if expected.output is not None:
        found["output"] = expected_of(expected.output)
    for name in STATISTICS:
        bounded, stays = getattr(expected, name), getattr(expected.state, name)
        if bounded is not None:
            found[name] = expected_of(bounded)
        elif stays is not None:
            # A forward that does not move the statistics must leave them exactly as they are.
            value = stays.astype(np.float64)
            found[name] = ExpectedResult(value, np.zeros(value.shape), np.isfinite(value))
    return found


@np.errstate(all="ignore")
def expected_of(bounded: Bounded) -> ExpectedResult:
    """Return a bounded value as an expected result in float64.

    The bound grows by the error of rounding the value to float64, rounded upwards.
    """
    value = bounded.value.hi
    low = np.abs(np.broadcast_to(bounded.value.lo, bounded.bound.shape))
    bound = np.where(low > 0, np.nextafter(bounded.bound + low, np.inf), bounded.bound)
    judged = bounded.inside & np.isfinite(value)
    # Elements that are not judged are 0 with an infinite bound, so that no reader meets a NaN.
    return ExpectedResult(np.where(judged, value, 0.0), np.where(judged, bound, np.inf), judged)
