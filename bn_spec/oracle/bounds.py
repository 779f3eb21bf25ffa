"""A priori error bounds: how far a correct kernel can be from the exact result, element by element.

Every bound is a theorem about a *model kernel*, not a tolerance: the kernel works in a
floating-point arithmetic of unit roundoff u, sums as it claims to, and spends at most the roundings
of :data:`BUDGET` per elementwise expression. ``err / bound <= 1`` is the only thing judged.

Notation: n values per channel; mu, var the exact mean and biased variance; Q² = var + mu² the mean
square; γ(k) = k u / (1 − k u) the growth of k roundings (Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd ed., lemma 3.1); G the largest number of roundings that a term of a sum
of n goes through (:data:`SUMMATIONS`); η what one underflowing operation loses: the smallest
subnormal, or the smallest normal number where subnormals are flushed.

**Mean.** A sum of n terms, then a division or a multiplication by a rounded reciprocal, spends at
most G + 1 roundings per term (Higham, section 4.2): |dmu| <= γ(G+1) mean|x|; in any order, G = n. A
running mean (Welford) rounds mu_k once (weight k/n) and its increment (x_k − mu_{k−1}) / k twice:
the errors add up to at most (n + 3 + 2 H_n) u mean|x|, H_n the harmonic number. Each merge of a
balanced tree (Chan, Golub, LeVeque 1983) adds at most 7 roundings. M = 7 log2 n + 2 more roundings
cover both, and blocks of the one merged by the other.

**Variance.** With a mean that is off by e, the deviations x − mu − e have the mean square var + e²,
and var + 2 e σ + e² if e changes from term to term, by Cauchy–Schwarz:

====================  ======================================================
============================ grade                 |dvar| at most
who ====================  ======================================================
============================ two-pass              γ(G+4) (var + dmu²) + dmu²
subtracts the final mean welford               γ(G+M+4) (σ + e)² + 2 e σ + e²
Welford, Chan's merges textbook              the above + γ(G+4) Q² + 2 |mu| dmu + dmu²
E[x²] − E[x]² ====================  ======================================================
============================

where e = γ(G+M+1) Q bounds the errors of all intermediate means in the root mean square (in any
order, each is at most (k + 3 + 2 H_k) u sqrt(n/k) Q; the sum of their squares, weighted as they
enter, stays below e²; in a tree, each of 1 + log2 n levels contributes a square of its own). The
first-order growths with κ² = 1 + mu²/var are 1, κ and κ² (Chan & Lewis 1979; Higham, section 1.9).

**Exact sums.** Where all values of a channel are multiples of some q and Σ|x| <= q/u, every partial
sum in any order is representable, so that nothing is rounded; where n is a power of two, neither is
the mean. The same holds for the squares. Such channels have dmu = dvar = 0, for kernels that sum
first and divide once.

**The reference's own error.** The reference is itself a two-pass kernel whose sums spend at most 64
roundings per term, in float64 where the kernel accumulates in float32, and in double-double
arithmetic (unit roundoff below 2**-98) where it accumulates in float64. Every bound grows at least
linearly in u, and its least multiple is 2 u; so the error of the reference is below 2**-53 · 64 /
2**-23 = 2**-24 of the bound. That and the rounding of the bound's evaluation in float64 are paid by
the factor :data:`OWN_ERROR`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log2, sqrt
from types import MappingProxyType

import numpy as np

from bn_spec.case.dialect import PYTORCH, Dialect
from bn_spec.case.dtypes import Bools, DType, Floats, Format
from bn_spec.errors import ConfigError, allowed

BUDGET: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
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
        "gradient": {
            "x − mu, or x s": 1,
            "times s, or less mu s": 1,
            "times mean(dy x̂), or times another s": 1,
            "dy − mean(dy), or n dy − Σ dy": 1,
            "less x̂ mean(dy x̂)": 1,
            "weight times s, and divided by n": 2,
            "their product": 1,
        },
        "double backward": {
            "powers of s": 2,
            "x − mu, and its product with s": 2,
            "products of two means, and with 3 / n": 3,
            "sums of three of them, and of three terms": 4,
            "products with dy, v, their deviations and x̂": 3,
            "products with weight and its cotangent": 2,
        },
    }
)
"""Roundings that an elementwise expression may spend, by operation; an FMA spends fewer."""

OWN_ERROR = 1 + 2.0**-20
"""Factor on every bound that pays for the error of the reference and of the bound's evaluation."""

