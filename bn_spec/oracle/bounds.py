"""A priori error bounds: the largest error that a correct kernel can have, per element.

Every bound is a theorem about a *model kernel*, not a tolerance. The model kernel works in a
floating-point arithmetic of unit roundoff u. Its sums are of the class that it claims. It spends
at most the roundings of ``BUDGET`` on an elementwise expression. Only ``err / bound <= 1`` is
judged. docs/numerics.md has the derivations in full.

Notation:

- n: the number of values per channel.
- mu, var: the exact mean and the exact biased variance. σ² = var.
- Q² = var + mu²: the mean square.
- γ(k) = k u / (1 − k u): the growth of k roundings (Higham, *Accuracy and Stability of Numerical
  Algorithms*, 2nd ed., lemma 3.1).
- G: the largest number of roundings that a term of a sum of n goes through (``SUMMATIONS``).
- η: the largest loss of one operation that underflows. It is the smallest subnormal number, or the
  smallest normal number where subnormals are flushed.
- dmu, dvar: bounds on the absolute errors of the kernel's mean and variance.

**Mean.** A sum of n terms, and then a division or a multiplication by a rounded reciprocal, spends
at most G + 1 roundings per term (Higham, section 4.2): |dmu| <= γ(G+1) mean|x|. In any order, G is
n. A running mean (Welford) rounds mu_k once (weight k/n) and its increment (x_k − mu_{k−1}) / k
twice. The errors add up to at most (n + 3 + 2 H_n) u mean|x|, where H_n is the harmonic number.
Each merge of a balanced tree (Chan, Golub, LeVeque 1983) adds at most 7 roundings. M = 7 log2 n + 2
more roundings cover both, and blocks of either kind merged by the other.

**Variance.** If the mean is off by e, the deviations x − mu − e have the mean square var + e². If e
changes from term to term, it is at most var + 2 e σ + e², by Cauchy–Schwarz:

==========  ==============================================  =======================
grade       |dvar| at most                                  kernels
==========  ==============================================  =======================
two-pass    γ(G+4) (var + dmu²) + dmu²                      subtract the final mean
welford     γ(G+M+4) (σ + e)² + 2 e σ + e²                  Welford, Chan's merges
textbook    the above + γ(G+4) Q² + 2 |mu| dmu + dmu²       E[x²] − E[x]²
==========  ==============================================  =======================

Here e = γ(G+M+1) Q bounds the root mean square of the errors of all intermediate means. In any
order, each error is at most (k + 3 + 2 H_k) u sqrt(n/k) Q, and the sum of their squares, with their
weights, stays below e². In a tree, each of 1 + log2 n levels contributes squares of its own. With
κ² = 1 + mu²/var, the first-order growths are 1, κ and κ² (Chan & Lewis 1979; Higham, section 1.9).

**Exact sums.** Let all values of a channel be multiples of some q, and Σ|x| <= q/u. Every partial
sum in any order is then representable, and nothing is rounded. If n is a power of two, the mean is
not rounded either. The same holds for the squares. On such channels dmu = dvar = 0, for kernels
that sum first and divide once.

**The reference's own error.** The reference is itself a two-pass kernel. Its sums spend at most 64
roundings per term. It works in float64 where the kernel accumulates in float32, and in
double-double arithmetic (unit roundoff below 2**-98) where the kernel accumulates in float64. Every
bound grows at least linearly in u, and its least multiple is 2 u. The error of the reference is
therefore below 2**-53 · 64 / 2**-23 = 2**-24 of the bound. The factor ``OWN_ERROR`` pays for it
and for the rounding of the bound's evaluation in float64.
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
            "eps rounded to the layer's dtype, halved by the root": 0.5,
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
            "momentum rounded to the layer's dtype": 1,
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
"""Number of roundings that each elementwise expression may spend, by operation.

A fused multiply-add spends fewer. docs/numerics.md derives the numbers.
"""

OWN_ERROR = 1 + 2.0**-20
"""Factor on every bound, for the errors of the reference and of the bound's own evaluation."""

