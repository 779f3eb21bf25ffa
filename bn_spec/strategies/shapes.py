"""Shapes (N, C, H, W): few, meaningful regions, the friendliest first.

Faults sit in tails (MIOpen#916: 256 < H·W <= 512; apex#1768: C = 65), so sizes just around powers of two appear on
each axis; and friendly shapes hide mixed-up axes, so sizes that all differ appear too.

A region is a list from the smallest shape to the largest, and a shape is drawn by one choice from it: Hypothesis
prefers fewer choices to smaller ones, so regions of more choices would not shrink into each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations, product
from math import prod
from types import MappingProxyType
from typing import TypeAlias

from hypothesis import strategies as st

Shape: TypeAlias = tuple[int, int, int, int]

EDGES = (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 512, 513)
"""Sizes just below, at and above the block sizes of real kernels."""

_PRIMES = (1, 2, 3, 5, 7, 11)
_PLANES = tuple(
    plane for edge in EDGES for h in (1, 3, 16) if edge % h == 0 for plane in {(h, edge // h), (edge // h, h)}
)


def _smallest_first(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    return tuple(sorted(shapes, key=lambda shape: (prod(shape), shape)))


def _cube(largest: int) -> Iterable[Shape]:
    sizes = range(1, largest + 1)
    return product(sizes, sizes, sizes, sizes)


REGIONS: Mapping[str, tuple[Shape, ...]] = MappingProxyType(
    {
        "tiny": _smallest_first(_cube(3)),
        "different": _smallest_first(permutations(_PRIMES, 4)),
        "small": _smallest_first(_cube(8)),
        "spatial edge": _smallest_first((n, c, h, w) for n in (1, 2) for c in (1, 2, 3) for h, w in _PLANES),
        "batch edge": _smallest_first((n, c, 1, w) for n in EDGES for c in (1, 2) for w in (1, 2)),
        "channel edge": _smallest_first((n, c, 1, w) for n in (1, 2, 3) for c in EDGES for w in (1, 2)),
    }
)
"""The shapes of each region: one in any place, all different, primes, and edges on each axis."""


def shapes(*regions: str) -> st.SearchStrategy[Shape]:
    """Shapes from the named regions (all of them by default); shrinks towards the first shape of the first region."""
    return st.one_of([st.sampled_from(REGIONS[name]) for name in regions or REGIONS])


def with_values(shape: Shape, least: int) -> Shape:
    """Return ``shape`` with N raised until each channel has at least ``least`` values.

    Training needs two; raising N instead of rejecting the draw keeps every draw useful.
    """
    n, c, h, w = shape
    return (max(n, -(-least // (h * w))), c, h, w)
