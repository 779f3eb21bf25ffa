"""Sound specimens: correct kernels of every kind. The suite must flag none of them.

Each docstring says how the kernel computes; sources are those of :mod:`bn_spec.bounds`.
"""

from __future__ import annotations

import numpy as np

from ..dtypes import Array
from .catalogue import sound
from .kernel import Kernel, across


@sound("two-pass-sequential", grade="two-pass")
class Sequential(Kernel):
    """Mean, then squared deviations, each summed from left to right."""


@sound("two-pass-pairwise", grade="two-pass")
class Pairwise(Kernel):
    """Mean, then squared deviations, each summed pairwise."""

    def total(self, rows: Array) -> Array:
        while rows.shape[1] > 1:
            half = rows.shape[1] // 2
            rows = np.concatenate([rows[:, :half] + rows[:, half : 2 * half], rows[:, 2 * half :]], axis=1)
        return rows[:, 0]


@sound("two-pass-backward", grade="two-pass")
class Backward(Kernel):
    """Mean, then squared deviations, each summed from right to left."""

    def total(self, rows: Array) -> Array:
        return super().total(rows[:, ::-1])


@sound("wide-accumulation", grade="two-pass", dtypes=("float32",))
class WideAccumulation(Kernel):
    """Sums and moments in float64, rounded to float32 at the end."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, var = super().moments(rows.astype(np.float64))
        return mean.astype(rows.dtype), var.astype(rows.dtype)


@sound("folded-affine", grade="two-pass")
class Folded(Pairwise):
    """The output as x a + b with a = weight · s and b = bias − mean · a."""

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        a = s if self.weight is None else s * self.weight
        b = -mean * a if self.bias is None else self.bias - mean * a
        return x * across(a) + across(b)


@sound("blend-by-difference", grade="two-pass")
class BlendByDifference(Kernel):
    """Running statistics as r + m (b − r); 1 / sqrt by two Newton steps from a rough start; mean by a reciprocal."""

    def mean(self, rows: Array) -> Array:
        product: Array = self.total(rows) * (1 / rows.dtype.type(rows.shape[1]))
        return product

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return old + m * (new - old)

    def inverse_std(self, var: Array) -> Array:
        v = var + var.dtype.type(self.config.eps)
        s: Array = (1 / np.sqrt(v)) * var.dtype.type(1 + 1e-4)
        for _ in range(3):
            s = s * (1.5 - (v * s) * (s * 0.5))
        return s


@sound("momentum-by-complement", grade="two-pass")
class MomentumByComplement(Kernel):
    """Running statistics as d r + (1 − d) b, the weight d = 1 − m of the old value held in the layer's dtype."""

    def blend(self, old: Array, new: Array, m: float) -> Array:
        d = old.dtype.type(1 - m)
        blended: Array = d * old + (1 - d) * new
        return blended


@sound("welford", grade="welford")
class Welford(Kernel):
    """One pass, value by value: mean += (x − mean) / k, M2 += (x − old mean)(x − new mean)."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, m2 = np.zeros((2, len(rows)), rows.dtype)
        for k, x in enumerate(rows.T, 1):
            delta = x - mean
            mean = mean + delta / rows.dtype.type(k)
            m2 = m2 + delta * (x - mean)
        return mean, m2 / rows.dtype.type(rows.shape[1])


@sound("chan-merge", grade="welford")
class ChanMerge(Kernel):
    """Pairwise merges of (count, mean, M2), down to single values."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, m2 = _merged(rows)
        return mean, m2 / rows.dtype.type(rows.shape[1])


def _merged(rows: Array) -> tuple[Array, Array]:
    n = rows.shape[1]
    if n == 1:
        return rows[:, 0], np.zeros_like(rows[:, 0])
    n_a = n // 2
    (mean_a, m2_a), (mean_b, m2_b) = _merged(rows[:, :n_a]), _merged(rows[:, n_a:])
    delta, share = mean_b - mean_a, rows.dtype.type((n - n_a) / n)
    return mean_a + delta * share, m2_a + m2_b + delta * delta * (share * rows.dtype.type(n_a))


@sound("textbook", grade="textbook")
class Textbook(Kernel):
    """One pass of sums of x and x²: E[x²] − E[x]², clamped at zero."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        return mean, np.maximum(self.mean(rows * rows) - mean * mean, 0)
