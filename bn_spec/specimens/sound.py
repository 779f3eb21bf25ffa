"""Sound specimens: correct kernels of every kind. The suite must flag none of them.

The first line of a docstring says how the kernel computes; users read it as the description of the
specimen. The sources of the algorithms are those of :mod:`bn_spec.oracle.bounds`.
"""

from __future__ import annotations

import numpy as np

from bn_spec.case.dtypes import DTYPES, Array, format_named
from bn_spec.specimens.catalogue import sound
from bn_spec.specimens.kernel import Kernel, Saved, across

HALF = ("float16", "bfloat16")
NARROW = tuple(name for name, row in DTYPES.items() if row.accumulation.name == "float32")


@sound(
    "two-pass-sequential",
    grade="two-pass",
    overflow_safe=True,
    centred_products=True,
    gradient_layout=True,
    output_layout=True,
    empty_batch=True,
    double_backward=tuple(DTYPES),
)
class Sequential(Kernel):
    """The kernel sums values, then squared deviations, each from left to right."""


@sound(
    "two-pass-pairwise",
    grade="two-pass",
    overflow_safe=True,
    summation="pairwise",
    centred_products=True,
    double_backward=tuple(DTYPES),
)
class Pairwise(Kernel):
    """The kernel sums values, then squared deviations, each pairwise."""

    def total(self, rows: Array) -> Array:
        while rows.shape[1] > 1:
            half = rows.shape[1] // 2
            rows = np.concatenate(
                [rows[:, :half] + rows[:, half : 2 * half], rows[:, 2 * half :]], axis=1
            )
        return rows[:, 0]


@sound("two-pass-backward", grade="two-pass", overflow_safe=True)
class SumsRightToLeft(Kernel):
    """The kernel sums values, then squared deviations, each from right to left."""

    def total(self, rows: Array) -> Array:
        return super().total(rows[:, ::-1])


@sound(
    "wide-accumulation",
    grade="two-pass",
    overflow_safe=True,
    summation="wide",
    centred_products=True,
    dtypes=NARROW,
)
class WideAccumulation(Kernel):
    """Sums and moments are computed in float64 and rounded to float32 at the end."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, var = super().moments(rows.astype(np.float64))
        return mean.astype(rows.dtype), var.astype(rows.dtype)

    def total(self, rows: Array) -> Array:
        return np.asarray(super().total(rows.astype(np.float64)), rows.dtype)


@sound("channels-last-traversal", grade="two-pass", overflow_safe=True)
class ChannelsLastTraversal(Kernel):
    """Pixels are added in NHWC memory order, each to the sums of all channels at once."""

    def total(self, rows: Array) -> Array:
        pixels = np.ascontiguousarray(rows.T)
        # NumPy sums an outer axis in order; only the innermost axis is summed pairwise.
        total: Array = np.add.reduce(pixels, axis=0, dtype=rows.dtype)
        return total


@sound("folded-affine", grade="two-pass", overflow_safe=True)
class Folded(Pairwise):
    """The output is x · a + b, with a = weight · s and b = bias − mean · a."""

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        a = s if self.weight is None else s * self.weight
        b = -mean * a if self.bias is None else self.bias - mean * a
        return x * across(a) + across(b)


@sound("weight-first", grade="two-pass", overflow_safe=True)
class WeightFirst(Kernel):
    """The output is weight · (x − mean) · s + bias, multiplied from left to right.

    The first product can overflow although the output would not.
    """

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        deviations = x - across(mean)
        if self.weight is not None:
            deviations = deviations * across(self.weight)
        y: Array = deviations * across(s)
        return y if self.bias is None else y + across(self.bias)


@sound("blend-by-difference", grade="two-pass", unbiased=False)
class BlendByDifference(Kernel):
    """Running statistics are r + m (b − r), and Newton steps compute 1 / sqrt(var + eps).

    The mean is a product with a reciprocal. The errors of the Newton steps fall on one side.
    """

    def mean(self, rows: Array) -> Array:
        product: Array = self.total(rows) * (1 / rows.dtype.type(rows.shape[1]))
        return product

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return old + m * (new - old)

    def inverse_std(self, var: Array) -> Array:
        v = var + var.dtype.type(self.config.eps)
        s: Array = (1 / np.sqrt(v)) * var.dtype.type(1 + 1e-4)
        # Newton's iteration converges to 1 / sqrt(v) from below, so that errors fall on one side.
        for _ in range(3):
            s = s * (1.5 - (v * s) * (s * 0.5))
        return s


@sound("momentum-by-complement", grade="two-pass", overflow_safe=True)
class MomentumByComplement(Kernel):
    """Running statistics are d r + (1 − d) b, with d = 1 − m in the accumulation dtype."""

    def blend(self, old: Array, new: Array, m: float) -> Array:
        d = old.dtype.type(1 - m)
        blended: Array = d * old + (1 - d) * new
        return blended


@sound("welford", grade="welford", overflow_safe=True)
class Welford(Kernel):
    """Each value x updates mean += (x − mean) / k and M2 += (x − old mean)(x − new mean)."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, m2 = np.zeros((2, len(rows)), rows.dtype)
        for k, x in enumerate(rows.T, 1):
            delta = x - mean
            mean = mean + delta / rows.dtype.type(k)
            m2 = m2 + delta * (x - mean)
        return mean, m2 / rows.dtype.type(rows.shape[1])