LEAST_VARIANCE = 2.0**-960
"""Smallest var + eps in the domain; below it, double-double products lose bits to underflow."""

GRADES = ("two-pass", "welford", "textbook")
"""Numerical classes of the variance; each admits every kernel of those before it."""

LEAF = 32
"""Maximum number of additions within a leaf of a pairwise sum; NumPy's blocks of 128 need 26."""

SUMMATIONS: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "any order": lambda n, _: n,
        "pairwise": lambda n, _: min(n, log2(n) + LEAF),
        "wide": lambda n, u: 1 + n * u,
    }
)
"""G, the maximum number of roundings per term, as a function of n and u, by class of summation.

A ``pairwise`` sum pairs the sums of leaves of at most ``LEAF`` additions. A ``wide`` sum
accumulates in a unit roundoff of at most u² and is rounded once. Sources: Higham, section 4.2 and
problem 4.2.
"""

KEEPING = ("accumulation", "parameters")
"""Formats in which a kernel may keep intermediate results.

They are fields of :class:`bn_spec.case.dtypes.DType`.
"""

KEPT_OF_VARIANCE = 3
"""Number of roundings of a variance kept coarsely: the sum of squares, n, and their quotient."""


@dataclass(frozen=True)
class Accuracy:
    """The claims of a kernel about its arithmetic. The defaults claim little.

    A stronger claim narrows the bounds.

    Raises:
        ConfigError: a grade, a class of summation or a format is not known.

    """

    grade: str = "welford"
    """Numerical class of the variance: one of ``GRADES``."""
    summation: str = "any order"
    """Class of all sums: a key of ``SUMMATIONS``."""
    statistics: str = "accumulation"
    """Format of the kept mean, variance, inverse standard deviation, and of running updates.

    One of ``KEEPING``.
    """
    elementwise: str = "accumulation"
    """Format in which the output is computed from the statistics: one of ``KEEPING``."""
    direct_means: bool = False
    """A mean is a sum divided once, never a running or a merged mean.

    A two-pass kernel claims it in any case.
    """
    centred_products: bool = False
    """In a backward, Σ dy x̂ is formed from deviations x − mu, never as s (Σ dy x − mu Σ dy)."""
    subnormals: bool = True
    """Subnormal numbers are kept, not flushed to zero."""
    overflow_safe: bool = False
    """Where squares overflow and sums of values do not, the variance is infinite and no NaN arises.

    Compensated sums, E[x²] − E[x]² and Newton steps make NaN of infinities.
    """
    dialect: Dialect = PYTORCH
    """Conventions that the kernel is judged by."""

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
    """The model kernel: its row of formats, n values per channel, and its claims."""

    dtype: DType
    n: int
    accuracy: Accuracy = Accuracy()

    @property
    def u(self) -> float:
        """Unit roundoff of the accumulation."""
        return self.dtype.accumulation.u

    @property
    def statistics(self) -> Format:
        """Format in which the statistics are kept."""
        return self._coarser(self.accuracy.statistics)

    @property
    def elementwise(self) -> Format:
        """Format in which the output is computed from the statistics."""
        return self._coarser(self.accuracy.elementwise)

    def _coarser(self, keeping: str) -> Format:
        """Return the claimed format if it is coarser than the accumulation, else the latter."""
        claimed: Format = getattr(self.dtype, keeping)
        return claimed if claimed.u > self.u else self.dtype.accumulation

    @property
    def keeps_coarsely(self) -> bool:
        """Whether the statistics are kept in a coarser format than they are summed in."""
        return self.statistics.u > self.u

    @property
    def summing(self) -> float:
        """G: the maximum number of roundings that a term of a sum goes through."""
        return SUMMATIONS[self.accuracy.summation](self.n, self.u)

    @property
    def merging(self) -> float:
        """M: the number of roundings that merged or running means spend beyond one sum."""
        if self.sums_once:
            return 0.0
        roundings = 7 * log2(self.n) + 2
        # Roundings of at most u² count as u roundings of u.
        return roundings * self.u if self.accuracy.summation == "wide" else roundings

    @property
    def wandering(self) -> float:
        """Factor from the error of a tree's final mean to that of all its intermediate means."""
        return sqrt(1 + log2(self.n)) if self.accuracy.summation == "pairwise" else 1.0

    @property
    def sums_once(self) -> bool:
        """Whether every mean is a sum divided once."""
        return self.accuracy.direct_means or self.accuracy.grade == "two-pass"

    def gamma(self, roundings: float, format: Format | None = None) -> float:
        """Return γ(k) = k u / (1 − k u) for k roundings in a format, by default the accumulation.

        It is infinite from k u = 1 on.
        """
        growth = roundings * (format or self.dtype.accumulation).u
        return growth / (1 - growth) if growth < 1 else np.inf

    def spent(self, expression: str) -> float:
        """Return γ of the whole budget of an expression of ``BUDGET``."""
        of_statistics = expression in ("inverse std", "running")
        format = self.statistics if of_statistics else self.elementwise
        return self.gamma(sum(BUDGET[expression].values()), format)

    def underflow(self, format: Format) -> float:
        """Return η: the largest loss of one operation to underflow, in a format."""
        return format.smallest_subnormal if self.accuracy.subnormals else format.smallest_normal

    def unread(self, format: Format) -> float:
        """Return the largest loss of a number that is read: a subnormal may be flushed to zero."""
        return 0.0 if self.accuracy.subnormals else format.smallest_normal

    def kept(self, size: Floats, roundings: int = 1) -> Floats:
        """Return a bound on the error of keeping a statistic of magnitude <= size coarsely."""
        if not self.keeps_coarsely:
            return np.zeros_like(size)
        lost = roundings * self.underflow(self.statistics)
        return self.gamma(roundings, self.statistics) * size + lost


