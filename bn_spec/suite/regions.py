"""Regions of the space of cases, and which of them a case reaches.

What a case reaches is read off its arrays and steps, not off the choices that it was drawn from. A
property may name regions that its cases must reach. If none of its cases does, the property has
shown nothing (see :class:`bn_spec.suite.search.Vacuous`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.case.dtypes import DTYPES, Array, Floats, dtype_named, is_floating
from bn_spec.case.layouts import LAYOUTS, layout_of
from bn_spec.case.script import Case
from bn_spec.case.steps import STEP_KINDS, STEPS, Backward, Forward, config_after

DECADES = range(-8, 9)
"""Exponents of ten that have a region of their own; ratios beyond them count with the last one."""

_HUGE = 2**28
"""Number of elements above which a copy in float64 would take gigabytes."""

_SAMPLED = 64
"""Step, in H and W, at which huge inputs are sampled."""

CONSTANT, NOT_FINITE = "constant channel", "not finite"

_MEANS = {k: f"mean/σ 1e{k}" for k in DECADES}
_VARIANCES = {k: f"var/eps 1e{k}" for k in DECADES}

_COUNTS = {
    1: "{} = 1",
    2: "{} = 2",
    16: "{} 3-16",
    64: "{} 17-64",
    256: "{} 65-256",
    4096: "{} 257-4096",
}
"""Names of regions by the largest number in them; the name of the axis goes into the braces."""

_MANY = "{} > 4096"

_LENGTHS = {1: "1 step", 5: "2-5 steps", 10: "6-10 steps", 20: "11-20 steps"}
_LONG = "> 20 steps"

_MOMENTA = {0.0: "momentum 0", 1.0: "momentum 1", None: "momentum None"}
_BETWEEN = "momentum between"


@dataclass(frozen=True, eq=False)
class _Input:
    """A 4-D floating-point input that is not empty, with the eps of its step."""

    x: Array
    eps: float

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean and biased variance of each channel, in float64; of huge inputs, of a sample."""
        x = self.x
        if x.size >= _HUGE:
            x = x[:, :, ::_SAMPLED, ::_SAMPLED]
        rows = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)
        mean = np.add.reduce(rows, axis=1) / rows.shape[1]
        deviations = rows - mean[:, np.newaxis]
        return mean, np.einsum("cn,cn->c", deviations, deviations) / rows.shape[1]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A case, with the arrays that several axes look at."""

    case: Case

    @cached_property
    def inputs(self) -> list[_Input]:
        """The inputs of the case that a layer may accept."""
        config, found = self.case.config, []
        for step in self.case.steps:
            config = config_after(config, step)
            if isinstance(step, Forward) and _is_batch(step.x) and is_floating(step.x.dtype):
                found.append(_Input(step.x, config.eps))
        return found

    @property
    def gradients(self) -> list[Array]:
        """The gradients dy that the case hands over."""
        steps = (step for step in self.case.steps if isinstance(step, Backward))
        return [step.dy for step in steps if _is_batch(step.dy)]


def _is_batch(array: Array) -> bool:
    return array.ndim == 4 and array.size > 0


@dataclass(frozen=True)
class Axis:
    """One way to divide cases into regions.

    Attributes:
        regions: All regions of the axis.
        of: Returns the regions that a case reaches.

    """

    regions: tuple[str, ...]
    of: Callable[[_Seen], Iterable[str]]


@np.errstate(all="ignore")
def reached(case: Case) -> set[str]:
    """Return the regions, of all axes, that a case reaches."""
    seen = _Seen(case)
    return {region for axis in AXES.values() for region in axis.of(seen)}


@np.errstate(all="ignore")
def conditioning(case: Case) -> str:
    """Return the largest decade of |mean| / σ that a channel reaches, or an empty string."""
    reached_decades = set(_of_means(_Seen(case)))
    for k in reversed(DECADES):
        if _MEANS[k] in reached_decades:
            return _MEANS[k]
    return ""


Wanted: TypeAlias = str | tuple[str, ...]
"""A region that must be reached, or a tuple of regions, one of which is enough."""


def alternatives(wanted: Wanted) -> tuple[str, ...]:
    """Return the regions, any one of which is enough."""
    return (wanted,) if isinstance(wanted, str) else wanted


def decades(axis: str, first: int, last: int) -> tuple[str, ...]:
    """Return the regions of an axis from one exponent of ten to another, both included."""
    return tuple(f"{axis} 1e{k}" for k in range(first, last + 1))


def unreached(
    wanted: Iterable[Wanted], counts: Mapping[str, int], claims: Capabilities, dtype: str
) -> list[Wanted]:
    """Return the wanted regions that no case has reached, although a case could have.

    Args:
        wanted: Regions that must be reached.
        counts: Number of cases that reached each region.
        claims: What the backend claims; a case that needs more is never drawn.
        dtype: Dtype of the cases.

    """
    missed = []
    for each in wanted:
        regions = alternatives(each)
        seen = any(counts.get(region) for region in regions)
        if not seen and any(_reachable(region, claims, dtype) for region in regions):
            missed.append(each)
    return missed


def _reachable(region: str, claims: Capabilities, dtype: str) -> bool:
    """Whether cases in a dtype, for a backend with these claims, can reach a region."""
    if region in LAYOUTS:
        return region in claims.layouts
    claim = _CLAIMS.get(region)
    if claim is not None and not getattr(claims, claim):
        return False
    if region not in _DECADE_OF_MEAN:
        return True
    # Data whose relative spacing is u have no mean far beyond 1 / u standard deviations.
    ratio = 10.0 ** _DECADE_OF_MEAN[region]
    return 20 * ratio * dtype_named(dtype).data.u < 1


_DECADE_OF_MEAN = {name: k for k, name in _MEANS.items()}


_CLAIMS: Mapping[str, str] = MappingProxyType(
    {"momentum None": "cumulative_momentum"}
    | {kind.step.__name__: kind.claim for kind in STEP_KINDS.values() if kind.claim}
)
"""The claims without which no case reaches a region."""


def _decades(names: Mapping[int, str], ratio: Floats) -> set[str]:
    """Return the names of the decades in which the ratios lie; NaN lies in none."""
    exponents = np.minimum(np.maximum(np.floor(np.log10(ratio)), DECADES[0]), DECADES[-1])
    return {names[int(k)] for k in set(exponents.tolist()) if not isnan(k)}


def _of_means(seen: _Seen) -> Iterator[str]:
    for x in seen.inputs:
        mean, var = x.moments
        yield from _decades(_MEANS, np.where(var > 0, np.abs(mean) / np.sqrt(var), np.nan))
        # With a single value per channel, every channel is constant, which says nothing.
        if x.x.size > len(var) and not var.all():
            yield CONSTANT
        if not np.isfinite(mean).all() and not np.isfinite(x.x).all():
            yield NOT_FINITE
    if any(not np.isfinite(dy).all() for dy in seen.gradients):
        yield NOT_FINITE


def _of_variances(seen: _Seen) -> Iterator[str]:
    for x in seen.inputs:
        var = x.moments[1]
        yield from _decades(_VARIANCES, np.where(var > 0, var / x.eps, np.nan))


def _up_to(limits: Mapping[int, str], beyond: str, number: int) -> str:
    """Return the name of the first limit that a number does not exceed."""
    return next((name for limit, name in limits.items() if number <= limit), beyond)


def _counts(name: str, count: Callable[[Array], int]) -> Axis:
    """Return the axis of a number that each input has."""

    def of(seen: _Seen) -> Iterator[str]:
        for each in seen.inputs:
            yield _up_to(_COUNTS, _MANY, count(each.x)).format(name)

    labels = (*_COUNTS.values(), _MANY)
    return Axis(tuple(label.format(name) for label in labels), of)


def _layouts(seen: _Seen) -> Iterator[str]:
    yield from (layout_of(x.x) for x in seen.inputs)
    yield from (layout_of(dy) for dy in seen.gradients)


def _momenta(seen: _Seen) -> Iterator[str]:
    config = seen.case.config
    yield _MOMENTA.get(config.momentum, _BETWEEN)
    for step in seen.case.steps:
        config = config_after(config, step)
        yield _MOMENTA.get(config.momentum, _BETWEEN)


def _history(seen: _Seen) -> Iterator[str]:
    yield _up_to(_LENGTHS, _LONG, len(seen.case.steps))


def _steps(seen: _Seen) -> Iterator[str]:
    yield from (type(step).__name__ for step in seen.case.steps)


AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "dtype": Axis(tuple(DTYPES), lambda seen: (seen.case.config.dtype,)),
        "mean/σ": Axis((*_MEANS.values(), CONSTANT, NOT_FINITE), _of_means),
        "var/eps": Axis(tuple(_VARIANCES.values()), _of_variances),
        "n": _counts("n", lambda x: x.size // x.shape[1]),
        "C": _counts("C", lambda x: x.shape[1]),
        "layout": Axis(LAYOUTS, _layouts),
        "momentum": Axis((*_MOMENTA.values(), _BETWEEN), _momenta),
        "history": Axis((*_LENGTHS.values(), _LONG), _history),
        "step": Axis(tuple(STEPS), _steps),
    }
)
"""The axes by which cases are divided.

``mean/σ`` and ``var/eps`` have decades of the ratios |mean| / σ and var / eps. ``n`` is the number
of values per channel and ``C`` the number of channels of each input. ``layout`` looks at inputs and
dy. ``history`` is the number of steps, and ``step`` their kinds.
"""

REGIONS: frozenset[str] = frozenset().union(*(axis.regions for axis in AXES.values()))
"""All regions of all axes."""