LEAST_VARIANCE = 2.0**-960
"""Below it, products of double-double numbers lose bits to underflow and the reference its precision."""

GRADES = ("two-pass", "welford", "textbook")
"""Numerical classes of the variance, each admitting all before it."""

LEAF = 32
"""Additions that a value may go through before a pairwise sum starts to pair; NumPy's, in blocks of 128, needs 26."""

SUMMATIONS: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "any order": lambda n, _: n,
        "pairwise": lambda n, _: min(n, log2(n) + LEAF),
        "wide": lambda n, u: 1 + n * u,
    }
)
"""Classes of summation, from n and u to G: the roundings that a term goes through, at most.

``pairwise`` pairs the sums of leaves of at most :data:`LEAF` additions; ``wide`` accumulates in a
unit roundoff of at most u² and rounds the sum once. Sources: Higham, section 4.2 and problem 4.2.
"""

KEEPING = ("accumulation", "parameters")
"""Formats in which a kernel may keep its intermediate results; those of the table of dtypes."""

KEPT_OF_VARIANCE = 3
"""Roundings on the way to a variance that is kept: the sum of squares, n, and their quotient."""


@dataclass(frozen=True)
class Accuracy:
    """What a kernel claims about its arithmetic; the defaults claim little.

    ``grade`` is the numerical class of the variance (:data:`GRADES`), ``summation`` the class of
    its sums (:data:`SUMMATIONS`). ``statistics`` is the format (:data:`KEEPING`) in which mean,
    variance and inverse standard deviation are kept and running statistics are updated,
    ``elementwise`` the one in which the output is computed from them. ``direct_means``: a mean is a
    sum divided once, never a running or merged mean; a two-pass kernel claims it anyway.
    ``centred_products``: in a backward pass, Σ dy x̂ is formed from deviations x − mu, never as s
    (Σ dy x − mu Σ dy). ``subnormals``: subnormal numbers are kept, not flushed to zero.
    ``overflow_safe``: where squares overflow and sums of values do not, the variance is infinite
    and nothing is NaN (compensated sums, E[x²] − E[x]² and Newton steps make NaN of infinities).
    ``dialect``: the conventions by which it is to be judged.

    Raises:
        ConfigError: a grade, a class of summation or a format is not known.

    """

    grade: str = "welford"
    summation: str = "any order"
    statistics: str = "accumulation"
    elementwise: str = "accumulation"
    direct_means: bool = False
    centred_products: bool = False
    subnormals: bool = True
    overflow_safe: bool = False
    dialect: Dialect = PYTORCH

    def __post_init__(self) -> None:
        for kind, received, known in (
            ("grade", self.grade, GRADES),
            ("summation", self.summation, tuple(SUMMATIONS)),
            ("format of the statistics", self.statistics, KEEPING),
            ("format of elementwise steps", self.elementwise, KEEPING),
        ):
            if received not in known:
                raise ConfigError(allowed(kind, received, known))


