"""Strided arrays taken apart and put together: the one place that knows about memory layout.

An array is a flat piece of memory, a shape and strides. Copies, case files and devices move the flat piece and
rebuild the view, so that strides survive wherever an array goes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .dtypes import Array


class Parts(NamedTuple):
    """A strided array taken apart; ``strides`` count elements."""

    flat: Array
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def take_apart(array: Array) -> Parts:
    """Return the memory that ``array`` spans, gaps included, with its shape and strides.

    Raises:
        ValueError: a stride is negative or not a whole number of elements.

    """
    size = array.itemsize
    if any(stride < 0 or stride % size for stride in array.strides):
        raise ValueError(f"strides {array.strides} bytes; allowed: whole, non-negative multiples of {size}")
    strides = tuple(stride // size for stride in array.strides)
    extent = _extent(array.shape, strides)
    flat = np.lib.stride_tricks.as_strided(array, (extent,), (size,), writeable=False)
    return Parts(flat, array.shape, strides)


def put_together(parts: Parts) -> Array:
    """Return the view that ``parts`` describe, on their memory.

    Raises:
        ValueError: the view would reach outside the memory.

    """
    flat, shape, strides = parts
    if min((*shape, *strides), default=0) < 0 or _extent(shape, strides) > flat.size:
        raise ValueError(f"shape {shape} with strides {strides} does not fit into {flat.size} elements")
    return np.ndarray(shape, flat.dtype, flat, strides=tuple(stride * flat.itemsize for stride in strides))


def private_copy(array: Array) -> Array:
    """Return a copy of ``array`` with the same strides, gaps included, that shares no memory with it."""
    flat, shape, strides = take_apart(array)
    return put_together(Parts(flat.copy(), shape, strides))


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays agree in shape, dtype and every bit (NaN equals itself, 0.0 is not -0.0)."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def interchangeable(a: Array, b: Array) -> bool:
    """Whether two arrays agree in every bit and every stride."""
    return a is b or (a.strides == b.strides and same_bits(a, b))


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    if 0 in shape:
        return 0
    return 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
