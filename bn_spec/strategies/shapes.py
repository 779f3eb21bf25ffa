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


_POWERS = tuple(2**k for k in range(14))

LARGE: Mapping[str, tuple[Shape, ...]] = MappingProxyType(
    {
        "powers of two": _smallest_first(
            (n, c, h, w)
            for c in (1, 2)
            for n, h, w in product(_POWERS, (1, 2, 16, 64), (1, 4, 32))
            if 2 <= n * h * w <= 8192
        ),
        "long": _smallest_first(
            (n, c, h, w)
            for c in (1, 2)
            for n, h, w in (
                (1000, 1, 1),
                (7, 13, 13),
                (1, 45, 45),
                (4097, 1, 1),
                (2, 56, 56),
                (8192, 1, 1),
                (3, 37, 41),
            )
        ),
        "beyond half": _smallest_first((n, 1, h, w) for n, h, w in ((65537, 1, 1), (2, 256, 256), (1, 300, 301))),
        "many channels": tuple((n, c, 1, 1) for c in (512, 2048) for n in (4, 8, 16)),
        "many channels of two values": ((2, 1024, 1, 1), (2, 4096, 1, 1)),
    }
)
"""Regions for properties that ask for them: long reductions, one beyond the range of float16's integers and numbers,
and as many independent channels as a test of bias needs, of a power of two of values, so that 1 / n is exact."""


def shapes(*regions: str) -> st.SearchStrategy[Shape]:
    """Shapes from the named regions (all :data:`REGIONS` by default); shrinks towards the first of the first one."""
    return st.one_of([st.sampled_from(REGIONS.get(name) or LARGE[name]) for name in regions or REGIONS])


def with_values(shape: Shape, least: int) -> Shape:
    """Return ``shape`` with N raised until each channel has at least ``least`` values.

    Training needs two; raising N instead of rejecting the draw keeps every draw useful.
    """
    n, c, h, w = shape
    return (max(n, -(-least // (h * w))), c, h, w)
