"""A test for bias: errors that have one sign more often than rounding to nearest allows.

Every error can be within its bound and the result still be wrong: a kernel that truncates is always
a little too small. Rounding to nearest errs as often to one side as to the other. Over independent
data, the errors Z of independent channels are therefore symmetric. By Efron's inequality (Student's
t-test under symmetry conditions, JASA 64, 1969)::

    P( |Σ Z| >= t √(Σ Z²) )  <=  2 exp(−t² / 2)

for any number of channels and any distribution of their magnitudes. The test needs no scale, no
variance and no central limit theorem. TOSA's conformance tests use the same sum over a tensor.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from bn_spec.case.dtypes import Floats

FALSE_ALARM = 1e-16
"""Probability that one test flags a kernel that rounds without bias; below 1e-9 in 10⁶ tests."""

LIMIT = sqrt(2 * log(2 / FALSE_ALARM))
"""t at which Efron's inequality gives ``FALSE_ALARM``; |Σ Z| / √(Σ Z²) must not exceed it."""


def bias(errors: Floats) -> float:
    """Return Σ Z / √(Σ Z²) as a share of ``LIMIT``, with its sign.

    ``errors`` has one error Z per channel, in any unit. The share has no unit; a magnitude above 1
    is bias. Without errors, and for errors that are not finite, it is 0.
    """
    scale = float(np.sqrt(np.sum(errors**2)))
    if not 0 < scale < np.inf:
        return 0.0
    return float(np.sum(errors)) / scale / LIMIT
