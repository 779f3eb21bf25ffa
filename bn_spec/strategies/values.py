"""Values of an input as recipes: a few drawn choices, expanded by NumPy.

To draw elements one by one costs Hypothesis 35 µs each, and they shrink poorly. A recipe takes four
choices, whatever the size of the input. It shrinks to a ramp 0, 1, 2, … of scale 1 without offset,
which you can check by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array, DType, Floats, Format, format_named
from bn_spec.strategies.choices import Choose
from bn_spec.strategies.shapes import Shape

Family: TypeAlias = Callable[[np.random.Generator, int, int], Floats]
"""Makes an array (C, n) from a generator, C and n, the number of values per channel."""


def _balanced(rng: np.random.Generator, c: int, n: int) -> Floats:
    """Return small integers, each with its negative.

    Their sums, and those of their squares, are exact in any order.
    """
    half = rng.integers(1, 5, size=(c, n // 2))
    rows = np.concatenate([half, -half, np.zeros((c, n % 2), int)], axis=1)
    return rng.permuted(rows, axis=1).astype(np.float64)


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
"""Families of data with a standard deviation of about 1."""

BALANCED = "balanced"
"""A family whose sums are exact; not a default, since it hides errors of summation."""

MIXED = "mixed"
"""A different family in each channel."""

SCALES = (0, 1, -1, 3, -3, 10, -10, 20, -20, 40, -40)
"""Binary exponents of the scale; squares stay within float32's range."""

WIDE = (0.4, -0.4, 0.45, -0.45, 0.3, -0.6, 0.47, -0.8, -0.95, -0.2, 0.2)
"""Scales as shares of the exponent range of the data; squares overflow from about 0.5 on."""

BEYOND = (0.52, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9)
"""Scales, as in :data:`WIDE`, at which squares overflow, but few sums do."""

OFFSETS = (0.0, 1.0, -10.0, 100.0, -1e3, 1e4, 1e6)
"""Offsets in units of the scale, which is about one standard deviation."""

SEEDS = range(2**16)
"""Seeds of NumPy's generators."""


@dataclass(frozen=True)
class Recipe:
    """How to make an input.

    Attributes:
        family: A key of :data:`FAMILIES`, or :data:`BALANCED` or :data:`MIXED`.
        scale: A binary exponent (an int), or a share of the exponent range of the data (a float, as
            in :data:`WIDE`).
        offset: Offset in units of the scale.
        seed: Seed of NumPy's generator.

    """

    family: str
    scale: int | float
    offset: float
    seed: int

    def make(self, shape: Shape, dtype: DType) -> Array:
        """Return the array (N, C, H, W) that the recipe describes, in C order.

        A scale outside the range of the data's format is replaced by the nearest one inside.
        """
        n, c, h, w = shape
        rng = np.random.default_rng(self.seed)
        rows = _FAMILIES[self.family](rng, c, n * h * w) + self.offset
        scaled = np.ldexp(rows, _exponent(self.scale, rows, dtype.data))
        return scaled.reshape(c, n, h, w).transpose(1, 0, 2, 3).astype(dtype.data.dtype, order="C")


def _exponent(scale: int | float, rows: Floats, data: Format) -> int:
    """Return the binary exponent by which to scale rows, as far as a format allows."""
    highest = math.frexp(data.largest)[1] - 1
    lowest = math.frexp(data.smallest_subnormal)[1]
    wanted = scale if isinstance(scale, int) else round(scale * highest)
    room = highest - math.frexp(float(np.abs(rows).max(initial=0)))[1]
    return max(min(wanted, room), lowest)


def _mixed(rng: np.random.Generator, c: int, n: int) -> Floats:
    names = list(FAMILIES)
    start = int(rng.integers(len(names)))
    rows = [FAMILIES[names[(start + i) % len(names)]](rng, 1, n) for i in range(c)]
    return np.concatenate(rows)


_FAMILIES: Mapping[str, Family] = MappingProxyType({**FAMILIES, BALANCED: _balanced, MIXED: _mixed})


def values(
    families: Sequence[str] = (*FAMILIES, MIXED),
    scales: Sequence[int | float] = SCALES,
    offsets: Sequence[float] = OFFSETS,
) -> Choose[Recipe]:
    """Return a choice of a recipe, which shrinks towards the first of each sequence and seed 0."""
    return lambda random: Recipe(
        random.choice(families), random.choice(scales), random.choice(offsets), random.choice(SEEDS)
    )


GRADIENT_SCALES = (0, 3, -3, 10, -10, -20)
"""Binary exponents of the scale of gradients."""

GRADIENT_OFFSETS = (0.0, 1.0, -10.0, 1e3)
"""Offsets of gradients, in units of the scale."""


def gradients(
    families: Sequence[str] = (*FAMILIES, MIXED),
    scales: Sequence[int | float] = GRADIENT_SCALES,
    offsets: Sequence[float] = GRADIENT_OFFSETS,
) -> Choose[Recipe]:
    """Return a choice of a recipe for a gradient of the output.

    Its elements have one sign far less often than those of an input. A constant gradient, of which
    nothing is left in training, is one family among others.
    """
    return values(families, scales, offsets)


LOUD_SCALE = 20
"""Binary exponent by which :func:`beside_loud_neighbours` scales channels."""


def beside_loud_neighbours(x: Array) -> Array:
    """Return an input with every channel but the first scaled up, so that leaks into it show."""
    room = _exponent(LOUD_SCALE, x.astype(np.float64), format_named(x.dtype.name))
    louder = np.where(np.arange(x.shape[1]) == 0, 0, room).reshape(1, -1, 1, 1)
    return np.ldexp(x.astype(np.float64), louder).astype(x.dtype)


TILES = 65
"""Number of times that :func:`beyond_32_bits` repeats an input in H and in W."""


def beyond_32_bits(x: Array) -> Array:
    """Return an input repeated in H and W.

    The shape of the region ``beyond 32 bits`` then has more than 2³¹ elements.
    """
    return np.tile(x, (TILES, TILES))


SHIFT = 1000.0
"""Shift of a channel in :func:`one_channel_shifted`, in units of its largest value."""


def one_channel_shifted(x: Array) -> Array:
    """Return an input with its last channel shifted far from zero."""
    shifted = x.copy()
    last = x[:, -1].astype(np.float64)
    largest = float(np.abs(last).max(initial=0))
    room = format_named(x.dtype.name).largest / 4
    shifted[:, -1] = (last + min(SHIFT * largest, room)).astype(x.dtype)
    return shifted
