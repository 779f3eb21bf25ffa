"""Values of an input as recipes: a few drawn choices, expanded by NumPy.

Drawing elements one by one costs Hypothesis 35 µs each and shrinks poorly; a recipe costs a handful of choices
whatever the size, and shrinks to a ramp 0, 1, 2, … of scale 1 without offset, which a person can check by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

from ..dtypes import Array, DType, Floats
from .shapes import Shape

Family: TypeAlias = Callable[[np.random.Generator, int, int], Floats]


def _one_hot(rng: np.random.Generator, c: int, n: int) -> Floats:
    rows = np.zeros((c, n))
    rows[np.arange(c), rng.integers(n, size=c)] = 1
    return rows


def _two_valued(rng: np.random.Generator, c: int, n: int) -> Floats:
    low, high = rng.normal(size=(2, c, 1))
    rows: Floats = np.where(rng.random((c, n)) < 0.5, low, high)
    return rows


def _heavy_tailed(rng: np.random.Generator, c: int, n: int) -> Floats:
    rows: Floats = np.sinh(3 * rng.normal(size=(c, n)))
    return rows


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "ramp": lambda _, c, n: np.add.outer(np.arange(c), np.arange(n)).astype(np.float64),
        "small integers": lambda rng, c, n: rng.integers(-4, 5, size=(c, n)).astype(np.float64),
        "gaussian": lambda rng, c, n: rng.normal(size=(c, n)),
        "constant": lambda rng, c, n: np.broadcast_to(rng.normal(size=(c, 1)), (c, n)),
        "one-hot": _one_hot,
        "two-valued": _two_valued,
        "heavy-tailed": _heavy_tailed,
    }
)
"""Families of data of standard deviation about 1, by name: (generator, C, n) to an array (C, n)."""

MIXED = "mixed"
"""A different family in each channel."""

SCALES = (0, 1, -1, 3, -3, 10, -10, 20, -20, 40, -40)
"""Binary exponents of the scale; squares stay within float32's range."""

OFFSETS = (0.0, 1.0, -10.0, 100.0, -1e3, 1e4, 1e6)
"""Offsets in units of the scale, that is of about one standard deviation."""

SEEDS = st.integers(0, 2**16 - 1)


@dataclass(frozen=True)
class Recipe:
    """How to make an input: a family, a binary exponent, an offset in units of the scale, and a seed."""

    family: str
    scale: int
    offset: float
    seed: int

    def make(self, shape: Shape, dtype: DType) -> Array:
        """Return the array (N, C, H, W) that the recipe describes, in C order."""
        n, c, h, w = shape
        rng = np.random.default_rng(self.seed)
        rows = _mixed(rng, c, n * h * w) if self.family == MIXED else FAMILIES[self.family](rng, c, n * h * w)
        scaled = np.ldexp(rows + self.offset, self.scale)
        return scaled.reshape(c, n, h, w).transpose(1, 0, 2, 3).astype(dtype.array, order="C")


def _mixed(rng: np.random.Generator, c: int, n: int) -> Floats:
    names = list(FAMILIES)
    start = int(rng.integers(len(names)))
    rows = [FAMILIES[names[(start + i) % len(names)]](rng, 1, n) for i in range(c)]
    return np.concatenate(rows)


def values(
    families: Sequence[str] = (*FAMILIES, MIXED),
    scales: Sequence[int] = SCALES,
    offsets: Sequence[float] = OFFSETS,
) -> st.SearchStrategy[Recipe]:
    """Recipes from the given families, scales and offsets; shrinks towards the first of each and seed 0."""
    return st.builds(Recipe, st.sampled_from(families), st.sampled_from(scales), st.sampled_from(offsets), SEEDS)


LOUD_SCALE = 20
"""Binary exponent by which the neighbours of channel 0 are louder in :func:`beside_loud_neighbours`."""


def beside_loud_neighbours(x: Array) -> Array:
    """Return ``x`` with every channel but the first scaled up, so that any leak between channels shows."""
    factors = np.ldexp(1.0, np.where(np.arange(x.shape[1]) == 0, 0, LOUD_SCALE)).astype(x.dtype)
    louder: Array = x * factors.reshape(1, -1, 1, 1)
    return louder
