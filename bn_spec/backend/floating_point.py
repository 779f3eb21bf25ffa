"""The floating-point mode of the process: a few bits of a register that any native code can flip.

A library that flushes subnormal numbers to zero, or rounds another way than to nearest, changes the
arithmetic of the whole thread, ours included; a library built with ``-ffast-math`` does so when it
is merely loaded. So the mode is probed around everything that is not ours.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from bn_spec.case.dtypes import format_named
from bn_spec.errors import BnSpecError

_FLOAT32 = format_named("float32")
ROUNDING = "does not round to nearest"

_PROBES = (
    ("flushes subnormal results to zero", _FLOAT32.smallest_normal, 0.5, 0.0),
    ("takes subnormal operands for zero", _FLOAT32.smallest_subnormal, 2.0**24, 0.0),
    (ROUNDING, 0.75, 2 * _FLOAT32.u, 1.0),
    (ROUNDING, 0.25, 2 * _FLOAT32.u, 1.0),
)
"""Departures from the default mode of IEEE 754, each with float32 numbers of which a · b + c comes out different."""

_A, _B, _C = np.array([numbers for _, *numbers in _PROBES], np.float32).T
_EXPECTED = np.array(
    [_FLOAT32.smallest_normal / 2, 2.0**-125, 1 + 2 * _FLOAT32.u, 1], np.float32
).view(np.uint32)


def departures() -> tuple[str, ...]:
    """Return how the arithmetic of this thread departs from the default mode of IEEE 754; usually ()."""
    same = (_A * _B + _C).view(
        np.uint32
    ) == _EXPECTED  # bits: where subnormals are zero, they also equal it
    return tuple(
        dict.fromkeys(what for (what, *_), right in zip(_PROBES, same, strict=True) if not right)
    )


def set_back(found: tuple[str, ...]) -> tuple[str, ...]:
    """Return how the mode departs from the default one if it is no longer as ``found``, and set it back; else ()."""
    left = departures()
    if left == found:
        return ()
    restore()
    return left


def restore() -> None:
    """Set the default mode again where the C library allows it (glibc's ``FE_DFL_ENV``)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))


def check_arithmetic(*, subnormals: bool) -> None:
    """Check that this process computes as IEEE 754 demands, before a judgement relies on it.

    Args:
        subnormals: Whether subnormal numbers are judged; otherwise flushing them is allowed.

    Raises:
        BnSpecError: It does not; the message says what to look for.

    """
    odd = departures()
    if odd and (subnormals or ROUNDING in odd):
        raise BnSpecError(
            f"before any call, this process {' and '.join(odd)}: something loaded or called earlier"
            " has changed its floating-point mode (a library built with -ffast-math,"
            " torch.set_flush_denormal); check the backend in a process without it"
        )