@dataclass(frozen=True)
class Model:
    """The model kernel: its formats, the number of values per channel, and what it claims."""

    dtype: DType
    n: int
    accuracy: Accuracy = Accuracy()

    @property
    def u(self) -> float:
        """Unit roundoff of the accumulation."""
        return self.dtype.accumulation.u

    @property
    def statistics(self) -> Format:
        """The format in which the statistics are kept."""
        return self._coarser(self.accuracy.statistics)

    @property
    def elementwise(self) -> Format:
        """The format in which the output is computed from the statistics."""
        return self._coarser(self.accuracy.elementwise)

    def _coarser(self, keeping: str) -> Format:
        claimed: Format = getattr(self.dtype, keeping)
        return claimed if claimed.u > self.u else self.dtype.accumulation

    @property
    def keeps_coarsely(self) -> bool:
        """Whether the statistics are kept in a coarser format than they are summed in."""
        return self.statistics.u > self.u

    @property
    def summing(self) -> float:
        """G: the most roundings that a term of a sum goes through."""
        return SUMMATIONS[self.accuracy.summation](self.n, self.u)

    @property
    def merging(self) -> float:
        """M: the roundings that merged or running means spend beyond one sum."""
        roundings = 0.0 if self.sums_once else 7 * log2(self.n) + 2
        return roundings * (self.u if self.accuracy.summation == "wide" else 1)

    @property
    def wandering(self) -> float:
        """Factor by which the errors of all intermediate means of a tree exceed those of the final one."""
        return sqrt(1 + log2(self.n)) if self.accuracy.summation == "pairwise" else 1.0

    @property
    def sums_once(self) -> bool:
        """Whether means are sums divided once."""
        return self.accuracy.direct_means or self.accuracy.grade == "two-pass"

    def gamma(self, roundings: float, format: Format | None = None) -> float:
        """γ(k) = k u / (1 − k u), in the accumulation or another format; infinite once k u reaches 1."""
        growth = roundings * (format or self.dtype.accumulation).u
        return growth / (1 - growth) if growth < 1 else np.inf

    def spent(self, expression: str) -> float:
        """γ of the roundings in the budget of an expression of :data:`BUDGET`."""
        format = self.statistics if expression in ("inverse std", "running") else self.elementwise
        return self.gamma(sum(BUDGET[expression].values()), format)

    def underflow(self, format: Format) -> float:
        """η: the most that one operation loses to underflow in a format."""
        return format.smallest_subnormal if self.accuracy.subnormals else format.smallest_normal

    def unread(self, format: Format) -> float:
        """The most that a number loses when it is read: where subnormals are flushed, it may be taken for zero."""
        return 0.0 if self.accuracy.subnormals else format.smallest_normal

    def kept(self, size: Floats, roundings: int = 1) -> Floats:
        """Bound of the error of keeping a statistic of at most that size in a coarser format."""
        if not self.keeps_coarsely:
            return np.zeros_like(size)
        return self.gamma(roundings, self.statistics) * size + roundings * self.underflow(
            self.statistics
        )


@dataclass(frozen=True)
class Moments:
    """Per channel, shape (C, 1): exact statistics with a bound on a kernel's error in each."""

    mean: Floats
    var: Floats
    dmean: Floats
    dvar: Floats


def batch_moments(
    model: Model, mean: Floats, var: Floats, mean_abs: Floats, exact: Bools | bool = False
) -> Moments:
    """Bound the errors of batch statistics; ``mean_abs`` is mean|x|, all of shape (C, 1).

    Derivation: this module's docstring. The mean is rounded once more when it is kept (u |mu|),
    each of n terms may underflow before it is summed (n η and its growth), and ``exact`` marks the
    channels of :func:`sums_exactly`.
    """
    u, grade = model.u, model.accuracy.grade
    sigma, rms = np.sqrt(var), np.sqrt(var + mean**2)
    roundings = model.summing + model.merging
    underflow = (
        model.n * model.underflow(model.dtype.accumulation) * (1 + model.gamma(roundings + 4))
    )
    summed = model.gamma(roundings + 1) * mean_abs + u * np.abs(mean)
    unread = model.unread(model.dtype.data)
    dmean = np.where(exact, 0, summed) + underflow + unread
    dmean = dmean + model.kept(np.abs(mean) + dmean)
    dvar = model.gamma(model.summing + 4) * (var + dmean**2) + dmean**2
    if grade != "two-pass":
        any_order = (
            model.n + model.merging + 1
        )  # covers trees as well, and is the smaller for few values
        e = model.gamma(min((roundings + 1) * model.wandering, any_order)) * rms + underflow
        dvar = dmean**2 + model.gamma(roundings + 4) * (sigma + e) ** 2 + 2 * e * sigma + e**2
    if grade == "textbook":
        dvar = dvar + model.gamma(model.summing + 4) * rms**2 + 2 * np.abs(mean) * dmean + dmean**2
    dvar = np.where(exact, 0, dvar) + underflow + unread * (2 * sigma + unread)
    return Moments(mean, var, dmean, dvar + model.kept(var + dvar, KEPT_OF_VARIANCE))