@dataclass(frozen=True)
class Moments:
    """Exact mean and variance per channel, and a bound on a kernel's error in each: (C, 1) all."""

    mean: Floats
    var: Floats
    dmean: Floats
    dvar: Floats


def batch_moments(
    model: Model, mean: Floats, var: Floats, mean_abs: Floats, exact: Bools | bool = False
) -> Moments:
    """Return the batch statistics with bounds on a kernel's errors in them.

    The derivation is in the docstring of this module. In addition, the mean is rounded once more
    when it is kept (u |mu|), and each of n terms may underflow before it is summed (n η and its
    growth).

    Args:
        model: the model kernel.
        mean: exact mean, shape (C, 1).
        var: exact biased variance, shape (C, 1).
        mean_abs: mean|x|, shape (C, 1).
        exact: whether ``sums_exactly`` holds for each channel, shape (C, 1).

    """
    u, grade = model.u, model.accuracy.grade
    sigma, rms = np.sqrt(var), np.sqrt(var + mean**2)
    roundings = model.summing + model.merging
    growth = 1 + model.gamma(roundings + 4)
    underflow = model.n * model.underflow(model.dtype.accumulation) * growth
    summed = model.gamma(roundings + 1) * mean_abs + u * np.abs(mean)
    unread = model.unread(model.dtype.data)
    dmean = np.where(exact, 0, summed) + underflow + unread
    dmean = dmean + model.kept(np.abs(mean) + dmean)
    dvar = model.gamma(model.summing + 4) * (var + dmean**2) + dmean**2
    if grade != "two-pass":
        # The bound for any order holds for trees too, and is the smaller one for few values.
        any_order = model.n + model.merging + 1
        e = model.gamma(min((roundings + 1) * model.wandering, any_order)) * rms + underflow
        dvar = dmean**2 + model.gamma(roundings + 4) * (sigma + e) ** 2 + 2 * e * sigma + e**2
    if grade == "textbook":
        dvar = dvar + model.gamma(model.summing + 4) * rms**2 + 2 * np.abs(mean) * dmean + dmean**2
    dvar = np.where(exact, 0, dvar) + underflow + unread * (2 * sigma + unread)
    return Moments(mean, var, dmean, dvar + model.kept(var + dvar, KEPT_OF_VARIANCE))


