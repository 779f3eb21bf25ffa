"""Known failures of layers that are made of operations, each of which rounds to the dtype of the data."""

from __future__ import annotations

import numpy as np

from bn_spec.backend.adapters.passes import backwards, passes
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case


def _reduces(case: Case) -> bool:
    """Whether a step of a case sums over values: of a batch that is its own statistics, or of a gradient."""
    return any(each.batch_statistics or each.dy is not None for each in passes(case))


_VARIANCE = 2.0**84
"""Above it, 1 / sqrt(v)³ is subnormal in float32."""


def _has_large_variance(case: Case) -> bool:
    """Whether the variance of a channel of an input is that large."""
    with np.errstate(all="ignore"):
        inputs = (x.astype(np.float64) for x in case.forwards() if x.size)
        return any((x.var(axis=(0, 2, 3)) > _VARIANCE).any() for x in inputs)


def rsqrt_underflows(reason: str) -> KnownFailure:
    """Return the failure of gradients that go through 1 / sqrt(v)³ before anything large multiplies it."""
    return KnownFailure("*", "grad*", reason, dtypes=("float32",), where=_has_large_variance)


def _cubes(case: Case) -> bool:
    """Whether 1 / σ³ of a channel leaves the range of the accumulation, where a gradient goes through it."""
    held = case.config.arithmetic.accumulation

    def leaves(x: Array, eps: float) -> bool:
        with np.errstate(all="ignore"):
            cube = (x.astype(np.float64).var(axis=(0, 2, 3)) + eps) ** -1.5
        return bool(np.any((cube / 2 < held.smallest_normal) | (cube > held.largest)))

    return any(leaves(of.x, of.eps) for of, _ in backwards(case) if of.batch_statistics)


def through_rsqrt(reason: str) -> tuple[KnownFailure, ...]:
    """Return the failures of what is differentiated through 1 / sqrt(v): its derivative goes with the cube."""
    judged = (("*", "grad_input"), ("GRD-*", "numbers"))
    return tuple(
        KnownFailure(requirement, observable, reason, where=_cubes)
        for requirement, observable in judged
    )


def steps_in_half(reason: str) -> tuple[KnownFailure, ...]:
    """Return what is judged of numbers in half precision, wherever sums are taken; eval forwards take none."""
    judged = ("output", "running_*", "grad*", "numbers", "special", "elsewhere", *LAWS, *OTHER_LAWS)
    return tuple(
        KnownFailure("*", observable, reason, dtypes=("float16", "bfloat16"), where=_reduces)
        for observable in judged
    )
