"""Parameters and running statistics: styles of per-channel tensors, the plainest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from ..dtypes import Floats

Pair: TypeAlias = tuple[Floats, Floats]
Style: TypeAlias = Callable[[np.random.Generator, int], Pair]


def _distinct(c: int) -> Floats:
    return (
        np.arange(c, dtype=np.float64) % 61 + 2
    )  # small enough for neighbours to differ visibly at any channel count


PARAMETERS: Mapping[str, Style] = MappingProxyType(
    {
        "identity": lambda _, c: (np.ones(c), np.zeros(c)),
        "distinct": lambda _, c: (_distinct(c), -1 - _distinct(c)),
        "equal": lambda _, c: (np.full(c, 3.0), np.full(c, 2.0)),
        "signs": lambda _, c: (np.resize([-2.0, 0.0, 1.5, -0.5], c), np.resize([0.5, -3.0, 0.0], c)),
        "random": lambda rng, c: (rng.normal(size=c), rng.normal(size=c)),
        "loud": lambda rng, c: (1e4 * rng.normal(size=c), 1e4 * rng.normal(size=c)),
    }
)
"""Styles of (weight, bias); ``signs`` has negative and zero weights."""

RUNNING: Mapping[str, Style] = MappingProxyType(
    {
        "initial": lambda _, c: (np.zeros(c), np.ones(c)),
        "distinct": lambda _, c: (_distinct(c), 1 + _distinct(c)),
        "equal": lambda _, c: (np.full(c, 2.0), np.full(c, 3.0)),
        "random": lambda rng, c: (rng.normal(size=c), np.exp(rng.normal(size=c))),
        "large": lambda rng, c: (1e4 * rng.normal(size=c), 1e6 * np.exp(rng.normal(size=c))),
        "small": lambda rng, c: (1e-4 * rng.normal(size=c), 1e-6 * np.exp(rng.normal(size=c))),
        "absurd": lambda _, c: (np.resize([np.nan, -np.inf, 3e30], c), np.resize([-5.0, np.nan, np.inf], c)),
    }
)
"""Styles of (running_mean, running_var); ``absurd`` is not finite and only for outputs that must not see it."""

COUNTS = (0, 1, 2, 7, 1000, 2**24, 2**32)
"""Values of num_batches_tracked before a case; the last ones do not fit a float32 or an int32 once incremented."""
