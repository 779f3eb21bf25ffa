"""Known failures of MLX's BatchNorm: what was found, why it fails, and on which cases.

Needs no MLX.
"""

from __future__ import annotations

from bn_spec.backend.adapters.composed import rsqrt_underflows, steps_in_half

_RSQRT_UNDERFLOWS = rsqrt_underflows(
    "the gradient of mx.rsqrt is formed with the quotient 1 / sqrt(v) / v (Sqrt::vjp in"
    " mlx/primitives.cpp). In float32 the quotient underflows where v exceeds 2**84, although its"
    " products with dy and x − mean do not (measured on mlx 0.32.4)"
)

_STEPS_IN_HALF = steps_in_half(
    "BatchNorm consists of operations that each round to the dtype of the data. A sum of float16"
    " values beyond 65504 is infinite before it is divided by their number"
    " (mlx.nn.BatchNorm._calc_stats, mx.mean and mx.var). The deviations, their squares and every"
    " step of the gradients are in half precision; the additions themselves are in float32 since"
    " ml-explore/mlx#4387 (measured on mlx 0.32.4)"
)

CPU = (_RSQRT_UNDERFLOWS, *_STEPS_IN_HALF)
"""Known failures on the CPU."""
