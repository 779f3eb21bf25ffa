"""Known failures of tinygrad's BatchNorm: what was found, why it fails, and on which cases.

Needs no tinygrad.
"""

from __future__ import annotations

from bn_spec.backend.adapters.composed import rsqrt_underflows, steps_in_half

_RSQRT_UNDERFLOWS = rsqrt_underflows(
    "the gradient of Tensor.rsqrt (the rules of RECIPROCAL and SQRT in tinygrad/mixin/gradient.py)"
    " is compiled to 1 / sqrt(v) / sqrt(v) / sqrt(v), times the other factors, as DEBUG=4 shows. In"
    " float32 the quotient underflows where v exceeds 2**84, although its products with dy and"
    " x − mean do not (measured on tinygrad 0.14.0)"
)

_STEPS_IN_HALF = steps_in_half(
    "BatchNorm consists of operations in the dtype of the data. It squares deviations in that dtype"
    " (BatchNorm.calc_stats), so float16 deviations beyond 256 have an infinite variance. Sums are"
    " in float32, but those of the gradients are rounded to half precision before they are divided"
    " by the number of values; beyond 65504 they become infinite (measured on tinygrad 0.14.0)"
)

CPU = (_RSQRT_UNDERFLOWS, *_STEPS_IN_HALF)
"""Known failures on the CPU."""
