"""Memory layouts: different addresses for the same values, one row per layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from bn_spec.case.arrays import FILLER, Parts, gaps, put_together, take_apart
from bn_spec.case.dtypes import Array


def layout_of(a: Array) -> str:
    """Return the layout of an array (N, C, H, W), one of :data:`LAYOUTS`."""
    if any(stride == 0 and length > 1 for stride, length in zip(a.strides, a.shape, strict=True)):
        return "expanded"
    if a.flags.c_contiguous:
        usual = np.empty_like(a, order="C", subok=False).strides
        return "contiguous" if a.strides == usual else "ambiguous"
    if a.transpose(0, 2, 3, 1).flags.c_contiguous:
        return "channels_last"
    if not gaps(a).size:
        return "permuted"
    if a[0, 0].flags.c_contiguous:
        return "split"
    return "cropped" if a[0, 0, 0].flags.c_contiguous else "sliced"


def _ordered(*axes: int) -> Callable[[Array], Array]:
    """Return a function that orders the memory of an array by ``axes``, outermost first."""
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
    """Return a copy in C order, but with the stride 1 for axes of length 1.

    No address depends on the stride of such an axis.
    """
    flat, shape, strides = take_apart(x.copy())
    odd = tuple(1 if length == 1 else stride for length, stride in zip(shape, strides, strict=True))
    return put_together(Parts(flat, shape, odd))


def _expanded(x: Array) -> Array:
    """Return the first sample N times, or the first column W times if there is one sample.

    Alone among the layouts, this one does not keep the values.
    """
    first = x[:1] if len(x) > 1 else x[..., :1]
    return np.broadcast_to(first.copy(), x.shape)


def spread(a: Array, step: int) -> Array:
    """Return a copy of a tensor (C,) with a stride of ``step`` elements."""
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
        "expanded": _expanded,  # one sample for all: the stride of the samples is 0
    }
)
"""By layout, a function that returns the values of an array (N, C, H, W) in this layout."""

LAYOUTS = tuple(PLACED)
"""The names of the memory layouts of an input (N, C, H, W)."""

USUAL_LAYOUTS = ("contiguous", "channels_last", "permuted", "sliced", "cropped", "split")
"""Names of the layouts that every property draws; properties about memory also draw the others."""
