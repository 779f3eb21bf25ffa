"""A failure that several frameworks have in common: a variance of E[x²] − E[x]², which may come out negative.

It is negative where the rounding of E[x²] exceeds it; where it exceeds eps too, the output is NaN.
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
"""What is judged of values: tensors, laws, and whether they are numbers."""


def negative_variance(reason: str, summation: str) -> tuple[KnownFailure, ...]:
    """Return the failure of all that follows from the variance, on cases that may have a negative one."""
    observables = ("running_var_sign", *(name for name in OF_VALUES if name != "running_mean"))
    return tuple(
        KnownFailure("*", name, reason, where=partial(_is_at_risk, summation))
        for name in observables
    )


def _is_at_risk(summation: str, case: Case) -> bool:
    batches = (forward.x for forward in forwards(case) if forward.batch_statistics)
    return any(_cancels(x, summation) for x in batches if x.ndim == 4 and x.size)


def _cancels(x: Array, summation: str) -> bool:
    """Whether the variance of a channel is below what squares, means and sums in float32 may lose to rounding."""
    rows = np.moveaxis(x.astype(np.float64), 1, 0).reshape(x.shape[1], -1)
    rounding = (SUMMATIONS[summation](rows.shape[1], u := format_named("float32").u) + 4) * u
    with np.errstate(all="ignore"):
        squares = np.square(rows).mean(axis=1)
        return bool(((rows.var(axis=1) <= rounding * squares) & (squares > 0)).any())