def stored_moments(model: Model, mean: Floats, var: Floats) -> Moments:
    """Return statistics stored in the layer (eval mode), shape (C, 1), with bounds on their errors.

    They are exact, except that a subnormal number may be read as zero.
    """
    unread = model.unread(model.dtype.parameters)
    return Moments(mean, var, np.full_like(mean, unread), np.full_like(var, unread))


def sums_exactly(model: Model, rows: Floats, mean: Floats) -> Bools:
    """Return whether mean and variance are computed without rounding in any order, shape (C, 1).

    Sums of multiples of q stay exact up to q/u, as the docstring of this module shows. This applies
    to the values, to the deviations and to their squares; in the textbook formula also to the
    squares of the values and of the mean.

    Args:
        model: the model kernel.
        rows: the values, shape (C, n).
        mean: their exact mean, shape (C, 1).

    """
    nowhere = np.zeros((len(rows), 1), bool)
    power_of_two = (model.n & (model.n - 1)) == 0
    one_by_one = not model.sums_once and model.n > 2  # a running mean divides by 3, 5, 7 …
    if not power_of_two or one_by_one:
        return nowhere
    deviations = rows - mean
    q, q_mean, q_deviations = _quantum(rows), _quantum(mean), _quantum(deviations)
    total = np.abs(rows).sum(axis=-1, keepdims=True)
    furthest = np.abs(rows).max(axis=-1, keepdims=True) + np.abs(mean)
    scatter = (deviations**2).sum(axis=-1, keepdims=True)
    exact = _fits(model, total, q) & _is_kept(model, mean)
    exact = exact & _fits(model, furthest, np.minimum(q, q_mean))
    exact = exact & _fits(model, scatter, q_deviations**2)
    if model.accuracy.grade == "textbook":
        squares = (rows**2).sum(axis=-1, keepdims=True)
        exact = exact & _fits(model, squares, q**2)
        exact = exact & _fits(model, squares / model.n, np.minimum(q**2 / model.n, q_mean**2))
    return exact


