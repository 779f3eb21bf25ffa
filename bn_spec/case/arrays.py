"""Strided arrays taken apart and put together: the one place that knows about memory layout.

An array is a flat piece of memory, a shape and strides. Copies, case files and devices move the
flat piece and rebuild the view, so that strides survive wherever an array goes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bn_spec.case.dtypes import Array


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
    strides = tuple([stride // size for stride in array.strides])
    if min(strides, default=0) < 0 or any(map(size.__rmod__, array.strides)):
        raise ValueError(
            f"strides {array.strides} bytes; allowed: whole, non-negative multiples of {size}"
        )
    if array.flags.c_contiguous:  # most are, and this takes a tenth of the time
        flat = array.reshape(-1)
    else:
        flat = np.lib.stride_tricks.as_strided(array, (_extent(array.shape, strides),), (size,))
    return Parts(flat, array.shape, strides)


def put_together(parts: Parts) -> Array:
    """Return the view that ``parts`` describe, on their memory.

    Raises:
        ValueError: the view would reach outside the memory.

    """
    flat, shape, strides = parts
    if min((*shape, *strides), default=0) < 0 or _extent(shape, strides) > flat.size:
        raise ValueError(
            f"shape {shape} with strides {strides} does not fit into {flat.size} elements"
        )
    return np.ndarray(
        shape, flat.dtype, flat, strides=tuple(stride * flat.itemsize for stride in strides)
    )


def private_copy(array: Array) -> Array:
    """Return a copy of ``array`` with the same strides, gaps included, that shares no memory with it."""
    flat, shape, _ = take_apart(array)
    return np.ndarray(shape, flat.dtype, flat.copy(), strides=array.strides)


MARGIN = 64
"""Elements on either side of a fenced copy; a multiple of any alignment that its memory may have."""

FILLER = 12345
"""Fills memory that nobody should read or write; a kernel that reads it is noticed."""


class Fenced:
    """A private copy of an array amid memory that nobody may write to: margins, and the gaps between its elements."""

    def __init__(self, array: Array) -> None:
        flat, shape, _ = take_apart(array)
        self.memory = np.full(flat.size + 2 * MARGIN, FILLER, flat.dtype)
        inner = self.memory[MARGIN:-MARGIN]
        inner[...] = flat
        self.array = np.ndarray(shape, flat.dtype, inner, strides=array.strides)
        self.gaps = gaps(array)
        self.before = self._around()

    def overrun(self) -> bool:
        """Whether anything around the elements has changed since the copy was made."""
        return self._around() != self.before

    def _around(self) -> bytes:
        between = self.memory[MARGIN:-MARGIN][self.gaps]
        return self.memory[:MARGIN].tobytes() + between.tobytes() + self.memory[-MARGIN:].tobytes()


_NOWHERE = np.zeros(0, np.intp)


def gaps(array: Array) -> Array:
    """Return the places, in the memory that an array spans, that are none of its elements."""
    flat, shape, strides = take_apart(array)
    if flat.size == array.size and 0 not in strides:
        return _NOWHERE
    free = np.ones(flat.size, bool)
    put_together(Parts(free, shape, strides))[...] = False
    return np.flatnonzero(free)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays agree in shape, dtype and every bit (NaN equals itself, 0.0 is not -0.0)."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def interchangeable(a: Array, b: Array) -> bool:
    """Whether two arrays agree in every bit and every stride."""
    return a is b or (a.strides == b.strides and same_bits(a, b))


def shown_values(array: Array) -> str:
    """Return the first values in the order of their indices, and the strides if not C order."""
    flat = array.ravel()
    shown = [f"{float(v):.9g}" for v in flat[:12]]
    text = ", ".join(shown) + (f", … {flat.size} values" if flat.size > len(shown) else "")
    strides = "" if array.flags.c_contiguous else f" (strides {take_apart(array).strides})"
    return f"[{text}]{strides}" if array.shape else text


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    if 0 in shape:
        return 0
    return 1 + sum([(length - 1) * stride for length, stride in zip(shape, strides, strict=True)])
