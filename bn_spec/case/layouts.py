"""Memory layouts: the same values at other addresses, one row per layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from bn_spec.case.arrays import FILLER, Parts, gaps, put_together, take_apart
from bn_spec.case.dtypes import Array


def layout_of(a: Array) -> str:
    """Return the name, of :data:`bn_spec.case.layouts.LAYOUTS`, of the layout of an array (N, C, H, W)."""
    if any(stride == 0 and length > 1 for stride, length in zip(a.strides, a.shape, strict=True)):
        return "expanded"
    if a.flags.c_contiguous:
        return (
            "contiguous"
            if a.strides == np.empty_like(a, order="C", subok=False).strides
            else "ambiguous"
        )
    if a.transpose(0, 2, 3, 1).flags.c_contiguous:
        return "channels_last"
    if not gaps(a).size:
        return "permuted"
    if a[0, 0].flags.c_contiguous:
        return "split"
    return "cropped" if a[0, 0, 0].flags.c_contiguous else "sliced"


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


PLACED: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "contiguous": _ordered(0, 1, 2, 3),  # C order, NCHW
        "channels_last": _ordered(0, 2, 3, 1),  # NHWC order
        "permuted": _ordered(3, 2, 1, 0),  # WHCN order
        "sliced": _sliced,  # every second element of a row
        "cropped": _cropped,  # the interior of larger planes: rows are contiguous, planes are not
        "split": _split,  # the first channels of a wider tensor: planes are contiguous, samples not
        "ambiguous": _ambiguous,  # C order with odd strides for axes of length 1
        "expanded": _expanded,  # one sample that stands for all: its stride is 0
    }
)
"""How each layout places an array (N, C, H, W): a function from the values to the placed array."""

LAYOUTS = tuple(PLACED)
"""The names of the memory layouts of an input (N, C, H, W)."""

USUAL_LAYOUTS = ("contiguous", "channels_last", "permuted", "sliced", "cropped", "split")
"""Layouts that every property draws; the others are for properties about memory."""