@sound("chan-merge", grade="welford", overflow_safe=True, summation="pairwise")
class ChanMerge(Pairwise):
    """The kernel merges (count, mean, M2) pairwise, down to single values."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, m2 = _merged(rows)
        return mean, m2 / rows.dtype.type(rows.shape[1])


def _merged(rows: Array) -> tuple[Array, Array]:
    """Return mean and M2 = Σ (x − mean)², both (C,), of rows (C, n), merged from both halves.

    With δ = mean_b − mean_a: mean = mean_a + δ n_b / n, and M2 = M2_a + M2_b + δ² n_a n_b / n.
    """
    n = rows.shape[1]
    if n == 1:
        return rows[:, 0], np.zeros_like(rows[:, 0])
    n_a = n // 2
    (mean_a, m2_a), (mean_b, m2_b) = _merged(rows[:, :n_a]), _merged(rows[:, n_a:])
    delta, share = mean_b - mean_a, rows.dtype.type((n - n_a) / n)
    return mean_a + delta * share, m2_a + m2_b + delta * delta * (share * rows.dtype.type(n_a))


@sound("blocks-merged", grade="welford", overflow_safe=True)
class BlocksMerged(Kernel):
    """Blocks of 64 values take two passes each and are merged in order.

    The merge of (count, mean, M2) is that of Chan, Golub and LeVeque.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        real = rows.dtype.type
        n = min(rows.shape[1], 64)
        mean, var = super().moments(rows[:, :n])
        m2 = var * real(n)
        for start in range(n, rows.shape[1], 64):
            block = rows[:, start : start + 64]
            count = block.shape[1]
            block_mean, block_var = super().moments(block)
            delta = block_mean - mean
            mean = mean + delta * real(count / (n + count))
            m2 = m2 + block_var * real(count) + delta * delta * real(n * count / (n + count))
            n += count
        return mean, m2 / real(n)


@sound("textbook", grade="textbook", direct_means=True)
class Textbook(Kernel):
    """One pass sums x and x²; the variance is E[x²] − E[x]², clamped at zero."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        return mean, np.maximum(self.mean(rows * rows) - mean * mean, 0)


@sound("fused-multiply-add", grade="two-pass", overflow_safe=True, dtypes=NARROW)
class FusedMultiplyAdd(Kernel):
    """Squares enter their sum, and weighted values the output, by fused multiply-add.

    A fused multiply-add does not round the product before the sum.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        sum_of_squares = np.zeros(len(rows), rows.dtype)
        for deviation in (rows - mean[:, None]).T:
            sum_of_squares = fused(deviation, deviation, sum_of_squares)
        return mean, sum_of_squares / rows.dtype.type(rows.shape[1])

    def affine(self, x_hat: Array) -> Array:
        if self.weight is None or self.bias is None:
            return x_hat
        return fused(x_hat, across(self.weight), across(self.bias))


def fused(a: Array, b: Array, c: Array) -> Array:
    """Return a · b + c with one rounding to float32 (the product is exact in float64)."""
    wide: Array = a.astype(np.float64) * b + c
    return wide.astype(np.float32)


