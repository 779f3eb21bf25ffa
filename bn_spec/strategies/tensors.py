"""Parameters and running statistics: styles of per-channel tensors, the simplest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array, DType, Floats, Format

Pair: TypeAlias = tuple[Floats, Floats]
"""Weight and bias, or running_mean and running_var, shape (C,) each."""

Style: TypeAlias = Callable[[np.random.Generator, int], Pair]
"""Makes a pair for a number of channels."""


def _distinct(c: int) -> Floats:
    # The numbers repeat and stay small: even in half precision, neighbours differ visibly, however
    # many channels there are.
    return np.arange(c, dtype=np.float64) % 61 + 2


HUGE = 2.0**670
"""Placeholder for a weight that is as large as its format allows; see :func:`bounded`."""


def bounded(values: Floats, limits: Format) -> Floats:
    """Return values with those too large for a format replaced by about its maximum ** 0.65.

    Data go up to about the maximum ** 0.5, where squares overflow. With weights of this size, their
    products with data overflow too, although no result needs these products.
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
"""Styles of weight and bias.

``signs`` has negative weights and zeros, ``loud`` large weights, ``cancelling`` a bias that is the
negative of the weight.
"""

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
"""Styles of running_mean and running_var.

``absurd`` is not finite: it is for outputs that must not depend on the running statistics.
"""


def parameters(style: str, rng: np.random.Generator, channels: int, row: DType) -> dict[str, Array]:
    """Return weight and bias of a style, shape (C,) each, bounded by the narrower format."""
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


def _named(names: tuple[str, str], pair: Pair, limits: Format, stored: Format) -> dict[str, Array]:
    """Return two tensors by name, bounded by one format and stored in another."""
    tensors: dict[str, Array] = {}
    for name, values in zip(names, pair, strict=True):
        tensors[name] = bounded(values, limits).astype(stored.dtype)
    return tensors


COUNTS = (0, 1, 2, 7, 1000, 2**24, 2**32)
"""Values of num_batches_tracked before a case.

2²⁴ + 1 does not fit float32, and 2³² does not fit int32.
"""
