"""Few signatures, for backends to which each new one costs seconds: compilers, which specialise to everything.

A *signature* is all that such a backend compiles for: shape and strides of the input, eps,
momentum, which tensors exist, and which require a gradient. A drawn shape is brought to the nearest
of :data:`REPRESENTATIVES`, one for each region of shapes, and the place of that one decides
everything else, so that regions are reached and signatures stay few; values, parameters, statistics
and histories are drawn as freely as ever.
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
"""Two values, small sizes that differ, a single value, edges on each axis (two of channels), a long
reduction, many channels, counts beyond 16 bits, the shape that becomes one of more than 2³¹
elements, and a row."""


@cache
def nearest(shape: Shape) -> int:
    """Return the place of the representative whose sizes are nearest, on a logarithmic scale."""

    def distance(place: int) -> float:
        sizes = zip(shape, REPRESENTATIVES[place], strict=True)
        return sum(abs(log2(size / other)) for size, other in sizes)

    return min(range(len(REPRESENTATIVES)), key=distance)


def fixed(options: Sequence[T], place: int, usual: T | None = None) -> tuple[T, ...]:
    """Return the option that goes with the representative at a place: at every second place the usual one, if any."""
    if usual is not None and usual in options and place % 2 == 0:
        return (usual,)
    return (options[place % len(options)],)
