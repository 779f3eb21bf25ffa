"""A priori error bounds of the backward pass: theorems about the model kernel of :mod:`bn_spec.oracle.bounds`.

Notation as there; ḡ = mean(dy), c = mean(dy x̂), s' and mu' what the kernel has for s and mu. Both
are the same numbers throughout a channel, so that their errors act on whole sums and not on each
term:

**mean(dy)** spends at most G + 1 roundings per term: |dḡ| <= γ(G+1) mean|dy|.

**mean(dy x̂)** = s' mean(dy (x − mu')) has the exact value c s'/s − s' (mu' − mu) ḡ, which is off
by
|c| ds + s' dmu |ḡ|; and at most G + 4 roundings per term (the deviation, the product, the sum, s' and 1 / n), of
magnitude γ(G+4) mean|dy (x − mu')| s'. Where x̂ is formed as x s − mu s, two products are rounded before they cancel:
γ(2) s' |mu'| mean|dy| more. A kernel that forms s (Σ dy x − mu Σ dy) rounds whole sums before they cancel:
2 γ(G+4) s' |mu'| mean|dy| more; one that never does so claims ``centred_products``.

**dx** = weight s (dy − ḡ − x̂ c). The terms in the brackets are off by dḡ and by the error of the
product x̂' c', the factor before them by ds, which multiplies their exact sum however much of it
cancels. Roundings (:data:`bn_spec.oracle.bounds.BUDGET`) are relative to the sum of the absolute
values of the terms, and where dx is formed as a dy + b x + d, also to |mu| s c. In eval mode only
the factor is left.

The second derivatives are bounded in the same way, term by term (running error analysis: Higham,
section 3.3), on the expanded form that is the least favourable
(:func:`bn_spec.oracle.reference.formulas.curvature`).

Underflow: a product that underflows loses η at most, and is then multiplied by its cofactors. Where
all of dy is zero in a channel every product is exact, so that every bound on what is linear in dy
is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bn_spec.case.dtypes import Bools, Floats, Format
from bn_spec.oracle.bounds import BUDGET, OWN_ERROR, Model, Moments, in_range, inverse_std_error


@dataclass(frozen=True, eq=False)
class Estimate:
    """An exact value and a bound on the error of a computed one; shapes broadcast."""

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
        return Estimate(
            self.value * other.value, np.abs(self.value) * other.error + self.error * other.size
        )

    def off_by(self, more: Floats) -> Estimate:
        """Return the same value with more error."""
        return Estimate(self.value, self.error + more)


@dataclass(frozen=True, eq=False)
class Normalised:
    """What a backward pass has of its forward.

    ``s`` (C, 1) and ``x_hat`` (C, n) with the errors that mu' and s' give them; ``cancelled`` is
    |mu'| s', the magnitude that cancels where x̂ is not formed from deviations. In eval mode,
    ``given`` statistics have no gradient.
    """

    model: Model
    moments: Moments
    s: Estimate
    x_hat: Estimate
    cancelled: Floats
    given: bool

    @staticmethod
    def of(model: Model, m: Moments, eps: float, x_hat: Floats, given: bool) -> Normalised:
        """Bound what the forward left; ``x_hat`` is exact."""
        ds, exact = inverse_std_error(model, m, eps), 1 / np.sqrt(m.var + eps)
        s = Estimate(exact, exact * ds)
        moved = s.size * (m.dmean + model.unread(model.dtype.data))
        cancelled = s.size * (np.abs(m.mean) + m.dmean)
        return Normalised(
            model, m, s, Estimate(x_hat, np.abs(x_hat) * ds + moved), cancelled, given
        )

    def read(self, tensor: Floats, format: Format) -> Estimate:
        """Take a tensor that is handed over; where subnormals are flushed, not as it is."""
        return Estimate(tensor, self.model.unread(format) * _present(tensor))

    def mean(self, dy: Floats, exact: Floats) -> Estimate:
        """Bound ḡ, whose exact value is given, shape (C, 1)."""
        model = self.model
        error = (
            model.gamma(model.summing + 1) * _mean(np.abs(dy))
            + self.read(dy, model.dtype.data).error
        )
        error = error + _present(dy) * model.underflow(model.dtype.accumulation)
        return Estimate(exact, error + _present(dy) * model.kept(np.abs(exact) + error))

    def correlation(self, dy: Floats, mean_dy: Floats, exact: Floats) -> Estimate:
        """Bound c, whose exact value is given with that of ḡ, shapes (C, 1)."""
        model, s = self.model, self.s
        growth, magnitude, x_hat_size = model.gamma(model.summing + 4), np.abs(dy), self.x_hat.size
        off = np.abs(exact) * s.error / s.value + s.size * self.moments.dmean * np.abs(mean_dy)
        cancelling = max(
            model.gamma(2) * (1 + growth), 0 if model.accuracy.centred_products else 2 * growth
        )
        summed = growth * _mean(magnitude * x_hat_size) + cancelling * self.cancelled * _mean(
            magnitude
        )
        # What dy (x − mu) loses is multiplied by s, what x̂ loses by dy.
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
    """A gradient dy, or the cotangent v of a gradient dx, and its components along 1 and x̂.

    ``rows`` (C, n), and (C, 1) the mean ḡ and the ``correlation`` c = mean(dy x̂).
    """

    known: Normalised
    rows: Floats
    mean: Estimate
    correlation: Estimate

    @staticmethod
    def of(known: Normalised, rows: Floats, mean: Floats, correlation: Floats) -> Direction:
        """Bound both means, whose exact values are given."""
        return Direction(
            known, rows, known.mean(rows, mean), known.correlation(rows, mean, correlation)
        )

    @property
    def read(self) -> Estimate:
        """The rows as they are read."""
        return self.known.read(self.rows, self.known.model.dtype.data)

    @property
    def projection(self) -> Estimate:
        """What dx is a multiple of, but for roundings: dy − ḡ − x̂ c, or dy in eval mode."""
        return (
            self.read
            if self.known.given
            else self.read - self.mean - self.known.x_hat * self.correlation
        )

    @property
    def mass(self) -> Floats:
        """The sum of the absolute values of the terms of the projection, in the least favourable form."""
        known, magnitude = self.known, np.abs(self.rows)
        if known.given:
            return magnitude
        return (
            magnitude
            + self.mean.size
            + (known.x_hat.size + known.cancelled) * self.correlation.size
        )


def input_bound(dy: Direction, weight: Floats) -> Floats:
    """Bound of the gradient of the input, weight s (dy − ḡ − x̂ c), shape (C, n); weight has shape (C, 1)."""
    return _answered(dy.known, _scaled(dy, weight, "gradient"), dy.known.model.dtype.data)


def weight_bound(dy: Direction) -> Floats:
    """Bound of the gradient of the weight, Σ dy x̂, shape (C, 1)."""
    return _total(dy.known, dy.correlation)


def bias_bound(dy: Direction) -> Floats:
    """Bound of the gradient of the bias, Σ dy, shape (C, 1)."""
    return _total(dy.known, dy.mean)


SECOND = "double backward"


def double_dy_bound(v: Direction, weight: Floats, of_weight: Floats, of_bias: Floats) -> Floats:
    """Bound of weight s (v − v̄ − x̂ a) + ẇ x̂ + ḃ, shape (C, n); ẇ and ḃ are the cotangents of dweight and dbias."""
    known, model = v.known, v.known.model
    mass = np.abs(of_weight) * (known.x_hat.size + known.cancelled) + np.abs(of_bias)
    affine = Estimate(of_weight) * known.x_hat + Estimate(of_bias)
    lost = _lost(known, SECOND, of_weight)
    return _answered(
        known,
        (_scaled(v, weight, SECOND) + affine).off_by(model.spent(SECOND) * mass + lost),
        model.dtype.data,
    )


def double_weight_bound(dy: Direction, v: Direction, product: Floats) -> Floats:
    """Bound of s Σ v (dy − ḡ − x̂ c), shape (C, 1); ``product`` is mean(v dy).

    A kernel sums the products of v and the projection, or mean(v dy), v̄ ḡ and a c each for itself.
    """
    known, model = dy.known, dy.known.model
    inner, magnitude = dy.projection, np.abs(v.rows)
    growth = model.gamma(model.summing + sum(BUDGET[SECOND].values()))
    together = _mean(magnitude * (inner.error + growth * dy.mass))
    apart = Estimate(product, growth * _mean(magnitude * np.abs(dy.rows)))
    if not known.given:
        apart = apart - v.mean * dy.mean - v.correlation * dy.correlation
    mean = Estimate(_mean(v.rows * inner.value), together + apart.error + growth * apart.size)
    lost = _mean(_lost(known, SECOND, v.rows)) * (1 + dy.correlation.size + _mean(np.abs(dy.rows)))
    lost = lost * (1 + v.correlation.size + _mean(magnitude))
    return _total(known, (mean * known.s).off_by(lost))


def double_input_bound(
    dy: Direction, v: Direction, product: Floats, weight: Floats, of_weight: Floats
) -> Floats:
    """Bound of −weight s² (x̂ (mean(v dy) − v̄ ḡ − 3 a c) + c (v − v̄) + a (dy − ḡ)) + ẇ s (dy − ḡ − x̂ c), (C, n)."""
    known, model = dy.known, dy.known.model
    result = _scaled(dy, of_weight, SECOND)
    if not known.given:
        g, c, a = dy.mean, dy.correlation, v.correlation
        growth = model.gamma(model.summing + 2)
        means = (
            Estimate(product, growth * _mean(np.abs(v.rows * dy.rows)))
            - v.mean * g
            - Estimate(3.0) * a * c
        )
        curvature = known.x_hat * means + c * (v.read - v.mean) + a * (dy.read - g)
        mass = (known.x_hat.size + known.cancelled) * (
            np.abs(product) + (v.mean * g).size + 3 * (a * c).size
        )
        mass = mass + c.size * (np.abs(v.rows) + v.mean.size) + a.size * (np.abs(dy.rows) + g.size)
        factor = known.read(weight, model.dtype.parameters) * known.s * known.s
        lost = _lost(known, SECOND, v.rows) * (1 + np.abs(weight)) * (1 + a.size + c.size)
        result = result - (factor * curvature).off_by(
            model.spent(SECOND) * factor.size * mass + lost
        )
    return _answered(known, result, model.dtype.data)


def gradient_in_range(dy: Direction, largest: Floats, weight: Floats) -> Bools:
    """Where nothing on the way to a gradient overflows, shape (C, 1); ``largest`` is max|x|."""
    model, (n, g, x_hat, s, w) = dy.known.model, _sizes(dy, weight)
    sums = n * g * (1 + x_hat + 2 * largest * np.maximum(s, 1) ** 2)
    scaled = w * s * (n * g * (1 + x_hat) + s * dy.correlation.size * largest)
    return in_range(model.dtype.accumulation, sums, scaled) & in_range(
        model.elementwise, w * s, w * s * dy.mass.max(axis=-1, keepdims=True)
    )


def double_gradient_in_range(dy: Direction, v: Direction, largest: Floats, weight: Floats) -> Bools:
    """Where nothing on the way to a second derivative overflows, shape (C, 1)."""
    (n, g, x_hat, s, w), (_, a, *_) = _sizes(dy, weight), _sizes(v, weight)
    deviation = 1 + x_hat + 2 * largest * np.maximum(s, 1)
    product = w * np.maximum(s, 1) ** 3 * n**2 * (1 + g) * (1 + a) * deviation**3
    inside: Bools = in_range(dy.known.model.dtype.accumulation, product) & gradient_in_range(
        v, largest, weight
    )
    return inside


def _sizes(dy: Direction, weight: Floats) -> tuple[int, Floats, Floats, Floats, Floats]:
    """Return n and the largest dy, x̂, s and weight of each channel."""
    largest_dy, x_hat = (
        np.abs(rows).max(axis=-1, keepdims=True) for rows in (dy.rows, dy.known.x_hat.size)
    )
    return dy.known.model.n, largest_dy, x_hat, dy.known.s.size, np.maximum(np.abs(weight), 1)


def _scaled(dy: Direction, weight: Floats, expression: str) -> Estimate:
    """Bound weight s times the projection, before it is rounded to the format of the result."""
    known, model, mass = dy.known, dy.known.model, dy.mass
    factor = known.read(weight, model.dtype.parameters) * known.s
    lost = _lost(known, expression, dy.rows) * (1 + np.abs(weight)) * (1 + dy.correlation.size)
    # weight s, or weight s / n, may underflow itself, and then multiplies the bracket, or n times
    # the bracket.
    lost = (lost + 2 * model.n * model.underflow(model.elementwise) * mass) * (weight != 0)
    return (factor * dy.projection).off_by(model.spent(expression) * factor.size * mass + lost)


def _total(known: Normalised, mean: Estimate) -> Floats:
    """Bound n times a mean, as the gradient of a parameter."""
    n = known.model.n
    return _answered(known, Estimate(n * mean.value, n * mean.error), known.model.dtype.parameters)


def _answered(known: Normalised, result: Estimate, format: Format) -> Floats:
    """Bound a result that is rounded to the format in which it is returned."""
    underflow = known.model.underflow(format) * (result.size > 0)
    bound: Floats = OWN_ERROR * (result.error + format.u * result.size + underflow)
    return bound


def _lost(known: Normalised, expression: str, rows: Floats) -> Floats:
    """Bound what the products of an expression lose to underflow, weight and correlations aside."""
    lost = _present(rows) * len(BUDGET[expression]) * known.model.underflow(known.model.elementwise)
    reach: Floats = (1 + known.s.size) ** 2 * (
        1 + known.x_hat.size / known.s.value + known.cancelled
    )
    return lost * reach


def _mean(rows: Floats) -> Floats:
    mean: Floats = rows.mean(axis=-1, keepdims=True)
    return mean


def _present(rows: Floats) -> Floats:
    """Return 1 for rows with anything in them but zeros, else 0: shape (C, 1)."""
    present: Floats = (rows != 0).any(axis=-1, keepdims=True).astype(np.float64)
    return present
