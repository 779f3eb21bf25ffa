"""Known failures of tinygrad's BatchNorm: what was found, why it fails, and on which cases. Needs no tinygrad."""

from __future__ import annotations

from bn_spec.backend.adapters.composed import rsqrt_underflows, steps_in_half

_RSQRT_UNDERFLOWS = rsqrt_underflows(
    "the gradient of Tensor.rsqrt (the rules of RECIPROCAL and SQRT in tinygrad/mixin/gradient.py) is compiled to"
    " 1 / sqrt(v) / sqrt(v) / sqrt(v), times the rest: the quotient underflows in float32 where v exceeds 2**84,"
    " though its products with dy and x − mean do not (as DEBUG=4 prints it; measured on tinygrad 0.14.0)"
)

_STEPS_IN_HALF = steps_in_half(
    "BatchNorm is made of operations in the dtype of the data: deviations are squared in it (BatchNorm.calc_stats),"
    " so that float16 ones beyond 256 have an infinite variance; sums are in float32, but those of the gradients are"
    " rounded to half before they are divided by the number of values, beyond 65504 to infinity (measured on tinygrad"
    " 0.14.0)"
)

CPU = (_RSQRT_UNDERFLOWS, *_STEPS_IN_HALF)
"""On the CPU."""
