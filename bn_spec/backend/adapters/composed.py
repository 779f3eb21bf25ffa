"""Known failures of layers composed of operations, each of which rounds to the dtype of the data.

Needs no framework.
"""

from __future__ import annotations

import numpy as np

from bn_spec.backend.adapters.passes import backwards, passes
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case


def _reduces(case: Case) -> bool:
    """Whether a step of a case sums over values: for batch statistics, or in a backward."""
    return any(each.batch_statistics or each.dy is not None for each in passes(case))


_VARIANCE = 2.0**84
"""Variance above which 1 / sqrt(v)³ is subnormal in float32."""


def _has_large_variance(case: Case) -> bool:
    """Whether the variance of a channel of an input exceeds 2**84."""
    with np.errstate(all="ignore"):
        inputs = (x.astype(np.float64) for x in case.forwards() if x.size)
        return any((x.var(axis=(0, 2, 3)) > _VARIANCE).any() for x in inputs)


def rsqrt_underflows(reason: str) -> KnownFailure:
    """Return the failure of gradients that form 1 / sqrt(v)³ before any large factor."""
    return KnownFailure("*", "grad*", reason, dtypes=("float32",), where=_has_large_variance)


def _cubes(case: Case) -> bool:
    """Whether 1 / σ³ of a channel, on the way of a gradient, leaves the range of the accumulation.

    Below the smallest normal number the cube loses digits; above the largest it is infinite. The
    derivative of 1 / sqrt(v) is half the cube.
    """
    accumulation = case.config.arithmetic.accumulation

    def leaves(x: Array, eps: float) -> bool:
        with np.errstate(all="ignore"):
            cube = (x.astype(np.float64).var(axis=(0, 2, 3)) + eps) ** -1.5
        too_small = cube / 2 < accumulation.smallest_normal
        too_large = cube > accumulation.largest
        return bool(np.any(too_small | too_large))

    return any(
        leaves(forward.x, forward.eps) for forward, _ in backwards(case) if forward.batch_statistics
    )


def through_rsqrt(reason: str) -> tuple[KnownFailure, ...]:
    """Return the failures of gradients through 1 / sqrt(v), whose derivative is −1/2 v^(−3/2)."""
    judged = (("*", "grad_input"), ("GRD-*", "numbers"))
    return tuple(
        KnownFailure(requirement, observable, reason, where=_cubes)
        for requirement, observable in judged
    )


def steps_in_half(reason: str) -> tuple[KnownFailure, ...]:
    """Return the failures of values in half precision, in cases that sum over values.

    Forwards with running statistics take no sums, so cases of these alone are not covered.
    """
    judged = ("output", "running_*", "grad*", "numbers", "special", "elsewhere", *LAWS, *OTHER_LAWS)
    return tuple(
        KnownFailure("*", observable, reason, dtypes=("float16", "bfloat16"), where=_reduces)
        for observable in judged
    )
