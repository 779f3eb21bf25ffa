"""Arrays as short text."""

from __future__ import annotations

from base64 import b85decode, b85encode
from typing import Any
from zlib import compress, decompress

import numpy as np

from bn_spec.case.dtypes import Array

LONGEST_LISTING = 64
"""Number of elements above which an array is packed into text instead of being listed."""


def packed(flat: Array) -> str:
    """Return a flat array as base-85 text: compressed differences of its little-endian bits.

    A large input is mostly regular once it is shrunk. The differences of a regular array, such as a
    ramp, have few distinct values, and compress well.
    """
    bits = flat.view(f"u{flat.itemsize}")
    differences = np.diff(bits, prepend=bits.dtype.type(0))
    little_endian = differences.astype(bits.dtype.newbyteorder("<"))
    return b85encode(compress(little_endian.tobytes(), 9)).decode()


def unpacked(text: str, kind: np.dtype[Any]) -> Array:
    """Return the flat array of dtype ``kind`` that :func:`packed` packed."""
    bits = np.dtype(f"u{kind.itemsize}")
    differences = np.frombuffer(decompress(b85decode(text)), bits.newbyteorder("<"))
    return np.cumsum(differences, dtype=bits).view(kind)
