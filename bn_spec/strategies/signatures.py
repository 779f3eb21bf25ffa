"""Few signatures, for backends such as compilers to which each new signature costs seconds.

A *signature* is everything for which such a backend compiles code: shape and strides of the input,
eps, momentum, which tensors exist, and which require a gradient.

A drawn shape is replaced by the nearest of :data:`REPRESENTATIVES`, of which each region of shapes
has at least one. The place of the representative decides the rest of the signature. So cases reach
the regions with few signatures. Values, parameters, statistics and histories are drawn as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import log2
from typing import TypeVar

from bn_spec.strategies.shapes import Shape

T = TypeVar("T")

REPRESENTATIVES: tuple[Shape, ...] = (
    (2, 3, 1, 1),
    (4, 3, 5, 7),
    (1, 3, 1, 1),
    (2, 2, 1, 257),
    (2, 33, 1, 2),
    (2, 65, 1, 2),
    (65, 2, 1, 2),
    (2, 1, 56, 56),
    (8, 512, 1, 1),
    (2, 1024, 1, 1),
    (65537, 2, 1, 1),
    (2, 65537, 1, 1),
    (4, 65537, 1, 2),
    (2, 2, 1, 5),
)
"""The shapes that replace all others.

In their order: two values per channel, small sizes that differ, a single value, edges on each axis
(two of channels), a long reduction, many channels (twice), counts beyond 16 bits (twice), the shape
that becomes larger than 2³¹ elements, and a row.
"""


@cache
def nearest(shape: Shape) -> int:
    """Return the place of the representative with the nearest sizes, on a logarithmic scale."""

    def distance(place: int) -> float:
        sizes = zip(shape, REPRESENTATIVES[place], strict=True)
        return sum(abs(log2(size / other)) for size, other in sizes)

    return min(range(len(REPRESENTATIVES)), key=distance)


def fixed(options: Sequence[T], place: int, usual: T | None = None) -> tuple[T, ...]:
    """Return the one option that belongs to the representative at a place.

    Args:
        options: The options.
        place: Place of the representative.
        usual: The option of every second place, if it is among the options.

    """
    if usual is not None and usual in options and place % 2 == 0:
        return (usual,)
    return (options[place % len(options)],)
