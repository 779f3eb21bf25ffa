"""A known failure of several frameworks: the variance E[x²] − E[x]², which may be negative.

The variance is negative where the rounding errors of E[x²] exceed it. If it is also below −eps,
the output is NaN.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from bn_spec.backend.adapters.passes import forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array, format_named
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case
from bn_spec.case.steps import GRADIENTS
from bn_spec.oracle.bounds import SUMMATIONS

GRADIENT_LAWS = ("gradient_linearity", "gradient_sums")
OF_VALUES = (
    "output",
    "running_mean",
    "running_var",
    "numbers",
    *GRADIENTS,
    *GRADIENT_LAWS,
    *LAWS,
    *OTHER_LAWS,
)
"""Observables of values: tensors, laws between them, and whether their elements are numbers."""


def negative_variance(reason: str, summation: str) -> tuple[KnownFailure, ...]:
    """Return the failures of all that depends on the variance, where it may be negative.

    Args:
        reason: what the framework computes, and where.
        summation: how it sums, as in :data:`bn_spec.oracle.bounds.SUMMATIONS`.

    """
    observables = ("running_var_sign", *(name for name in OF_VALUES if name != "running_mean"))
    return tuple(
        KnownFailure("*", name, reason, where=partial(_is_at_risk, summation))
        for name in observables
    )


def _is_at_risk(summation: str, case: Case) -> bool:
    """Whether a forward takes the statistics of a batch whose variance may come out negative."""
    batches = (forward.x for forward in forwards(case) if forward.batch_statistics)
    return any(_cancels(x, summation) for x in batches if x.ndim == 4 and x.size)


def _cancels(x: Array, summation: str) -> bool:
    """Whether rounding errors in float32 may exceed the variance of a channel."""
    rows = np.moveaxis(x.astype(np.float64), 1, 0).reshape(x.shape[1], -1)
    values = rows.shape[1]
    u = format_named("float32").u
    # SUMMATIONS bounds the errors of sums; 4 more roundings are those of squares and means.
    rounding = (SUMMATIONS[summation](values, u) + 4) * u
    with np.errstate(all="ignore"):
        squares = np.square(rows).mean(axis=1)
        return bool(((rows.var(axis=1) <= rounding * squares) & (squares > 0)).any())
