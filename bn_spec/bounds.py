"""A priori error bounds: how far a correct kernel can be from the exact result, element by element.

Every bound is a theorem about a *model kernel*, not a tolerance: the kernel works in a floating-point
arithmetic of unit roundoff u, sums in any order, and spends at most the roundings of :data:`BUDGET` per
elementwise expression. ``err / bound <= 1`` is the only thing judged.

Notation: n values per channel; mu, var the exact mean and biased variance; Q² = var + mu² the mean square;
γ(k) = k u / (1 − k u) the growth of k roundings (Higham, *Accuracy and Stability of Numerical Algorithms*,
2nd ed., lemma 3.1); η the smallest subnormal, which bounds what one underflowing product loses.

**Mean.** Any order of summation of n terms, then a division or a multiplication by a rounded reciprocal,
spends at most n + 1 roundings per term (Higham, section 4.2): |dmu| <= γ(n+1) mean|x|. A running mean
(Welford) rounds mu_k once (weight k/n) and its increment (x_k − mu_{k−1}) / k twice: the errors add up to at most
(n + 3 + 2 H_n) u mean|x|, H_n the harmonic number. Each merge of a balanced tree (Chan, Golub, LeVeque
1983) adds at most 7 roundings. n + 7 log2 n + 3 covers both, and blocks of the one merged by the other.

**Variance.** With a mean that is off by e, the deviations x − mu − e have the mean square var + e², and
var + 2 e σ + e² if e changes from term to term, by Cauchy–Schwarz:

====================  ======================================================  ============================
grade                 |dvar| at most                                          who
====================  ======================================================  ============================
two-pass              γ(n+4) (var + dmu²) + dmu²                              subtracts the final mean
welford               γ(n+7 log2 n+4) (σ + e)² + 2 e σ + e²                   Welford, Chan's merges
textbook              the above + γ(n+4) Q² + 2 |mu| dmu + dmu²               E[x²] − E[x]²
====================  ======================================================  ============================

where e = γ(n + 7 log2 n + 3) Q bounds the errors of all intermediate means in the root mean square (each is at
most (k + 3 + 2 H_k) u sqrt(n/k) Q; the sum of their squares, weighted as they enter, stays below e²). The first-order
growths with κ² = 1 + mu²/var are 1, κ and κ² (Chan & Lewis 1979; Higham, section 1.9).

**The reference's own error.** The reference is itself a two-pass kernel, of unit roundoff below 2**-98, and every
bound grows at least linearly in u; so its error is below 2**-45 of the bound, as is the rounding of the bound's
own evaluation in float64. Both are paid by the factor :data:`OWN_ERROR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np

from .dtypes import Bools, DType, Floats
from .errors import ConfigError, allowed

BUDGET: Mapping[str, Mapping[str, float]] = {
    "inverse std": {
        "eps held in the layer's dtype, halved by the root": 0.5,
        "var + eps, halved by the root": 0.5,
        "root and division, or an rsqrt of 2 ulp": 4,
    },
    "output": {
        "x − mu, or the product x a of the folded form x a + (beta − mu a)": 1,
        "times s, or the product mu a": 1,
        "times gamma, or beta − mu a": 1,
        "plus beta, or plus (beta − mu a)": 1,
    },
    "running": {
        "momentum held in the layer's dtype": 1,
        "n / (n − 1), and the product with it": 2,
        "1 − m, or b − r": 1,
        "products with m and 1 − m": 1,
        "the sum, before it is rounded to the dtype of the buffers": 1,
    },
}
"""Roundings that an elementwise expression may spend, by operation; an FMA spends fewer."""

OWN_ERROR = 1 + 2.0**-40
"""Factor on every bound that pays for the error of the reference and of the bound's evaluation."""

LEAST_VARIANCE = 2.0**-960
"""Below it, products of double-double numbers lose bits to underflow and the reference its precision."""

GRADES = ("two-pass", "welford", "textbook")
"""Numerical classes of the variance, each admitting all before it."""


@dataclass(frozen=True)
class Model:
    """The model kernel: an arithmetic, a number of values per channel and a grade.

    Raises:
        ConfigError: the grade is not one of :data:`GRADES`.

    """

    dtype: DType
    n: int
    grade: str = "welford"

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise ConfigError(allowed("grade", self.grade, GRADES))

    def gamma(self, roundings: float) -> float:
        """γ(k) = k u / (1 − k u); infinite once k u reaches 1."""
        growth = roundings * self.dtype.u
        return growth / (1 - growth) if growth < 1 else np.inf

    def spent(self, expression: str) -> float:
        """γ of the roundings in the budget of an expression of :data:`BUDGET`."""
        return self.gamma(sum(BUDGET[expression].values()))

    @property
    def merging(self) -> float:
        """Roundings that merged or running means spend beyond one pass of summation."""
        return 7 * log2(self.n) + 2 if self.grade != "two-pass" else 0.0


@dataclass(frozen=True)
class Moments:
    """Per channel, shape (C, 1): exact statistics with a bound on a kernel's error in each."""

    mean: Floats
    var: Floats
    dmean: Floats
    dvar: Floats