def given_moments(model: Model, mean: Floats, var: Floats) -> Moments:
    """Statistics that the layer holds (eval mode): exact, if they are read as they are."""
    unread = model.unread(model.dtype.parameters)
    return Moments(mean, var, np.full_like(mean, unread), np.full_like(var, unread))


def sums_exactly(model: Model, rows: Floats, mean: Floats) -> Bools:
    """Where mean and variance are computed without any rounding, in whatever order: shape (C, 1).

    Sums of multiples of q stay exact up to q/u (this module's docstring): applied to the values,
    the deviations and their squares, and to the squares and the mean of the textbook formula.
    ``rows`` has shape (C, n), ``mean`` (C, 1).
    """
    nowhere = np.zeros((len(rows), 1), bool)
    one_by_one = not model.sums_once and model.n > 2  # a running mean divides by 3, 5, 7 …
    if model.n & (model.n - 1) or one_by_one:
        return nowhere
    deviations = rows - mean
    q, q_mean, q_deviations = _quantum(rows), _quantum(mean), _quantum(deviations)
    exact = _fits(model, np.abs(rows).sum(axis=-1, keepdims=True), q) & _is_kept(model, mean)
    exact = exact & _fits(
        model, np.abs(rows).max(axis=-1, keepdims=True) + np.abs(mean), np.minimum(q, q_mean)
    )
    exact = exact & _fits(model, (deviations**2).sum(axis=-1, keepdims=True), q_deviations**2)
    if model.accuracy.grade == "textbook":
        squares = (rows**2).sum(axis=-1, keepdims=True)
        exact = exact & _fits(model, squares, q**2)
        exact = exact & _fits(model, squares / model.n, np.minimum(q**2 / model.n, q_mean**2))
    return exact


