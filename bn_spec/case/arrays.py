"""Strided arrays taken apart and put together, so that their strides survive every move.

An array is a flat piece of memory, a shape and strides. Copies, case files and device transfers
move the flat piece, and then rebuild the view on it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bn_spec.case.dtypes import Array


class Parts(NamedTuple):
    """A strided array taken apart.

    Attributes:
        flat: The memory that the array spans, gaps included, as an array of one dimension.
        shape: The length of each axis.
        strides: The stride of each axis, in elements.

    """

    flat: Array
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def take_apart(array: Array) -> Parts:
    """Return the memory that ``array`` spans, its shape and its strides.

    The memory is a view of the array's own, not a copy.

    Raises:
        ValueError: A stride is negative, or not a whole number of elements.

    """
    size = array.itemsize
    strides = tuple([stride // size for stride in array.strides])
    if min(strides, default=0) < 0 or any(map(size.__rmod__, array.strides)):
        raise ValueError(
            f"strides {array.strides} bytes; allowed: whole, non-negative multiples of {size}"
        )
    if array.flags.c_contiguous:
        # Most arrays are, and this takes a tenth of the time.
        flat = array.reshape(-1)
    else:
        flat = np.lib.stride_tricks.as_strided(array, (_extent(array.shape, strides),), (size,))
    return Parts(flat, array.shape, strides)


def put_together(parts: Parts) -> Array:
    """Return the array that ``parts`` describe, as a view of their memory.

    Raises:
        ValueError: The array would reach outside the memory.

    """
    flat, shape, strides = parts
    if min((*shape, *strides), default=0) < 0 or _extent(shape, strides) > flat.size:
        raise ValueError(
            f"shape {shape} with strides {strides} does not fit into {flat.size} elements"
        )
    in_bytes = tuple(stride * flat.itemsize for stride in strides)
    return np.ndarray(shape, flat.dtype, flat, strides=in_bytes)


def private_copy(array: Array) -> Array:
    """Return a copy of ``array`` in memory of its own, with the same strides and gaps."""
    flat, shape, _ = take_apart(array)
    return np.ndarray(shape, flat.dtype, flat.copy(), strides=array.strides)


MARGIN = 64
"""Number of elements on either side of a fenced copy.

It is a multiple of every alignment that the memory of the copy may need.
"""

FILLER = 12345
"""Value of elements in gaps and margins; a kernel that reads them has conspicuous results."""


class Fenced:
    """A private copy of an array, surrounded by memory that a backend must not write to.

    Attributes:
        array: The copy, with the strides of the original.
        memory: The memory of the copy, with :data:`MARGIN` elements of :data:`FILLER` on each side.
        gaps: The places, in the memory that the copy spans, that are not elements of it.
        before: The bytes of the margins and the gaps when the copy was made.

    """

    def __init__(self, array: Array) -> None:
        flat, shape, _ = take_apart(array)
        self.memory = np.full(flat.size + 2 * MARGIN, FILLER, flat.dtype)
        inner = self.memory[MARGIN:-MARGIN]
        inner[...] = flat
        self.array = np.ndarray(shape, flat.dtype, inner, strides=array.strides)
        self.gaps = gaps(array)
        self.before = self._around()

    def overrun(self) -> bool:
        """Return whether the margins or the gaps have changed since the copy was made."""
        return self._around() != self.before

    def _around(self) -> bytes:
        between = self.memory[MARGIN:-MARGIN][self.gaps]
        return self.memory[:MARGIN].tobytes() + between.tobytes() + self.memory[-MARGIN:].tobytes()


_NOWHERE = np.zeros(0, np.intp)


def gaps(array: Array) -> Array:
    """Return the indices of the gaps of an array.

    Returns:
        Indices into the memory that the array spans (:attr:`Parts.flat`) of all elements that do
        not belong to the array.

    """
    flat, shape, strides = take_apart(array)
    if flat.size == array.size and 0 not in strides:
        return _NOWHERE
    free = np.ones(flat.size, bool)
    put_together(Parts(free, shape, strides))[...] = False
    return np.flatnonzero(free)


def same_bits(a: Array, b: Array) -> bool:
    """Return whether two arrays agree in shape, dtype and every bit.

    NaN equals itself if the bits are the same, and 0.0 differs from -0.0.
    """
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def interchangeable(a: Array, b: Array) -> bool:
    """Return whether two arrays agree in shape, dtype, every bit and every stride."""
    return a is b or (a.strides == b.strides and same_bits(a, b))


def shown_values(array: Array) -> str:
    """Return the first 12 values of an array in C order, and its strides if they are different."""
    flat = array.ravel()
    values = [f"{float(v):.9g}" for v in flat[:12]]
    if flat.size > len(values):
        values.append(f"… {flat.size} values")
    text = ", ".join(values)
    if not array.shape:
        return text
    strides = "" if array.flags.c_contiguous else f" (strides {take_apart(array).strides})"
    return f"[{text}]{strides}"


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Return the number of elements from the first to the last one, both and all gaps included."""
    if 0 in shape:
        return 0
    return 1 + sum([(length - 1) * stride for length, stride in zip(shape, strides, strict=True)])
