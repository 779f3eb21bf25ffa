"""Memory layouts: the same values at other addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from ..dtypes import Array
from ..memory import FILLER, Parts, put_together, take_apart


def _ordered(*axes: int) -> Callable[[Array], Array]:
    """Lay the array out in memory in the order of ``axes``, outermost first."""
    back = tuple(int(i) for i in np.argsort(axes))
    return lambda x: x.transpose(axes).copy().transpose(back)


def _sliced(x: Array) -> Array:
    n, c, h, w = x.shape
    view = np.full((n, c, h, 2 * w), FILLER, x.dtype)[..., ::2]
    view[...] = x
    return view


def _cropped(x: Array) -> Array:
    n, c, h, w = x.shape
    view = np.full((n, c, h + 2, w + 3), FILLER, x.dtype)[..., 1:-1, 2:-1]
    view[...] = x
    return view


def _ambiguous(x: Array) -> Array:
    """C order, but for axes of length 1: their stride, on which no address depends, is 1."""
    flat, shape, strides = take_apart(x.copy())
    odd = tuple(1 if length == 1 else stride for length, stride in zip(shape, strides, strict=True))
    return put_together(Parts(flat, shape, odd))


def _expanded(x: Array) -> Array:
    """The first sample, or else the first column, for all: the one layout that does not keep the values."""
    return np.broadcast_to((x[:1] if len(x) > 1 else x[..., :1]).copy(), x.shape)


def spread(a: Array, step: int) -> Array:
    """Lay the values of a tensor (C,) out with a stride of ``step`` elements."""
    view = np.full(step * len(a), FILLER, a.dtype)[::step]
    view[...] = a
    return view


def _split(x: Array) -> Array:
    n, c, h, w = x.shape
    view = np.full((n, c + 1, h, w), FILLER, x.dtype)[:, :c]
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
        "ambiguous": _ambiguous,
        "expanded": _expanded,
    }
)
"""How each layout of :data:`bn_spec.backend.LAYOUTS` places an array (N, C, H, W)."""

USUAL_LAYOUTS = ("contiguous", "channels_last", "permuted", "sliced", "cropped", "split")
"""Layouts for every property; the others are for those about memory."""