def batch_moments(model: Model, mean: Floats, var: Floats, mean_abs: Floats) -> Moments:
    """Bound the errors of batch statistics; ``mean_abs`` is mean|x|, all of shape (C, 1).

    Derivation: this module's docstring. The mean is rounded once more when it is kept (u |mu|), and each of
    n terms may underflow (n η).
    """
    n, u = model.n, model.dtype.u
    underflow = n * model.dtype.smallest_subnormal
    sigma, rms = np.sqrt(var), np.sqrt(var + mean**2)
    roundings = n + 1 + model.merging
    dmean = model.gamma(roundings) * mean_abs + u * np.abs(mean) + underflow
    if model.grade == "two-pass":
        dvar = model.gamma(n + 4) * (var + dmean**2) + dmean**2
    else:
        e = model.gamma(roundings) * rms + underflow
        dvar = model.gamma(roundings + 3) * (sigma + e) ** 2 + 2 * e * sigma + e**2
    if model.grade == "textbook":
        dvar = dvar + model.gamma(n + 4) * rms**2 + 2 * np.abs(mean) * dmean + dmean**2
    return Moments(mean, var, dmean, dvar + underflow)


def given_moments(mean: Floats, var: Floats) -> Moments:
    """Statistics that the layer holds (eval mode): exact, so without error."""
    return Moments(mean, var, np.zeros_like(mean), np.zeros_like(var))


def inverse_std_error(model: Model, m: Moments, eps: float) -> Floats:
    """Relative error of s = 1 / sqrt(var + eps), shape (C, 1).

    Never just first order: the computed variance lies in [max(var − dvar, 0), var + dvar], and s is monotone in
    it. The two ends are written so that nothing cancels: √(1+r) − 1 = r / (√(1+r) + 1). The upper end of s is the
    farther one while var − dvar > 0; the lower one can be once the variance is clipped at 0.
    """
    low = np.maximum(m.var - m.dvar, 0)
    above = np.minimum(m.dvar, m.var) / (low + eps)  # var − low, without cancellation
    below = m.dvar / (m.var + eps)
    too_large = above / (np.sqrt(1 + above) + 1)
    root = np.sqrt(1 + below)
    too_small = below / (root * (root + 1))
    worst: Floats = np.maximum(too_large, too_small)
    return worst + model.spent("inverse std") * (1 + worst)


def output_bound(
    model: Model, m: Moments, eps: float, x: Floats, x_hat: Floats, weight: Floats, bias: Floats
) -> Floats:
    """Bound of |dy| for y = gamma x̂ + beta, shape (C, n).

    (x − mu')s' − (x − mu)s = (mu − mu') s' + (x − mu)(s' − s), and the roundings of either form: directly those of
    |gamma x̂| and |beta|, folded into x a + (beta − mu a) also those of |a mu|. Then one rounding to the output
    dtype. A product that underflows loses η at most, and is then multiplied by one of gamma, x and mu.
    """
    u = model.spent("output")
    ds = inverse_std_error(model, m, eps)
    gamma, scaled = np.abs(weight), np.abs(weight * x_hat)
    steepest = gamma * (1 + ds) / np.sqrt(m.var + eps)
    shift = steepest * (m.dmean * (1 + u) + u * np.abs(m.mean))
    scale = scaled * (ds + u * (1 + ds))
    exact = shift + scale + u * np.abs(bias)
    final = model.dtype.u_output * (np.abs(weight * x_hat + bias) + exact)
    lost = len(BUDGET["output"]) * model.dtype.smallest_subnormal
    return OWN_ERROR * (exact + final + lost * (1 + gamma + np.abs(x) + np.abs(m.mean)))


def running_bound(model: Model, old: Floats, batch: Floats, dbatch: Floats, momentum: float, new: Floats) -> Floats:
    """Bound of |dr'| for r' = (1 − m) r + m b, shape (C, 1); ``dbatch`` bounds the error of b.

    Covers r + m (b − r) and a momentum held in the layer's dtype: both perturb r and b by multiples of m. A kernel
    may instead hold the complement d = (1 − m)(1 + δ), as frameworks do whose momentum weighs the old value, and
    compute d r + (1 − d) b: that moves the result by (1 − m) δ (r − b).
    """
    m, complement, u = abs(momentum), abs(1 - momentum), model.spent("running")
    exact = m * dbatch * (1 + u) + u * ((m + complement) * np.abs(old) + m * np.abs(batch))
    exact = exact + model.gamma(1) * complement * np.abs(batch - old)
    final = model.dtype.u_parameters * (np.abs(new) + exact)
    lost = len(BUDGET["running"]) * model.dtype.smallest_subnormal
    return OWN_ERROR * (exact + final + lost * (1 + np.abs(old) + np.abs(batch)))


def in_domain(model: Model, m: Moments, eps: float, largest: Floats, *scales: Floats) -> Bools:
    """Where the bounds are theorems, shape (C, 1): nothing overflows, and var + eps is not subnormal.

    ``largest`` is max|x| per channel; each of ``scales`` is a magnitude that a kernel may form on the way.
    Comparisons with NaN are false, so a channel with non-finite data is outside.
    """
    limit = model.dtype.largest / 16
    least = max(16 * model.dtype.smallest_normal, LEAST_VARIANCE)
    inside: Bools = (model.n * largest**2 < limit) & (m.var + eps > least) & (m.dvar < limit)
    for scale in scales:
        inside = inside & (scale < limit)
    return inside
