"""Shapes (N, C, H, W) in a few meaningful regions, the friendliest first.

Faults sit in the tails of blocks (MIOpen#916: 256 < H·W <= 512; apex#1768: C = 65). So sizes just
around powers of two appear on each axis. Friendly shapes hide mixed-up axes, so shapes with four
different sizes appear too.

A region lists its shapes from the smallest to the largest, and a shape is one choice from it.
Hypothesis prefers fewer choices to smaller ones: regions that need several choices would not shrink
into each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations, product
from math import prod
from types import MappingProxyType
from typing import TypeAlias

from bn_spec.strategies.choices import Choose

Shape: TypeAlias = tuple[int, int, int, int]

EDGES = (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 512, 513)
"""Sizes just below, at and above the block sizes of real kernels."""

_PRIMES = (1, 2, 3, 5, 7, 11)
_PLANES = tuple(
    plane
    for edge in EDGES
    for h in (1, 3, 16)
    if edge % h == 0
    for plane in {(h, edge // h), (edge // h, h)}
)


def _smallest_first(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    return tuple(sorted(set(shapes), key=lambda shape: (prod(shape), shape)))


def _cube(largest: int) -> Iterable[Shape]:
    sizes = range(1, largest + 1)
    return product(sizes, sizes, sizes, sizes)


REGIONS: Mapping[str, tuple[Shape, ...]] = MappingProxyType(
    {
        "tiny": _smallest_first(_cube(3)),
        "different": _smallest_first(permutations(_PRIMES, 4)),
        "small": _smallest_first(_cube(8)),
        "spatial edge": _smallest_first(
            (n, c, h, w) for n in (1, 2) for c in (1, 2, 3) for h, w in _PLANES
        ),
        "batch edge": _smallest_first((n, c, 1, w) for n in EDGES for c in (1, 2) for w in (1, 2)),
        "channel edge": _smallest_first(
            (n, c, 1, w) for n in (1, 2, 3) for c in EDGES for w in (1, 2)
        ),
    }
)
"""The shapes of the default regions.

``tiny`` and ``small`` have all shapes up to 3 and up to 8 on each axis, ``different`` four
different sizes. The others have one of :data:`EDGES` as H · W, as N, or as C.
"""

_POWERS = tuple(2**k for k in range(14))

_NETWORKS = {
    "ResNet-50": (
        8,
        ((112, (64,)), (56, (64, 256)), (28, (128, 512)), (14, (256, 1024)), (7, (512, 2048))),
    ),
    "MobileNetV2": (
        4,
        (
            (112, (16, 32, 96)),
            (56, (24, 96, 144)),
            (28, (32, 144, 192)),
            (14, (64, 96, 192, 384, 576)),
            (7, (160, 320, 576, 960, 1280)),
        ),
    ),
    "EfficientNet-B0": (
        4,
        (
            (112, (16, 32, 96)),
            (56, (24, 96, 144)),
            (28, (40, 144, 240)),
            (14, (80, 112, 240, 480, 672)),
            (7, (192, 320, 672, 1152, 1280)),
        ),
    ),
    "U-Net": (
        1,
        ((136, (256,)), (64, (512,)), (28, (1024,)), (100, (256,)), (196, (128,))),
    ),
    "DenseNet-121": (
        4,
        (
            (112, (64,)),
            (56, (64, 96, 128, 160, 192, 224, 256)),
            (28, (128, 160, 256, 384, 480, 512)),
            (14, (128, 256, 288, 512, 736, 992, 1024)),
            (7, (128, 512, 544, 768, 992, 1024)),
        ),
    ),
}
"""Layers of well-known networks: batch size, and the numbers of channels by the size of the plane.

He et al. 2016, Sandler et al. 2018, Tan & Le 2019, Ronneberger et al. 2015 (with normalisation,
without its planes of more than 64 MiB in double precision), Huang et al. 2017.
"""


def _network_shapes() -> Iterator[Shape]:
    for n, planes in _NETWORKS.values():
        for size, channels in planes:
            yield from ((n, c, size, size) for c in channels)


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
        "beyond half": _smallest_first(
            (n, 1, h, w) for n, h, w in ((65537, 1, 1), (2, 256, 256), (1, 300, 301))
        ),
        "beyond 16 bits": _smallest_first(
            (
                (65536, 1, 1, 1),
                (131071, 1, 1, 1),
                (1, 65536, 1, 2),
                (65537, 2, 1, 1),
                (2, 65537, 1, 1),
            )
        ),
        "beyond 32 bits": ((4, 65537, 1, 2),),
        "networks": _smallest_first(_network_shapes()),
        "many channels": tuple((n, c, 1, 1) for c in (512, 2048) for n in (4, 8, 16)),
        "many channels of two values": ((2, 1024, 1, 1), (2, 4096, 1, 1)),
    }
)
"""The shapes of regions that a property must name.

``powers of two`` and ``long`` have long reductions. ``beyond half`` has more values per channel
than float16 can count or sum. ``beyond 16 bits`` has counts beyond 65535. The shape of ``beyond 32
bits`` becomes larger than 2³¹ elements by :func:`bn_spec.strategies.values.beyond_32_bits`, with
few values per channel, or no bound would hold. ``networks`` has the layers of well-known networks.
The last two have as many independent channels as a test of bias needs, and a power of two of values
in each, so that 1 / n is exact.
"""


def shapes(*regions: str, where: Callable[[Shape], bool] = lambda _: True) -> Choose[Shape]:
    """Return a choice of a shape, which shrinks towards the first shape of the first region.

    Args:
        *regions: Keys of :data:`REGIONS` or :data:`LARGE`; by default, all of :data:`REGIONS`.
        where: Only shapes for which this is true are chosen.

    """
    known = {**LARGE, **REGIONS}
    tables = [tuple(filter(where, known[name])) for name in regions or REGIONS]
    return lambda random: random.choice(random.choice(tables))


def with_values(shape: Shape, least: int) -> Shape:
    """Return a shape with N raised until each channel has at least ``least`` values.

    Training needs two values. To raise N is better than to reject the shape: no draw is wasted.
    """
    n, c, h, w = shape
    return (max(n, math.ceil(least / (h * w))), c, h, w)