def _quantum(values: Floats) -> Floats:
    """Return the largest power of two that divides all values of a row; infinite for zeros."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest_bit = (whole & -whole).astype(np.float64)
    least = np.where(values == 0, np.inf, np.ldexp(lowest_bit, exponent - 53))
    quantum: Floats = least.min(axis=-1, keepdims=True)
    return quantum


def _fits(model: Model, size: Floats, quantum: Floats) -> Bools:
    """Return whether all multiples of ``quantum`` up to ``size`` are representable.

    A size at the limit does not fit, because it may itself be a rounded one.
    """
    fits: Bools = (size < quantum / model.u) & (quantum > model.dtype.accumulation.smallest_normal)
    return fits


def _is_kept(model: Model, statistic: Floats) -> Bools:
    """Return whether a statistic is representable in the format in which it is kept."""
    same: Bools = statistic == statistic.astype(model.statistics.dtype).astype(np.float64)
    return same


def inverse_std_error(model: Model, m: Moments, eps: float) -> Floats:
    """Return a bound on the relative error of s = 1 / sqrt(var + eps), shape (C, 1).

    It is more than a first-order bound. The computed variance lies in
    [max(var − dvar, 0), var + dvar], and s is monotone in it. Both ends are written without
    cancellation: √(1+r) − 1 = r / (√(1+r) + 1). The upper end of s is the farther one while
    var − dvar > 0. The lower end can be once the variance is clipped at 0. Where statistics are
    kept in a coarser format, var + eps and s may underflow in it.
    """
    kept = 2 * model.underflow(model.statistics) if model.keeps_coarsely else 0.0
    low = np.maximum(m.var - m.dvar, 0)
    # min(dvar, var) is var − low without cancellation.
    above = (np.minimum(m.dvar, m.var) + kept) / np.maximum(low + eps - kept, 0)
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
    output_format: Format | None = None,
) -> Floats:
    """Return a bound on the error of y = gamma x̂ + beta, shape (C, n).

    The errors of the statistics enter by
    (x − mu') s' − (x − mu) s = (mu − mu') s' + (x − mu) (s' − s).
    The roundings are those of either form. The direct form rounds |gamma x̂| and |beta|, in whatever
    order gamma, x − mu and s are multiplied. The folded form x a + (beta − mu a) also rounds
    |a mu|. Then y is rounded once to ``output_format``. A product that underflows loses at most η,
    and is then multiplied by one of gamma, x, mu and s.

    Args:
        model: the model kernel.
        m: mean and variance, shape (C, 1), with bounds on their errors.
        eps: the constant beside the variance.
        x: the values, shape (C, n), or the largest magnitude in each channel, shape (C, 1).
        x_hat: the exact normalised values, shape (C, n).
        weight: gamma, shape (C, 1).
        bias: beta, shape (C, 1).
        output_format: the format of the output; by default that of the data.

    """
    output_format = output_format or model.dtype.data
    u = model.spent("output")
    ds = inverse_std_error(model, m, eps)
    gamma, unshifted, s = np.abs(weight), weight * x_hat, (1 + ds) / np.sqrt(m.var + eps)
    # gamma s comes before |mu|: u |mu| alone may underflow where its product with s does not.
    steepest = gamma * s
    unread, unread_weight = model.unread(model.dtype.data), model.unread(model.dtype.parameters)
    # A difference of two numbers of a format cannot underflow in it, but may in a coarser one.
    coarse = model.underflow(model.elementwise) if model.elementwise.u > model.u else 0.0
    shift = (
        steepest * (m.dmean * (1 + u) + unread + coarse)
        + u * (steepest * np.abs(m.mean))
        + unread_weight
    )
    reach = 1 + gamma + np.abs(x) + np.abs(m.mean) + s
    lost = len(BUDGET["output"]) * model.underflow(model.elementwise) * reach
    scale = np.abs(unshifted) * (ds + u * (1 + ds))
    if unread_weight:
        scale = scale + unread_weight * (1 + ds) * np.abs(x_hat)
    exact = scale + (shift + u * np.abs(bias) + lost)
    rounded = output_format.u * np.abs(unshifted + bias) + model.underflow(output_format)
    return OWN_ERROR * ((1 + output_format.u) * exact + rounded)


POWER = 8
"""Number of roundings that the power (1 − m)^k may spend.

exp(k log(1 − m)) has an absolute error of (|x| + 4) u e^x for some x < 0.
"""

LARGEST_DIVISOR_ERROR = 1 / 16
"""Largest relative error of a divisor in the domain; its square is negligible up to here."""


def debiasing_error(
    model: Model, momentum: float, batches: int, old: Floats, batch: Floats, new: Floats
) -> Floats:
    """Return a bound on the error that debiasing adds to r' = h' / c', shape (C, 1).

    Here h' = (1 − m) h + m b, and the divisor c' = 1 − (1 − m)^k is off by ``POWER`` roundings
    of numbers below 1. In proportion to c', that is POWER · u / c'. The divisor c after k − 1
    batches has such an error too: h = c r was divided by it, or is multiplied by it. The share of r
    that remains in r' is (1 − m) c / c' = 1 − w, where w = m / c' is the weight of b. A rounding of
    1 − m changes w by at most min(k − 1, (1 − m) / m) times as much: w is 1 / Σ (1 − m)^i, and
    Σ i (1 − m)^i / Σ (1 − m)^i is no larger than either.

    Args:
        model: the model kernel.
        momentum: m.
        batches: k, the number of batches tracked, this one included.
        old: r, the running statistic before, shape (C, 1).
        batch: b, the statistic of the batch, shape (C, 1).
        new: r', the running statistic after, shape (C, 1).

    """
    u, rest = model.statistics.u, 1 - momentum
    after = 1 - rest**batches
    before = 1 - rest ** (batches - 1)
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
    """Return a bound on the error of r' = (1 − m) r + m b, shape (C, 1).

    The bound covers the form r + m (b − r), and a momentum rounded to the layer's dtype: both
    perturb r and b by multiples of m. A kernel may instead store the complement
    d = (1 − m)(1 + δ), as frameworks do whose momentum weighs the old value, and compute
    d r + (1 − d) b. That moves the result by (1 − m) δ (r − b). The weight of b and of its error is
    then m + (1 − m) |δ|.

    Args:
        model: the model kernel.
        old: r, the running statistic before, shape (C, 1).
        batch: b, the statistic of the batch, shape (C, 1).
        dbatch: a bound on the error of b, shape (C, 1).
        momentum: m.
        new: r', the exact running statistic after, shape (C, 1).
        besides: a bound on further errors of r' before it is rounded, such as
            ``debiasing_error``.

    """
    delta, u = model.gamma(1, model.statistics), model.spent("running")
    weight, complement = abs(momentum) + delta * abs(1 - momentum), (1 + delta) * abs(1 - momentum)
    exact = weight * dbatch * (1 + u) + u * (
        (weight + complement) * np.abs(old) + weight * np.abs(batch)
    )
    exact = exact + delta * complement * np.abs(batch - old)
    buffers = model.dtype.parameters
    exact = exact + complement * model.unread(buffers) + besides
    final = buffers.u * (np.abs(new) + exact) + model.underflow(buffers)
    lost = len(BUDGET["running"]) * model.underflow(model.statistics)
    return OWN_ERROR * (exact + final + lost * (1 + np.abs(old) + np.abs(batch)))


# The domain in which the bounds are theorems


ROOM = 16
"""Factor below the largest number of a format, as room for intermediate results."""


def sums_in_range(model: Model, largest: Floats) -> Bools:
    """Return whether no sum of values can overflow, shape (C, 1).

    ``largest`` is max|x|, shape (C, 1). A channel with data that are not finite is outside, because
    comparisons with NaN are false.
    """
    inside: Bools = model.n * largest < model.dtype.accumulation.largest / ROOM
    return inside


def squares_in_range(model: Model, largest: Floats, spread: Floats, dmean: Floats) -> Bools:
    """Return whether no sum of squares can overflow, shape (C, 1).

    The squares are those of the deviations from a mean that is off by ``dmean``. A textbook kernel
    may form the square of the sum of the values instead, as in n Σx² − (Σx)². ``largest`` is
    max|x|, ``spread`` is max x − min x, all of shape (C, 1).
    """
    if model.accuracy.grade == "textbook":
        squares = (model.n * largest) ** 2
    else:
        squares = model.n * (spread + dmean) ** 2
    inside: Bools = squares < model.dtype.accumulation.largest / ROOM
    return inside


def variance_in_range(model: Model, m: Moments, eps: float) -> Bools:
    """Return whether var + eps and s are in range, shape (C, 1).

    var + eps must not be subnormal, its error must not overflow, and s must be representable in the
    format in which it is kept.
    """
    summed, kept = model.dtype.accumulation, model.statistics
    least = max(ROOM * summed.smallest_normal, LEAST_VARIANCE)
    inside: Bools = (m.var + eps > least) & (m.dvar < summed.largest / ROOM)
    if model.keeps_coarsely:
        lost = ROOM * model.underflow(kept)
        inside = inside & (m.var + m.dvar + eps < kept.largest)
        inside = inside & (m.var + eps > max(lost, kept.largest**-2))
    return inside


def eps_in_range(model: Model, eps: float) -> bool:
    """Return whether eps alone keeps s finite in the accumulation."""
    return eps > ROOM * model.dtype.accumulation.smallest_normal


def in_range(format: Format, *sizes: Floats) -> Bools:
    """Return whether all of these magnitudes can be formed in a format without overflow."""
    inside: Bools = np.logical_and.reduce([size < format.largest / ROOM for size in sizes])
    return inside


def normalised_sizes(
    m: Moments, eps: float, largest: Floats, weight: Floats, bias: Floats
) -> tuple[Floats, ...]:
    """Return the magnitudes on the way from x to y, in either form, each of shape (C, 1).

    The forms are gamma s (x − mu), in any order of its factors, and x a + (beta − mu a).
    ``largest`` is max|x|.
    """
    scale = np.maximum(np.abs(weight), 1) * np.maximum(1 / np.sqrt(m.var + eps), 1)
    return largest, scale * largest, scale * np.abs(m.mean), np.abs(bias)
