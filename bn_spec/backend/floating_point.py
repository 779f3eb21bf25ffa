"""The floating-point mode of the process: a few bits of a register that native code can change.

A library that flushes subnormal numbers to zero, or that does not round to nearest, changes the
arithmetic of its whole thread, that of the judge included. A library built with ``-ffast-math``
does so as soon as it is loaded. The suite therefore checks the mode around all calls into backends.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from bn_spec.case.dtypes import format_named
from bn_spec.errors import BnSpecError

_FLOAT32 = format_named("float32")

ROUNDING = "does not round to nearest"
"""The departure that spoils every judgement; the others spoil only those of subnormal numbers."""

_PROBES = (
    ("flushes subnormal results to zero", _FLOAT32.smallest_normal, 0.5, 0.0),
    ("takes subnormal operands for zero", _FLOAT32.smallest_subnormal, 2.0**24, 0.0),
    (ROUNDING, 0.75, 2 * _FLOAT32.u, 1.0),
    (ROUNDING, 0.25, 2 * _FLOAT32.u, 1.0),
)
"""Departures from the default mode of IEEE 754, each with float32 numbers a, b and c.

In a mode that departs in this way, a · b + c has another value.
"""

_A, _B, _C = np.array([numbers for _, *numbers in _PROBES], np.float32).T
_EXPECTED = np.array(
    [_FLOAT32.smallest_normal / 2, 2.0**-125, 1 + 2 * _FLOAT32.u, 1], np.float32
).view(np.uint32)


def departures() -> tuple[str, ...]:
    """Return how the arithmetic of this thread departs from the default mode of IEEE 754.

    Returns:
        A verb phrase per departure, such as ``"flushes subnormal results to zero"``; usually none.

    """
    # Bits are compared: in a mode where subnormal operands are zero, they also equal zero.
    same = (_A * _B + _C).view(np.uint32) == _EXPECTED
    if same.all():
        return ()
    changed = [what for (what, *_), right in zip(_PROBES, same, strict=True) if not right]
    return tuple(dict.fromkeys(changed))  # both probes of the rounding have the same phrase


def set_back(found: tuple[str, ...]) -> tuple[str, ...]:
    """Restore the default mode if the mode has changed.

    Args:
        found: What :func:`departures` returned earlier.

    Returns:
        How the mode departed from the default one; empty if it had not changed since.

    """
    left = departures()
    if left == found:
        return ()
    restore()
    return left


def restore() -> None:
    """Set the default mode, if the C library can (glibc can, by ``FE_DFL_ENV``)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))


def check_arithmetic(*, subnormals: bool) -> None:
    """Check that this process computes as IEEE 754 demands.

    Args:
        subnormals: Whether subnormal numbers matter; if not, they may be flushed to zero.

    Raises:
        BnSpecError: The floating-point mode is not the default one. The message says what to
            look for.

    """
    odd = departures()
    if odd and (subnormals or ROUNDING in odd):
        raise BnSpecError(
            f"before any call, this process {' and '.join(odd)}: something loaded or called earlier"
            " has changed its floating-point mode (a library built with -ffast-math, or"
            " torch.set_flush_denormal); run the suite in a process without it"
        )
