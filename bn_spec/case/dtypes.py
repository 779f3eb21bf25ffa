"""The table of dtypes: one row per combination of dtypes in which a BatchNorm2d is tested.

A row names three floating-point formats: that of input and output, that of parameters and buffers,
and that in which a correct kernel accumulates. The error bounds depend on the arithmetic only by
the unit roundoffs and the ranges of these formats. Half-precision data are accumulated in float32,
as every framework documents for its kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from bn_spec.errors import ConfigError, allowed

Array = npt.NDArray[Any]
"""A NumPy array; its strides are part of the data."""

Bools = npt.NDArray[np.bool_]
"""A Boolean array."""

Floats = npt.NDArray[np.float64]
"""A float64 array, as for error bounds and statistics of the data."""


@dataclass(frozen=True)
class Format:
    """One binary floating-point format.

    Attributes:
        name: Its name in NumPy and ml_dtypes.
        dtype: Its dtype.
        u: Unit roundoff: half the spacing of the numbers just above 1, ``2**-24`` for float32.
        largest: Largest finite number.
        smallest_normal: Smallest positive normal number.
        smallest_subnormal: Smallest positive number.

    """

    name: str
    dtype: np.dtype[Any]
    u: float
    largest: float
    smallest_normal: float
    smallest_subnormal: float


@cache
def format_named(name: str) -> Format:
    """Return the format called ``name``, with the limits that ml_dtypes has for it."""
    limits: Any = ml_dtypes.finfo(name)  # type: ignore[no-untyped-call]
    return Format(
        name=name,
        dtype=np.dtype(name),
        u=float(limits.eps) / 2,
        largest=float(limits.max),
        smallest_normal=float(limits.smallest_normal),
        smallest_subnormal=float(limits.smallest_subnormal),
    )


@dataclass(frozen=True)
class DType:
    """One row of the table of dtypes.

    Attributes:
        name: Name of the row, as in :attr:`bn_spec.case.config.Config.dtype`.
        data: Format of input and output.
        parameters: Format of weight, bias and running statistics.
        accumulation: Format in which a correct kernel accumulates.

    """

    name: str
    data: Format
    parameters: Format
    accumulation: Format


def _row(name: str, *, data: str, parameters: str, accumulation: str) -> DType:
    return DType(name, format_named(data), format_named(parameters), format_named(accumulation))


DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        row.name: row
        for row in (
            _row("float32", data="float32", parameters="float32", accumulation="float32"),
            _row("float64", data="float64", parameters="float64", accumulation="float64"),
            _row("mixed_float16", data="float16", parameters="float32", accumulation="float32"),
            _row("mixed_bfloat16", data="bfloat16", parameters="float32", accumulation="float32"),
            _row("float16", data="float16", parameters="float16", accumulation="float32"),
            _row("bfloat16", data="bfloat16", parameters="bfloat16", accumulation="float32"),
        )
    }
)
"""The table of dtypes, by name.

``mixed`` rows have half-precision data beside float32 parameters and buffers, as in mixed-precision
training.
"""


def dtype_named(name: str) -> DType:
    """Return the row of the table of dtypes called ``name``.

    Raises:
        ConfigError: No row has this name; the message names the nearest one.

    """
    try:
        return DTYPES[name]
    except KeyError:
        raise ConfigError(allowed("dtype", name, DTYPES)) from None


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is a floating-point format; bfloat16 is one."""
    # NumPy's kind of bfloat16, which ml_dtypes defines, is "V": raw bytes.
    return dtype.kind == "f" or dtype == np.dtype("bfloat16")
