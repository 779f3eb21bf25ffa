"""Known failures of tinygrad's BatchNorm: what was found, why it fails, and on which cases. Needs no tinygrad."""

from __future__ import annotations

from .composed import steps_in_half

CPU = steps_in_half(
    "BatchNorm is made of operations in the dtype of the data: deviations are squared in it (BatchNorm.calc_stats),"
    " so that float16 ones beyond 256 have an infinite variance; sums are in float32, but those of the gradients are"
    " rounded to half before they are divided by the number of values, beyond 65504 to infinity (measured on tinygrad"
    " 0.14.0)"
)
"""On the CPU."""
