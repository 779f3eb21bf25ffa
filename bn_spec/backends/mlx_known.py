"""Known failures of MLX's BatchNorm: what was found, why it fails, and on which cases. Needs no MLX."""

from __future__ import annotations

import numpy as np

from ..backend import KnownFailure
from ..case import Case
from .composed import steps_in_half

_VARIANCE = 2.0**84
"""Above it, the quotient 1 / sqrt(v) / v is subnormal in float32."""


def _has_large_variance(case: Case) -> bool:
    """Whether the variance of a channel of an input is that large."""
    with np.errstate(all="ignore"):
        return any((x.astype(np.float64).var(axis=(0, 2, 3)) > _VARIANCE).any() for x in case.forwards() if x.size)


_RSQRT_UNDERFLOWS = KnownFailure(
    "GRD-*",
    "grad*",
    "the gradient of mx.rsqrt is formed with the quotient 1 / sqrt(v) / v (Sqrt::vjp in mlx/primitives.cpp), which"
    " underflows in float32 where v exceeds 2**84, though its products with dy and x − mean do not (measured on mlx"
    " 0.32.4)",
    dtypes=("float32",),
    where=_has_large_variance,
)

_STEPS_IN_HALF = steps_in_half(
    "BatchNorm is made of operations that each round to the dtype of the data: a sum of float16 values beyond 65504"
    " is infinite before it is divided by their number (mlx.nn.BatchNorm._calc_stats, mx.mean and mx.var), and the"
    " deviations, their squares and every step of the gradients are in half precision. The sums themselves are in"
    " float32 since ml-explore/mlx#4387 (measured on mlx 0.32.4)"
)

CPU = (_RSQRT_UNDERFLOWS, *_STEPS_IN_HALF)
"""On the CPU."""
