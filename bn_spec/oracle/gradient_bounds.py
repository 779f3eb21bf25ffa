"""A priori error bounds of the backward pass: theorems about the model kernel of the forward.

The model kernel and the notation are those of :mod:`bn_spec.oracle.bounds`. In addition,
ḡ = mean(dy) and c = mean(dy x̂), and the kernel has s' and mu' for s and mu. Both are the same
numbers throughout a channel, so their errors act on whole sums and not on each term.

**mean(dy)** spends at most G + 1 roundings per term: |dḡ| <= γ(G+1) mean|dy|.

**mean(dy x̂)** = s' mean(dy (x − mu')) has the exact value c s'/s − s' (mu' − mu) ḡ, which is off
by |c| ds + s' dmu |ḡ|. It also spends at most G + 4 roundings per term (the deviation, the product,
the sum, s' and 1 / n), of magnitude γ(G+4) mean|dy (x − mu')| s'. If x̂ is formed as x s − mu s, two
products are rounded before they cancel: γ(2) s' |mu'| mean|dy| more. A kernel that forms
s (Σ dy x − mu Σ dy) rounds whole sums before they cancel: 2 γ(G+4) s' |mu'| mean|dy| more. A kernel
that never does so claims ``centred_products``.

**dx** = weight s (dy − ḡ − x̂ c). The terms in the brackets are off by dḡ and by the error of the
product x̂' c'. The factor before the brackets is off by ds, which multiplies their exact sum however
much of it cancels. Roundings (:data:`bn_spec.oracle.bounds.BUDGET`) are relative to the sum of the
absolute values of the terms. If dx is formed as a dy + b x + d, they are also relative to
|mu| s |c|. In eval mode only the factor remains.

The second derivatives are bounded in the same way, term by term (running error analysis: Higham,
section 3.3). The bounds are those of the expanded form, which is the least favourable one
(:func:`bn_spec.oracle.reference.formulas.curvature`).

Underflow: a product that underflows loses at most η, and is then multiplied by its cofactors. If
all of dy is zero in a channel, every product is exact. Every bound on a result that is linear in dy
is then 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bn_spec.case.dtypes import Bools, Floats, Format
from bn_spec.oracle.bounds import BUDGET, OWN_ERROR, Model, Moments, in_range, inverse_std_error


@dataclass(frozen=True, eq=False)
class Estimate:
    """An exact value, and a bound on the absolute error of a computed one.

    Shapes broadcast. The operators propagate errors to all orders.
    """

    value: Floats | float
    error: Floats | float = 0.0

    @property
    def size(self) -> Floats:
        """The largest magnitude that the computed value can have."""
        largest: Floats = np.abs(self.value) + self.error
        return largest

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.error + other.error)

    def __mul__(self, other: Estimate) -> Estimate:
        error = np.abs(self.value) * other.error + self.error * other.size
        return Estimate(self.value * other.value, error)

    def off_by(self, more: Floats) -> Estimate:
        """Return the same value with a larger error."""
        return Estimate(self.value, self.error + more)


@dataclass(frozen=True, eq=False)
class BoundedForward:
    """The values of a forward that its backward uses, with bounds on a kernel's errors in them.

    ``s`` (C, 1) and ``x_hat`` (C, n) have the errors that mu' and s' give them. ``cancelled``
    (C, 1) is |mu'| s', the magnitude that cancels if x̂ is not formed from deviations.
    ``constant_statistics`` is true in eval mode, where no gradient flows through the statistics.
    """

    model: Model
    moments: Moments
    s: Estimate
    x_hat: Estimate
    cancelled: Floats
    constant_statistics: bool

    @staticmethod
    def of(
        model: Model, m: Moments, eps: float, x_hat: Floats, constant_statistics: bool
    ) -> BoundedForward:
        """Bound the errors of s and x̂, from the exact ``x_hat`` (C, n)."""
        ds, exact = inverse_std_error(model, m, eps), 1 / np.sqrt(m.var + eps)
        s = Estimate(exact, exact * ds)
        moved = s.size * (m.dmean + model.unread(model.dtype.data))
        cancelled = s.size * (np.abs(m.mean) + m.dmean)
        bounded_x_hat = Estimate(x_hat, np.abs(x_hat) * ds + moved)
        return BoundedForward(model, m, s, bounded_x_hat, cancelled, constant_statistics)

    def read(self, tensor: Floats, format: Format) -> Estimate:
        """Return a tensor handed over as a kernel reads it: a subnormal may be flushed to zero."""
        return Estimate(tensor, self.model.unread(format) * _present(tensor))

    def mean(self, dy: Floats, exact: Floats) -> Estimate:
        """Bound the error of ḡ; ``exact`` is its exact value, shape (C, 1)."""
        model = self.model
        summed = model.gamma(model.summing + 1) * _mean(np.abs(dy))
        error = summed + self.read(dy, model.dtype.data).error
        error = error + _present(dy) * model.underflow(model.dtype.accumulation)
        return Estimate(exact, error + _present(dy) * model.kept(np.abs(exact) + error))

    def correlation(self, dy: Floats, mean_dy: Floats, exact: Floats) -> Estimate:
        """Bound the error of c; ``mean_dy`` and ``exact`` are the exact ḡ and c, shape (C, 1)."""
        model, s = self.model, self.s
        growth, magnitude, x_hat_size = model.gamma(model.summing + 4), np.abs(dy), self.x_hat.size
        off = np.abs(exact) * s.error / s.value + s.size * self.moments.dmean * np.abs(mean_dy)
        of_shifted_sums = 0 if model.accuracy.centred_products else 2 * growth
        cancelling = max(model.gamma(2) * (1 + growth), of_shifted_sums)
        summed = growth * _mean(magnitude * x_hat_size) + cancelling * self.cancelled * _mean(
            magnitude
        )
        # The loss of dy (x − mu) is multiplied by s, the loss of x̂ by dy.
        lost = _present(dy) * model.underflow(model.dtype.accumulation) * (1 + growth)
        lost = lost * (2 + 3 * s.size + 4 * (1 + s.size) * _mean(magnitude))
        unread = (
            model.unread(model.dtype.data)
            * _present(dy)
            * (_mean(x_hat_size) + s.size * _mean(magnitude))
        )
        error = off + summed + lost + unread
        return Estimate(exact, error + _present(dy) * model.kept(np.abs(exact) + error, 3))


@dataclass(frozen=True, eq=False)
class Direction:
    """A gradient dy, or the cotangent v of a gradient dx, with its components along 1 and x̂.

    ``rows`` has the shape (C, n). ``mean`` is ḡ and ``correlation`` is c = mean(dy x̂), both of
    shape (C, 1).
    """

    forward: BoundedForward
    rows: Floats
    mean: Estimate
    correlation: Estimate

    @staticmethod
    def of(forward: BoundedForward, rows: Floats, mean: Floats, correlation: Floats) -> Direction:
        """Bound the errors of both components, from their exact values (C, 1)."""
        bounded_mean = forward.mean(rows, mean)
        return Direction(forward, rows, bounded_mean, forward.correlation(rows, mean, correlation))

    @property
    def read(self) -> Estimate:
        """The rows as a kernel reads them."""
        return self.forward.read(self.rows, self.forward.model.dtype.data)

    @property
    def projection(self) -> Estimate:
        """The projection dy − ḡ − x̂ c, or dy in eval mode.

        The gradient dx is a multiple of it, apart from roundings.
        """
        if self.forward.constant_statistics:
            return self.read
        return self.read - self.mean - self.forward.x_hat * self.correlation

    @property
    def mass(self) -> Floats:
        """Sum of the magnitudes of the terms of the projection, in the least favourable form."""
        forward, magnitude = self.forward, np.abs(self.rows)
        if forward.constant_statistics:
            return magnitude
        x_hat_size = forward.x_hat.size + forward.cancelled
        return magnitude + self.mean.size + x_hat_size * self.correlation.size


# First derivatives


def input_bound(dy: Direction, weight: Floats) -> Floats:
    """Return a bound on the error of the gradient of the input, weight s (dy − ḡ − x̂ c).

    The bound has the shape (C, n), ``weight`` has the shape (C, 1).
    """
    dx = _scaled(dy, weight, "gradient")
    return _returned(dy.forward, dx, dy.forward.model.dtype.data)


def weight_bound(dy: Direction) -> Floats:
    """Return a bound on the error of the gradient of the weight, Σ dy x̂, shape (C, 1)."""
    return _total(dy.forward, dy.correlation)


def bias_bound(dy: Direction) -> Floats:
    """Return a bound on the error of the gradient of the bias, Σ dy, shape (C, 1)."""
    return _total(dy.forward, dy.mean)


# Second derivatives

SECOND = "double backward"
"""Key of the second derivatives in :data:`bn_spec.oracle.bounds.BUDGET`."""


def double_dy_bound(v: Direction, weight: Floats, of_weight: Floats, of_bias: Floats) -> Floats:
    """Return a bound on the error of weight s (v − v̄ − x̂ a) + ẇ x̂ + ḃ, shape (C, n).

    ẇ ``of_weight`` and ḃ ``of_bias`` (C, 1) are the cotangents of dweight and dbias.
    """
    forward, model = v.forward, v.forward.model
    mass = np.abs(of_weight) * (forward.x_hat.size + forward.cancelled) + np.abs(of_bias)
    affine = Estimate(of_weight) * forward.x_hat + Estimate(of_bias)
    lost = _lost(forward, SECOND, of_weight)
    result = _scaled(v, weight, SECOND) + affine
    result = result.off_by(model.spent(SECOND) * mass + lost)
    return _returned(forward, result, model.dtype.data)


def double_weight_bound(dy: Direction, v: Direction, product: Floats) -> Floats:
    """Return a bound on the error of s Σ v (dy − ḡ − x̂ c), shape (C, 1).

    ``product`` is mean(v dy), shape (C, 1). A kernel sums the products of v and the projection, or
    forms mean(v dy), v̄ ḡ and a c separately. The bound covers both.
    """
    forward, model = dy.forward, dy.forward.model
    inner, magnitude = dy.projection, np.abs(v.rows)
    growth = model.gamma(model.summing + sum(BUDGET[SECOND].values()))
    together = _mean(magnitude * (inner.error + growth * dy.mass))
    apart = Estimate(product, growth * _mean(magnitude * np.abs(dy.rows)))
    if not forward.constant_statistics:
        apart = apart - v.mean * dy.mean - v.correlation * dy.correlation
    mean = Estimate(_mean(v.rows * inner.value), together + apart.error + growth * apart.size)
    lost = _mean(_lost(forward, SECOND, v.rows))
    lost = lost * (1 + dy.correlation.size + _mean(np.abs(dy.rows)))
    lost = lost * (1 + v.correlation.size + _mean(magnitude))
    return _total(forward, (mean * forward.s).off_by(lost))


def double_input_bound(
    dy: Direction, v: Direction, product: Floats, weight: Floats, of_weight: Floats
) -> Floats:
    """Return a bound on the error of the gradient of Σ v dx + Σ ẇ dweight by x, shape (C, n).

    The gradient is −weight s² (x̂ (mean(v dy) − v̄ ḡ − 3 a c) + c (v − v̄) + a (dy − ḡ))
    + ẇ s (dy − ḡ − x̂ c). ``product`` is mean(v dy), ``of_weight`` is ẇ; all parameters have the
    shape (C, 1).
    """
    forward, model = dy.forward, dy.forward.model
    result = _scaled(dy, of_weight, SECOND)
    if not forward.constant_statistics:
        g, c, a = dy.mean, dy.correlation, v.correlation
        growth = model.gamma(model.summing + 2)
        mean_product = Estimate(product, growth * _mean(np.abs(v.rows * dy.rows)))
        means = mean_product - v.mean * g - Estimate(3.0) * a * c
        curvature = forward.x_hat * means + c * (v.read - v.mean) + a * (dy.read - g)
        means_size = np.abs(product) + (v.mean * g).size + 3 * (a * c).size
        mass = (forward.x_hat.size + forward.cancelled) * means_size
        mass = mass + c.size * (np.abs(v.rows) + v.mean.size) + a.size * (np.abs(dy.rows) + g.size)
        factor = forward.read(weight, model.dtype.parameters) * forward.s * forward.s
        lost = _lost(forward, SECOND, v.rows) * (1 + np.abs(weight)) * (1 + a.size + c.size)
        rounded = model.spent(SECOND) * factor.size * mass
        result = result - (factor * curvature).off_by(rounded + lost)
    return _returned(forward, result, model.dtype.data)


# The domain in which the bounds are theorems


def gradient_in_range(dy: Direction, largest: Floats, weight: Floats) -> Bools:
    """Return whether no intermediate result of a gradient can overflow, shape (C, 1).

    ``largest`` is max|x|, shape (C, 1).
    """
    model, (n, g, x_hat, s, w) = dy.forward.model, _sizes(dy, weight)
    sums = n * g * (1 + x_hat + 2 * largest * np.maximum(s, 1) ** 2)
    scaled = w * s * (n * g * (1 + x_hat) + s * dy.correlation.size * largest)
    summable = in_range(model.dtype.accumulation, sums, scaled)
    largest_mass = dy.mass.max(axis=-1, keepdims=True)
    return summable & in_range(model.elementwise, w * s, w * s * largest_mass)


def double_gradient_in_range(dy: Direction, v: Direction, largest: Floats, weight: Floats) -> Bools:
    """Return whether no intermediate result of a second derivative can overflow, shape (C, 1).

    ``largest`` is max|x|, shape (C, 1).
    """
    (n, g, x_hat, s, w), (_, a, *_) = _sizes(dy, weight), _sizes(v, weight)
    deviation = 1 + x_hat + 2 * largest * np.maximum(s, 1)
    product = w * np.maximum(s, 1) ** 3 * n**2 * (1 + g) * (1 + a) * deviation**3
    summable = in_range(dy.forward.model.dtype.accumulation, product)
    inside: Bools = summable & gradient_in_range(v, largest, weight)
    return inside


# Parts of the bounds


def _sizes(dy: Direction, weight: Floats) -> tuple[int, Floats, Floats, Floats, Floats]:
    """Return n, and the largest magnitudes of dy, x̂, s and weight (at least 1) in each channel."""
    forward = dy.forward
    largest_dy = np.abs(dy.rows).max(axis=-1, keepdims=True)
    largest_x_hat = np.abs(forward.x_hat.size).max(axis=-1, keepdims=True)
    return forward.model.n, largest_dy, largest_x_hat, forward.s.size, np.maximum(np.abs(weight), 1)


def _scaled(dy: Direction, weight: Floats, expression: str) -> Estimate:
    """Bound the error of weight s times the projection, before the result is rounded."""
    forward, model, mass = dy.forward, dy.forward.model, dy.mass
    factor = forward.read(weight, model.dtype.parameters) * forward.s
    lost = _lost(forward, expression, dy.rows) * (1 + np.abs(weight)) * (1 + dy.correlation.size)
    # weight s, or weight s / n, may underflow itself, and then multiplies the bracket, or n times
    # the bracket.
    lost = (lost + 2 * model.n * model.underflow(model.elementwise) * mass) * (weight != 0)
    return (factor * dy.projection).off_by(model.spent(expression) * factor.size * mass + lost)


def _total(forward: BoundedForward, mean: Estimate) -> Floats:
    """Bound the error of n times a mean, returned as the gradient of a parameter."""
    n = forward.model.n
    total = Estimate(n * mean.value, n * mean.error)
    return _returned(forward, total, forward.model.dtype.parameters)


def _returned(forward: BoundedForward, result: Estimate, format: Format) -> Floats:
    """Bound the error of a result after it is rounded to the format in which it is returned."""
    underflow = forward.model.underflow(format) * (result.size > 0)
    bound: Floats = OWN_ERROR * (result.error + format.u * result.size + underflow)
    return bound


def _lost(forward: BoundedForward, expression: str, rows: Floats) -> Floats:
    """Bound the loss of an expression's products to underflow, without weight and correlations."""
    underflow = forward.model.underflow(forward.model.elementwise)
    lost = _present(rows) * len(BUDGET[expression]) * underflow
    reach: Floats = (1 + forward.s.size) ** 2 * (
        1 + forward.x_hat.size / forward.s.value + forward.cancelled
    )
    return lost * reach


def _mean(rows: Floats) -> Floats:
    """Return the mean of each row, shape (C, 1)."""
    mean: Floats = rows.mean(axis=-1, keepdims=True)
    return mean


def _present(rows: Floats) -> Floats:
    """Return 1 for each row that is not all zeros, else 0: shape (C, 1)."""
    present: Floats = (rows != 0).any(axis=-1, keepdims=True).astype(np.float64)
    return present
