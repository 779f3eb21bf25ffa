"""Memory layouts: the same values at other addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from ..dtypes import Array


def _ordered(*axes: int) -> Callable[[Array], Array]:
    """Lay the array out in memory in the order of ``axes``, outermost first."""
    back = tuple(int(i) for i in np.argsort(axes))
    return lambda x: x.transpose(axes).copy().transpose(back)


GAP = 12345
"""Fills the memory between the elements of an input; a kernel that reads it is noticed."""


def _sliced(x: Array) -> Array:
    n, c, h, w = x.shape
    view = np.full((n, c, h, 2 * w), GAP, x.dtype)[..., ::2]
    view[...] = x
    return view


def _cropped(x: Array) -> Array:
    n, c, h, w = x.shape
    view = np.full((n, c, h + 2, w + 3), GAP, x.dtype)[..., 1:-1, 2:-1]
    view[...] = x
    return view


def _split(x: Array) -> Array:
    n, c, h, w = x.shape
    view = np.full((n, c + 1, h, w), GAP, x.dtype)[:, :c]
    view[...] = x
    return view


LAYOUT: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "contiguous": _ordered(0, 1, 2, 3),
        "channels_last": _ordered(0, 2, 3, 1),
        "permuted": _ordered(3, 2, 1, 0),
        "sliced": _sliced,
        "cropped": _cropped,
        "split": _split,
    }
)
"""How each layout of :data:`bn_spec.backend.LAYOUTS` places an array (N, C, H, W)."""
