"""The formulas of BatchNorm2d, one function each, in double-double arithmetic.

A channel is a row: ``x`` has the shape (C, n) with n = N·H·W, and a value per channel has the
shape (C, 1).

Sources:

- Ioffe & Szegedy 2015, algorithm 1: batch statistics, normalisation and affine map.
- Ioffe & Szegedy 2015, section 3.1: the unbiased variance for inference.
- The documentation of torch.nn.BatchNorm2d: running statistics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bn_spec.case.dialect import PYTORCH
from bn_spec.case.dtypes import Array
from bn_spec.oracle.reference.extended import Extended

# Forward


def mean(x: Extended) -> Extended:
    """Return the mean of each channel: μ = Σ x / n."""
    return x.total() / float(x.hi.shape[-1])


def biased_variance(x: Extended, mu: Extended) -> Extended:
    """Return the biased variance of each channel: σ² = Σ (x − μ)² / n."""
    deviation = x - mu
    return mean(deviation * deviation)


def unbiased_variance(var: Extended, n: int) -> Extended:
    """Return the unbiased variance σ² n / (n − 1), from the biased variance σ² of n values.

    The result for a single value is its biased variance, 0.
    """
    return var * float(n) / float(max(n - 1, 1))


def inverse_std(var: Extended, eps: float) -> Extended:
    """Return s = 1 / √(σ² + ε)."""
    return 1.0 / (var + eps).sqrt()


def normalise(x: Extended, mu: Extended, s: Extended) -> Extended:
    """Return x̂ = (x − μ) s."""
    return (x - mu) * s


def affine(x_hat: Extended, weight: Extended, bias: Extended) -> Extended:
    """Return y = γ x̂ + β."""
    return weight * x_hat + bias


# Running statistics


def blend(running: Extended, batch: Extended, momentum: Extended) -> Extended:
    """Return the exponential moving average r' = (1 − m) r + m b."""
    return (1.0 - momentum) * running + momentum * batch


def update_factor(
    momentum: float | None, batches: int, averages: str = PYTORCH.averages
) -> Extended:
    """Return the weight of the new value: m, or 1 / k for a cumulative mean (momentum None).

    Args:
        momentum: m.
        batches: k, the number of batches tracked, the new one included.
        averages: the convention of :class:`bn_spec.case.dialect.Dialect` with this name.

    For debiased averages, let h' = (1 − m) h + m b from h = 0. After k batches, h has the bias
    1 − (1 − m)^k (Kingma & Ba 2015, section 3). Divided by this bias, the k-th batch has the
    weight m / (1 − (1 − m)^k).

    """
    if momentum is None:
        return 1.0 / Extended(float(batches))
    m = Extended(momentum)
    if averages == "debiased":
        return m / (1.0 - power(1.0 - m, batches))
    if averages == "from the first batch" and batches <= 1:
        return Extended(1.0)
    return m


def power(base: Extended, exponent: int) -> Extended:
    """Return the power of a base to an exponent >= 0, by repeated squaring."""
    result = Extended(1.0)
    while exponent > 0:
        if exponent % 2:
            result = result * base
        base = base * base
        exponent = exponent // 2
    return result


# Backward


def projected(dy: Extended, x_hat: Extended) -> Extended:
    """Return dy less its components along 1 and x̂: dy − mean(dy) − x̂ mean(dy x̂).

    Source: the chain rule through mean and variance (Ioffe & Szegedy 2015, section 3). Its terms
    are collected by ∂x̂ᵢ/∂xⱼ = s (δᵢⱼ − 1/n − x̂ᵢ x̂ⱼ / n).
    """
    return dy - mean(dy) - x_hat * mean(dy * x_hat)


class Normalised(NamedTuple):
    """The values of a forward that its derivatives depend on.

    ``weight`` (γ) and ``s`` have the shape (C, 1), ``x_hat`` (x̂) has the shape (C, n).
    ``constant_statistics`` is true in eval mode, where μ and σ² are the running statistics and do
    not depend on x. It is false where they are the batch statistics.
    """

    weight: Extended
    s: Extended
    x_hat: Extended
    constant_statistics: bool

    def projected(self, dy: Extended) -> Extended:
        """Return ∂(Σ dy x̂)/∂x / s: dy for constant statistics, else dy projected."""
        return dy if self.constant_statistics else projected(dy, self.x_hat)


def gradients(of: Normalised, dy: Extended) -> tuple[Extended, Extended, Extended]:
    """Return the gradients of Σ dy y with respect to x (C, n), weight and bias (C, 1)."""
    dx = of.weight * of.s * of.projected(dy)
    dweight = (dy * of.x_hat).total()
    dbias = dy.total()
    return dx, dweight, dbias


def double_gradients(
    of: Normalised, dy: Extended, v: Extended, w_dot: Extended, b_dot: Extended
) -> tuple[Extended, Extended, Extended]:
    """Return the gradients of Σ v dx + Σ ẇ dweight + Σ ḃ dbias.

    dx, dweight and dbias are the ``gradients``; ``v`` (C, n), ``w_dot`` and ``b_dot`` (C, 1)
    are their cotangents. The results are the gradients with respect to dy (C, n), x (C, n) and
    weight (C, 1).
    """
    weight, s, x_hat, constant_statistics = of
    ddy = weight * s * of.projected(v) + w_dot * x_hat + b_dot
    ddx = w_dot * s * of.projected(dy)
    if not constant_statistics:
        ddx = ddx - weight * s * s * curvature(dy, v, x_hat)
    ddweight = s * (v * of.projected(dy)).total()
    return ddy, ddx, ddweight


def curvature(dy: Extended, v: Extended, x_hat: Extended) -> Extended:
    """Return −∂(Σ v projected(dy) s)/∂x / s².

    It is x̂ (mean(v dy) − v̄ ḡ − 3 a c) + c (v − v̄) + a (dy − ḡ), with the means ḡ of dy and v̄ of
    v, c = mean(dy x̂) and a = mean(v x̂).

    Source: the derivatives ∂s/∂xⱼ = −s² x̂ⱼ / n and ∂c/∂xⱼ = s projected(dy)ⱼ / n, applied to
    Σ v dy − n v̄ ḡ − n a c.
    """
    g_bar = mean(dy)
    v_bar = mean(v)
    c = mean(dy * x_hat)
    a = mean(v * x_hat)
    along_x_hat = mean(v * dy) - v_bar * g_bar - 3.0 * a * c
    return x_hat * along_x_hat + c * (v - v_bar) + a * (dy - g_bar)


# Layouts


def by_channel(x: Array, number: type[Extended] = Extended) -> Extended:
    """Return an array (N, C, H, W) as rows (C, n), in the arithmetic ``number``."""
    channels = x.shape[1]
    n = x.size // max(channels, 1)
    # In C order, so that NumPy sums along a row pairwise.
    rows = np.ascontiguousarray(x.transpose(1, 0, 2, 3).reshape(channels, n), np.float64)
    return number(rows)


def by_sample(rows: Extended, shape: tuple[int, ...]) -> Extended:
    """Return rows (C, n) as an array of ``shape`` (N, C, H, W)."""
    n, c, h, w = shape
    return rows.reshape(c, n, h, w).transpose(1, 0, 2, 3)


def column(
    values: Array | None, default: float, channels: int, number: type[Extended] = Extended
) -> Extended:
    """Return values per channel (C,) as a column (C, 1), in the arithmetic ``number``.

    A tensor that the layer does not have (None) becomes a column of ``default``.
    """
    if values is None:
        return number(np.full((channels, 1), default))
    return number(values.reshape(channels, 1))
