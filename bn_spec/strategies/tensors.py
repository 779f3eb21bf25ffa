"""Parameters and running statistics: styles of per-channel tensors, the plainest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array, DType, Floats, Format

Pair: TypeAlias = tuple[Floats, Floats]
Style: TypeAlias = Callable[[np.random.Generator, int], Pair]


def _distinct(c: int) -> Floats:
    return (
        np.arange(c, dtype=np.float64) % 61 + 2
    )  # small enough for neighbours to differ visibly at any channel count


HUGE = 2.0**670
"""Stands for a weight as large as its format has room for beside ordinary data; see :func:`bounded`."""


def bounded(values: Floats, limits: Format) -> Floats:
    """Return the values with those beyond a format brought to about its largest number to the power of 0.65.

    Squares of data go up to the power of 0.5: weights of that size make products overflow that no
    result needs.
    """
    mantissa, _ = np.frexp(values)
    large = np.isfinite(values) & (np.abs(values) > limits.largest / 4)
    return np.where(large, 2 * mantissa * 2.0 ** round(0.65 * math.log2(limits.largest)), values)


def _cancelling(weight: Floats) -> Pair:
    return weight, -weight


PARAMETERS: Mapping[str, Style] = MappingProxyType(
    {
        "identity": lambda _, c: (np.ones(c), np.zeros(c)),
        "distinct": lambda _, c: (_distinct(c), -1 - _distinct(c)),
        "equal": lambda _, c: (np.full(c, 3.0), np.full(c, 2.0)),
        "signs": lambda _, c: (
            np.resize([-2.0, 0.0, 1.5, -0.5], c),
            np.resize([0.5, -3.0, 0.0], c),
        ),
        "random": lambda rng, c: (rng.normal(size=c), rng.normal(size=c)),
        "loud": lambda rng, c: (1e4 * rng.normal(size=c), 1e4 * rng.normal(size=c)),
        "cancelling": lambda rng, c: _cancelling(rng.choice((-1, 1), c) * (1 + np.arange(c) % 5)),
        "huge": lambda rng, c: (HUGE * (1 + rng.random(c)), np.zeros(c)),
        "minute": lambda rng, c: (2.0**-16 * (1 + rng.random(c)), np.zeros(c)),
    }
)
"""Styles of (weight, bias): ``signs`` has negative and zero weights, ``cancelling`` a bias of minus the weight."""

RUNNING: Mapping[str, Style] = MappingProxyType(
    {
        "initial": lambda _, c: (np.zeros(c), np.ones(c)),
        "distinct": lambda _, c: (_distinct(c), 1 + _distinct(c)),
        "equal": lambda _, c: (np.full(c, 2.0), np.full(c, 3.0)),
        "random": lambda rng, c: (rng.normal(size=c), np.exp(rng.normal(size=c))),
        "large": lambda rng, c: (1e4 * rng.normal(size=c), 1e6 * np.exp(rng.normal(size=c))),
        "small": lambda rng, c: (1e-4 * rng.normal(size=c), 1e-6 * np.exp(rng.normal(size=c))),
        "absurd": lambda _, c: (
            np.resize([np.nan, -np.inf, 3e30], c),
            np.resize([-5.0, np.nan, np.inf], c),
        ),
    }
)
"""Styles of (running_mean, running_var); ``absurd`` is not finite and only for outputs that must not see it."""


def parameters(style: str, rng: np.random.Generator, channels: int, row: DType) -> dict[str, Array]:
    """Return weight and bias of a style, shape (C,), such that their products with data stay within its format."""
    narrower = min(row.parameters, row.data, key=lambda limits: limits.largest)
    return _named(("weight", "bias"), PARAMETERS[style](rng, channels), narrower, row.parameters)


def running_statistics(
    style: str, rng: np.random.Generator, channels: int, row: DType
) -> dict[str, Array]:
    """Return running_mean and running_var of a style, shape (C,)."""
    return _named(
        ("running_mean", "running_var"),
        RUNNING[style](rng, channels),
        row.parameters,
        row.parameters,
    )


def _named(names: tuple[str, str], pair: Pair, limits: Format, held: Format) -> dict[str, Array]:
    return {
        name: bounded(a, limits).astype(held.dtype) for name, a in zip(names, pair, strict=True)
    }


COUNTS = (0, 1, 2, 7, 1000, 2**24, 2**32)
"""Values of num_batches_tracked before a case; the last ones do not fit a float32 or an int32 once incremented."""
