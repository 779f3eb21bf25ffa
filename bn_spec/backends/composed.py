"""Known failures of layers that are made of operations, each of which rounds to the dtype of the data."""

from __future__ import annotations

import numpy as np

from ..backend import KnownFailure
from ..case import Case
from ..laws import LAWS
from ..observables.laws import OTHERS
from .passes import passes


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


def steps_in_half(reason: str) -> tuple[KnownFailure, ...]:
    """Return what is judged of numbers in half precision, wherever sums are taken; eval forwards take none."""
    judged = ("output", "running_*", "grad*", "numbers", "special", "elsewhere", *LAWS, *OTHERS)
    return tuple(
        KnownFailure("*", observable, reason, dtypes=("float16", "bfloat16"), where=_reduces) for observable in judged
    )
