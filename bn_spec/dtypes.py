"""The table of dtypes: one row per dtype in which a BatchNorm2d can be asked to work.

A row holds all that the error bounds need to know about the arithmetic: the unit roundoff of the
accumulation, of the output and of the parameters, and the range of the accumulation dtype. Half
precision and mixed rows will differ in these columns only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from .errors import ConfigError, allowed

Array = npt.NDArray[Any]
"""A NumPy array; its strides are part of the data."""

Bools = npt.NDArray[np.bool_]
"""A Boolean array."""

Floats = npt.NDArray[np.float64]
"""A float64 array: error bounds and statistics of the data are computed in it."""


@dataclass(frozen=True)
class DType:
    """One dtype of a layer, as the error bounds see it.

    ``u``, ``u_output`` and ``u_parameters`` are unit roundoffs (half the spacing of the floats just
    above 1: ``2**-24`` for float32) of the accumulation, of the output, and of parameters and buffers.
    ``largest``, ``smallest_normal`` and ``smallest_subnormal`` bound the range of the accumulation dtype.
    """

    name: str
    array: np.dtype[Any]
    parameters: np.dtype[Any]
    u: float
    u_output: float
    u_parameters: float
    largest: float
    smallest_normal: float
    smallest_subnormal: float


def _limits(dtype: str) -> Any:
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def _row(name: str, *, array: str, accumulation: str, parameters: str) -> DType:
    def unit_roundoff(dtype: str) -> float:
        return float(_limits(dtype).eps) / 2

    limits = _limits(accumulation)
    return DType(
        name=name,
        array=np.dtype(array),
        parameters=np.dtype(parameters),
        u=unit_roundoff(accumulation),
        u_output=unit_roundoff(array),
        u_parameters=unit_roundoff(parameters),
        largest=float(limits.max),
        smallest_normal=float(limits.smallest_normal),
        smallest_subnormal=float(limits.smallest_subnormal),
    )


DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        row.name: row
        for row in (
            _row("float32", array="float32", accumulation="float32", parameters="float32"),
            _row("float64", array="float64", accumulation="float64", parameters="float64"),
        )
    }
)


def dtype_named(name: str) -> DType:
    """Return the row called ``name``; raise :class:`ConfigError` naming the nearest one otherwise."""
    try:
        return DTYPES[name]
    except KeyError:
        raise ConfigError(allowed("dtype", name, DTYPES)) from None
