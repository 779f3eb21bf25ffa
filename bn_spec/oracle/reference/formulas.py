"""BatchNorm2d as the formulas read, in double-double arithmetic.

One channel per row: ``x`` has shape (C, n) with n = N·H·W, everything per channel has shape (C, 1).

Sources: Ioffe & Szegedy 2015, algorithm 1 (batch statistics, normalisation, affine map) and section
3.1 (unbiased variance for inference); torch.nn.BatchNorm2d's documentation (running statistics).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bn_spec.case.dialect import PYTORCH
from bn_spec.case.dtypes import Array
from bn_spec.oracle.reference.extended import Extended


def mean(x: Extended) -> Extended:
    """Mean of each channel: Σ x / n."""
    return x.total() / float(x.hi.shape[-1])


def biased_variance(x: Extended, mu: Extended) -> Extended:
    """Biased variance of each channel: Σ (x − μ)² / n."""
    deviation = x - mu
    return mean(deviation * deviation)


def unbiased_variance(var: Extended, n: int) -> Extended:
    """Unbiased variance from the biased one: var · n / (n − 1); of a single value, whose variance is 0, that."""
    return var * float(n) / float(max(n - 1, 1))


def inverse_std(var: Extended, eps: float) -> Extended:
    """Return s = 1 / √(var + ε)."""
    return 1.0 / (var + eps).sqrt()


def normalise(x: Extended, mu: Extended, s: Extended) -> Extended:
    """Return x̂ = (x − μ) · s."""
    return (x - mu) * s


def affine(x_hat: Extended, weight: Extended, bias: Extended) -> Extended:
    """Return y = γ x̂ + β."""
    return weight * x_hat + bias


def projected(dy: Extended, x_hat: Extended) -> Extended:
    """Return dy less its components along 1 and x̂: dy − mean(dy) − x̂ · mean(dy x̂).

    Source: the chain rule through mean and variance, Ioffe & Szegedy 2015, section 3, collected by
    ∂x̂ᵢ/∂xⱼ = s (δᵢⱼ − 1/n − x̂ᵢ x̂ⱼ / n).
    """
    return dy - mean(dy) - x_hat * mean(dy * x_hat)


class Normalised(NamedTuple):
    """What derivatives take of a forward: weight and s, both (C, 1), and x̂ (C, n).

    ``given``: whether the statistics were given, and thus constants; otherwise they are those of
    the batch.
    """

    weight: Extended
    s: Extended
    x_hat: Extended
    given: bool

    def projected(self, dy: Extended) -> Extended:
        """Return what the gradient of x is a multiple of."""
        return dy if self.given else projected(dy, self.x_hat)


def gradients(of: Normalised, dy: Extended) -> tuple[Extended, Extended, Extended]:
    """Return the gradients of Σ dy · y with respect to x (C, n), weight and bias (C, 1)."""
    return of.weight * of.s * of.projected(dy), (dy * of.x_hat).total(), dy.total()


def double_gradients(
    of: Normalised, dy: Extended, v: Extended, w_dot: Extended, b_dot: Extended
) -> tuple[Extended, Extended, Extended]:
    """Return the gradients of Σ v · dx + Σ ẇ · dweight + Σ ḃ · dbias with respect to dy, x (C, n) and weight (C, 1).

    dx, dweight and dbias are the :func:`gradients`, ``v``, ``w_dot`` and ``b_dot`` their
    cotangents.
    """
    weight, s, x_hat, _ = of
    ddy = weight * s * of.projected(v) + w_dot * x_hat + b_dot
    dx = w_dot * s * of.projected(dy)
    if not of.given:
        dx = dx - weight * s * s * curvature(dy, v, x_hat)
    return ddy, dx, s * (v * of.projected(dy)).total()


def curvature(dy: Extended, v: Extended, x_hat: Extended) -> Extended:
    """Return −∂(Σ v · projected(dy) s)/∂x / s²: x̂ (mean(v dy) − v̄ ḡ − 3 a c) + c (v − v̄) + a (dy − ḡ).

    ḡ and v̄ are the means of dy and v, c = mean(dy x̂), a = mean(v x̂). Source: the derivatives of
    s, x̂ and c, ∂s/∂xⱼ = −s² x̂ⱼ / n and ∂c/∂xⱼ = s projected(dy)ⱼ / n, applied to Σ v dy − n v̄ ḡ
    − n a c.
    """
    g_bar, v_bar, c, a = mean(dy), mean(v), mean(dy * x_hat), mean(v * x_hat)
    return x_hat * (mean(v * dy) - v_bar * g_bar - 3.0 * a * c) + c * (v - v_bar) + a * (dy - g_bar)


def blend(running: Extended, batch: Extended, momentum: Extended) -> Extended:
    """Return the exponential moving average (1 − m) r + m b."""
    return (1.0 - momentum) * running + momentum * batch


def update_factor(
    momentum: float | None, batches: int, averages: str = PYTORCH.averages
) -> Extended:
    """Weight of the new value: the momentum, or 1 / batches for a cumulative mean (momentum None).

    ``batches`` counts the batch being tracked; ``averages`` is that of
    :class:`bn_spec.case.dialect.Dialect`. An average h' = (1 − m) h + m b from h = 0 has the bias 1
    − (1 − m)^k after k batches (Kingma & Ba 2015, section 3); divided by it, the k-th batch has the
    weight m / (1 − (1 − m)^k).
    """
    if momentum is None:
        return 1.0 / Extended(float(batches))
    m = Extended(momentum)
    if averages == "debiased":
        return m / (1.0 - power(1.0 - m, batches))
    return Extended(1.0) if averages == "from the first batch" and batches <= 1 else m


def power(base: Extended, exponent: int) -> Extended:
    """Return a power, exponent >= 0, by repeated squaring."""
    result = Extended(1.0)
    while exponent > 0:
        result = result * base if exponent % 2 else result
        base, exponent = base * base, exponent // 2
    return result


def by_channel(x: Array, number: type[Extended] = Extended) -> Extended:
    """Lay an array (N, C, H, W) out as (C, n) in an arithmetic."""
    channels, values = x.shape[1], x.size // max(x.shape[1], 1)
    # In C order, so that sums along a row are NumPy's pairwise ones.
    return number(
        np.ascontiguousarray(x.transpose(1, 0, 2, 3).reshape(channels, values), np.float64)
    )


def by_sample(rows: Extended, shape: tuple[int, ...]) -> Extended:
    """Lay rows (C, n) out as an array of ``shape`` (N, C, H, W)."""
    n, c, h, w = shape
    return rows.reshape(c, n, h, w).transpose(1, 0, 2, 3)


def column(
    values: Array | None, default: float, channels: int, number: type[Extended] = Extended
) -> Extended:
    """Lay per-channel values (C,) out as (C, 1); an absent tensor stands for its neutral value."""
    return number(
        np.full((channels, 1), default) if values is None else values.reshape(channels, 1)
    )
