"""Bias: errors of one sign too often for a kernel that rounds to nearest.

Every single error may be within its bound and the whole still be wrong: a kernel that truncates is
always a little too small. Rounding to nearest errs to either side alike, so over independent data
the errors Z of independent channels are symmetric, and by Efron's inequality (Student's t-test
under symmetry conditions, JASA 64, 1969)

    P( |Σ Z| >= t √(Σ Z²) )  <=  2 exp(−t² / 2)

for any number of channels and any distribution of their magnitudes. No scale, no variance and no
central limit enters; TOSA's conformance tests look at the same sum over a tensor.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from bn_spec.case.dtypes import Floats

FALSE_ALARM = 1e-16
"""Probability that one test flags a kernel that rounds without bias; a run of a million tests stays below 1e-9."""

LIMIT = sqrt(2 * log(2 / FALSE_ALARM))


def bias(errors: Floats) -> float:
    """Return Σ Z / √(Σ Z²) as a share of :data:`LIMIT`, with its sign; ``errors`` holds one Z per channel."""
    scale = float(np.sqrt(np.sum(errors**2)))
    return float(np.sum(errors)) / scale / LIMIT if 0 < scale < np.inf else 0.0
