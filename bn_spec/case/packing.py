"""Arrays packed into text."""

from __future__ import annotations

from base64 import b85decode, b85encode
from typing import Any
from zlib import compress, decompress

import numpy as np

from bn_spec.case.dtypes import Array


def packed(flat: Array) -> str:
    """Return base-85 text of the elements: compressed differences of their little-endian bits.

    Large inputs are regular more often than not once they are shrunk: the differences of a ramp are
    few.
    """
    bits = flat.view(f"u{flat.itemsize}")
    differences = np.diff(bits, prepend=bits.dtype.type(0))
    return b85encode(
        compress(differences.astype(bits.dtype.newbyteorder("<")).tobytes(), 9)
    ).decode()


def unpacked(text: str, kind: np.dtype[Any]) -> Array:
    """Return the elements that :func:`packed` packed, of a dtype."""
    bits = np.dtype(f"u{kind.itemsize}")
    differences = np.frombuffer(decompress(b85decode(text)), bits.newbyteorder("<"))
    return np.cumsum(differences, dtype=bits).view(kind)