@sound("statistics-in-half", grade="two-pass", statistics="parameters", dtypes=HALF)
class StatisticsInHalf(Kernel):
    """Mean, variance and 1 / sqrt(var + eps) are rounded to the dtype of the parameters.

    They are rounded before they are used.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.kept(self.mean(rows))
        deviations = rows - mean[:, None]
        return mean, self.kept(self.mean(deviations * deviations))

    def inverse_std(self, var: Array) -> Array:
        # 1 / sqrt(eps) can exceed the largest float16; the kernel saturates there.
        largest = self.config.arithmetic.parameters.largest
        return np.minimum(self.kept(super().inverse_std(var)), largest)

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return self.kept(super().blend(old, self.kept(new), m))

    def kept(self, statistic: Array) -> Array:
        """Round to the dtype of the parameters, and widen again."""
        return self.widened(statistic.astype(self.config.arithmetic.parameters.dtype))


@sound(
    "all-in-half", grade="two-pass", statistics="parameters", elementwise="parameters", dtypes=HALF
)
class AllInHalf(StatisticsInHalf):
    """Statistics and every step of the output are rounded to the dtype of the parameters."""

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        return self.affine(self.kept(self.kept(x - across(mean)) * across(s)))

    def affine(self, x_hat: Array) -> Array:
        if self.weight is None or self.bias is None:
            return x_hat
        return self.kept(self.kept(x_hat * across(self.weight)) + across(self.bias))


@sound("flushes-subnormals", grade="two-pass", subnormals=False)
class FlushesSubnormals(Kernel):
    """Subnormal inputs, statistics and outputs are flushed to zero, as claimed."""

    def forward(self, x: Array) -> Array:
        return self.flushed(super().forward(x))

    def widened(self, values: Array) -> Array:
        return super().widened(self.flushed(values))

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        deviations = self.flushed(rows - mean[:, None])
        return mean, self.mean(self.flushed(deviations * deviations))

    def mean(self, rows: Array) -> Array:
        return self.flushed(super().mean(rows))

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return self.flushed(
            super().blend(old, new, m).astype(self.config.arithmetic.parameters.dtype)
        )

    def flushed(self, values: Array) -> Array:
        """Replace subnormal values by zeros of their sign."""
        least = format_named(values.dtype.name).smallest_normal
        kept: Array = np.where(np.abs(values) < least, values * 0, values)
        return kept


@sound("shifted-products", grade="two-pass", overflow_safe=True)
class ShiftedProducts(Kernel):
    """The gradient of the weight is s (Σ dy x − mean Σ dy), whose two sums may cancel."""

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        products = self.total(g * self.rows(saved.x))
        shifted: Array = saved.s * (products - saved.mean * self.total(g))
        return shifted


@sound("folded-gradient", grade="two-pass", overflow_safe=True, centred_products=True)
class FoldedGradient(Kernel):
    """dx is a dy + b x + d, and x̂ is x s − mean s."""

    def normalised_rows(self, saved: Saved) -> Array:
        x_hat: Array = self.rows(saved.x) * saved.s[:, None] - (saved.mean * saved.s)[:, None]
        return x_hat

    def input_gradient(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        if saved.constant:
            return super().input_gradient(g, x_hat, dbias, dweight, saved)
        n = g.dtype.type(g.shape[1])
        # dx = a (dy − dbias / n − x̂ dweight / n) with x̂ = (x − mean) s, sorted by dy, x and 1.
        a = self.scale(saved)
        b = -a * saved.s * (dweight / n)
        d = -b * saved.mean - a * (dbias / n)
        dx: Array = a[:, None] * g + b[:, None] * self.rows(saved.x) + d[:, None]
        return dx


@sound("gradient-divided-last", grade="two-pass", overflow_safe=True, summation="pairwise")
class GradientDividedLast(Pairwise):
    """dx is (weight s / n) (n dy − Σ dy − x̂ Σ dy x̂)."""

    def input_gradient(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        if saved.constant:
            return super().input_gradient(g, x_hat, dbias, dweight, saved)
        n = g.dtype.type(g.shape[1])
        inner = n * g - dbias[:, None] - x_hat * dweight[:, None]
        dx: Array = (self.scale(saved) / n)[:, None] * inner
        return dx


@sound(
    "backward-from-float64",
    grade="two-pass",
    overflow_safe=True,
    centred_products=True,
    dtypes=NARROW,
)
class BackwardFromFloat64(Kernel):
    """The forward runs in float32; the backward recomputes its statistics in float64."""

    def normalised_rows(self, saved: Saved) -> Array:
        if saved.constant:
            return super().normalised_rows(saved)
        rows = self.rows(saved.x).astype(np.float64)
        mean, var = self.moments(rows)
        x_hat: Array = (rows - mean[:, None]) / np.sqrt(var + saved.eps)[:, None]
        return x_hat
