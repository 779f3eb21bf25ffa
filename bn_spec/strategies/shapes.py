"""Shapes (N, C, H, W): few, meaningful regions, the friendliest first.

Faults sit in tails (MIOpen#916: 256 < H·W <= 512; apex#1768: C = 65), so sizes just around powers of two appear on
each axis; and friendly shapes hide mixed-up axes, so sizes that all differ appear too.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from hypothesis import strategies as st

Shape: TypeAlias = tuple[int, int, int, int]

EDGES = (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 512, 513)
"""Sizes just below, at and above the block sizes of real kernels."""

_PRIMES = (1, 2, 3, 5, 7, 11)
_EDGE = st.sampled_from(EDGES)
_TWO = st.integers(1, 2)
_THREE = st.integers(1, 3)
_PLANES = tuple((h, w) for edge in EDGES for h in (1, 3, 16) if edge % h == 0 for w in (edge // h,))

REGIONS: Mapping[str, st.SearchStrategy[Shape]] = MappingProxyType(
    {
        "tiny": st.tuples(_THREE, _THREE, _THREE, _THREE),
        "different": st.sampled_from(tuple(itertools.permutations(_PRIMES, 4))),
        "small": st.tuples(*[st.integers(1, 8)] * 4),
        "spatial edge": st.builds(
            lambda n, c, plane, flip: (n, c, *(plane[::-1] if flip else plane)),
            _TWO,
            _THREE,
            st.sampled_from(_PLANES),
            st.booleans(),
        ),
        "batch edge": st.tuples(_EDGE, _TWO, st.just(1), _TWO),
        "channel edge": st.tuples(_THREE, _EDGE, st.just(1), _TWO),
    }
)
"""One strategy per region of shapes; each shrinks towards its smallest sizes."""


def shapes(*regions: str) -> st.SearchStrategy[Shape]:
    """Shapes from the named regions (all of them by default); shrinks towards (1, 1, 1, 1) of the first region."""
    return st.one_of([REGIONS[name] for name in regions or REGIONS])


def with_values(shape: Shape, least: int) -> Shape:
    """Return ``shape`` with N raised until each channel has at least ``least`` values.

    Training needs two; raising N instead of rejecting the draw keeps every draw useful.
    """
    n, c, h, w = shape
    return (max(n, -(-least // (h * w))), c, h, w)