def _quantum(values: Floats) -> Floats:
    """Return the largest power of two of which all values of a row are multiples; infinite for zeros."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    least = np.where(
        values == 0, np.inf, np.ldexp((whole & -whole).astype(np.float64), exponent - 53)
    )
    quantum: Floats = least.min(axis=-1, keepdims=True)
    return quantum


def _fits(model: Model, size: Floats, quantum: Floats) -> Bools:
    """Whether multiples of ``quantum`` up to ``size`` are representable; a size at the limit may be a rounded one."""
    fits: Bools = (size < quantum / model.u) & (quantum > model.dtype.accumulation.smallest_normal)
    return fits


def _is_kept(model: Model, statistic: Floats) -> Bools:
    """Whether a statistic survives being kept."""
    same: Bools = statistic == statistic.astype(model.statistics.dtype).astype(np.float64)
    return same


def inverse_std_error(model: Model, m: Moments, eps: float) -> Floats:
    """Relative error of s = 1 / sqrt(var + eps), shape (C, 1).

    Never just first order: the computed variance lies in [max(var − dvar, 0), var + dvar], and s is
    monotone in it. The two ends are written so that nothing cancels: √(1+r) − 1 = r / (√(1+r) + 1).
    The upper end of s is the farther one while var − dvar > 0; the lower one can be once the
    variance is clipped at 0. Where statistics are kept in a coarser format, var + eps and s may
    underflow in it.
    """
    kept = 2 * model.underflow(model.statistics) if model.keeps_coarsely else 0.0
    low = np.maximum(m.var - m.dvar, 0)
    above = (np.minimum(m.dvar, m.var) + kept) / np.maximum(
        low + eps - kept, 0
    )  # var − low, without cancellation
    below = (m.dvar + kept) / (m.var + eps)
    too_large = above / (np.sqrt(1 + above) + 1)
    root = np.sqrt(1 + below)
    too_small = below / (root * (root + 1))
    worst: Floats = np.maximum(too_large, too_small) + kept * np.sqrt(m.var + eps)
    return worst + model.spent("inverse std") * (1 + worst)


def output_bound(
    model: Model,
    m: Moments,
    eps: float,
    x: Floats,
    x_hat: Floats,
    weight: Floats,
    bias: Floats,
    *,
    held: Format | None = None,
) -> Floats:
    """Bound of |dy| for y = gamma x̂ + beta, shape (C, n).

    (x − mu')s' − (x − mu)s = (mu − mu') s' + (x − mu)(s' − s), and the roundings of either form:
    directly those of
    |gamma x̂| and |beta|, in whatever order gamma, x − mu and s are multiplied, folded into x a + (beta − mu a) also
    those of |a mu|. Then one rounding to the format in which the output is ``held``, by default that of the data. A
    product that underflows loses η at most, and is then multiplied by one of gamma, x, mu and s; ``x`` may be the
    largest of its channel, shape (C, 1).
    """
    held = held or model.dtype.data
    u = model.spent("output")
    ds = inverse_std_error(model, m, eps)
    gamma, unshifted, s = np.abs(weight), weight * x_hat, (1 + ds) / np.sqrt(m.var + eps)
    steepest = gamma * s
    # u |mu| alone may underflow where its product with 1/σ does not.
    unread, unread_weight = model.unread(model.dtype.data), model.unread(model.dtype.parameters)
    # A difference of two numbers of a format does not underflow in it, but may in a coarser one.
    coarse = model.underflow(model.elementwise) if model.elementwise.u > model.u else 0.0
    shift = (
        steepest * (m.dmean * (1 + u) + unread + coarse)
        + u * (steepest * np.abs(m.mean))
        + unread_weight
    )
    lost = (
        len(BUDGET["output"])
        * model.underflow(model.elementwise)
        * (1 + gamma + np.abs(x) + np.abs(m.mean) + s)
    )
    scale = np.abs(unshifted) * (ds + u * (1 + ds))
    if unread_weight:
        scale = scale + unread_weight * (1 + ds) * np.abs(x_hat)
    exact = scale + (shift + u * np.abs(bias) + lost)
    rounded = held.u * np.abs(unshifted + bias) + model.underflow(held)
    return OWN_ERROR * ((1 + held.u) * exact + rounded)


POWER = 8
"""Roundings that the power (1 − m)^k may spend: exp(k log(1 − m)) has an absolute error of (|x| + 4) u e^x, x < 0."""

LARGEST_DIVISOR_ERROR = 1 / 16
"""The relative error of a divisor up to which its square is no concern."""


def debiasing_error(
    model: Model, momentum: float, batches: int, old: Floats, batch: Floats, new: Floats
) -> Floats:
    """Bound of the error that dividing a bias out adds to r' = h' / c', h' = (1 − m) h + m b, of shape (C, 1).

    The divisor c' = 1 − (1 − m)^k is off by :data:`POWER` roundings of numbers below 1, that is
    POWER · u / c' in proportion; so was c, after k − 1 batches, and h = c r was divided by it, or
    is multiplied by it. What is left of r in r' is (1 − m) c / c' = 1 − w, w = m / c' the weight of
    b. A rounding of 1 − m changes w by at most min(k − 1, (1 − m) / m) times as much: w is 1 / Σ (1
    − m)^i, and Σ i (1 − m)^i / Σ (1 − m)^i no larger than either.
    """
    u, rest = model.statistics.u, 1 - momentum
    after, before = (1 - rest**k for k in (batches, batches - 1))
    if momentum <= 0 or POWER * u > LARGEST_DIVISOR_ERROR * after:
        return np.full_like(new, np.inf)
    weight, moved = momentum / after, u * min(batches - 1, rest / momentum)
    kept = POWER * u / before * (1 - weight) if before > 0 else 0.0
    return (
        POWER * u / after * np.abs(new) + kept * np.abs(old) + moved * weight * np.abs(batch - old)
    )


def running_bound(
    model: Model,
    old: Floats,
    batch: Floats,
    dbatch: Floats,
    momentum: float,
    new: Floats,
    besides: Floats | float = 0.0,
) -> Floats:
    """Bound of |dr'| for r' = (1 − m) r + m b, shape (C, 1); ``dbatch`` bounds the error of b.

    ``besides`` bounds what a kernel is off by before r' is rounded, apart from what any kernel is.

    Covers r + m (b − r) and a momentum held in the layer's dtype: both perturb r and b by multiples
    of m. A kernel may instead hold the complement d = (1 − m)(1 + δ), as frameworks do whose
    momentum weighs the old value, and compute d r + (1 − d) b: that moves the result by (1 − m) δ
    (r − b), and b and its error weigh m + (1 − m) |δ|.
    """
    delta, u = model.gamma(1, model.statistics), model.spent("running")
    weight, complement = abs(momentum) + delta * abs(1 - momentum), (1 + delta) * abs(1 - momentum)
    exact = weight * dbatch * (1 + u) + u * (
        (weight + complement) * np.abs(old) + weight * np.abs(batch)
    )
    exact = exact + delta * complement * np.abs(batch - old)
    held = model.dtype.parameters
    exact = exact + complement * model.unread(held) + besides
    final = held.u * (np.abs(new) + exact) + model.underflow(held)
    lost = len(BUDGET["running"]) * model.underflow(model.statistics)
    return OWN_ERROR * (exact + final + lost * (1 + np.abs(old) + np.abs(batch)))


# The domain in which the bounds are theorems


ROOM = 16
"""Factor below the largest number that leaves room for what a kernel forms on its way."""


def sums_in_range(model: Model, largest: Floats) -> Bools:
    """Where no sum of values overflows, shape (C, 1); ``largest`` is max|x|.

    Comparisons with NaN are false, so a channel with non-finite data is outside.
    """
    inside: Bools = model.n * largest < model.dtype.accumulation.largest / ROOM
    return inside


def squares_in_range(model: Model, largest: Floats, spread: Floats, dmean: Floats) -> Bools:
    """Where no sum of squares overflows: of deviations from a mean that is off by ``dmean``, or of the values.

    ``spread`` is max x − min x. A textbook kernel may form the square of the sum, as in n Σx² −
    (Σx)².
    """
    squares = (
        (model.n * largest) ** 2
        if model.accuracy.grade == "textbook"
        else model.n * (spread + dmean) ** 2
    )
    inside: Bools = squares < model.dtype.accumulation.largest / ROOM
    return inside


def variance_in_range(model: Model, m: Moments, eps: float) -> Bools:
    """Where var + eps is neither subnormal nor lost in the overflow of its error, and s can be kept."""
    held, summed = model.statistics, model.dtype.accumulation
    least = max(ROOM * summed.smallest_normal, LEAST_VARIANCE)
    inside: Bools = (m.var + eps > least) & (m.dvar < summed.largest / ROOM)
    if model.keeps_coarsely:
        lost = ROOM * model.underflow(held)
        inside = (
            inside
            & (m.var + m.dvar + eps < held.largest)
            & (m.var + eps > max(lost, held.largest**-2))
        )
    return inside


def eps_in_range(model: Model, eps: float) -> bool:
    """Whether eps alone keeps s finite in the accumulation."""
    return eps > ROOM * model.dtype.accumulation.smallest_normal


def in_range(format: Format, *sizes: Floats) -> Bools:
    """Where all of these magnitudes can be formed in a format without overflow."""
    inside: Bools = np.logical_and.reduce([size < format.largest / ROOM for size in sizes])
    return inside


def normalised_sizes(
    m: Moments, eps: float, largest: Floats, weight: Floats, bias: Floats
) -> tuple[Floats, ...]:
    """Magnitudes on the way from x to y, in either form: gamma s (x − mu) in any order, and x a + (beta − mu a)."""
    scale = np.maximum(np.abs(weight), 1) * np.maximum(1 / np.sqrt(m.var + eps), 1)
    return largest, scale * largest, scale * np.abs(m.mean), np.abs(bias)
