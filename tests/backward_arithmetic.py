"""Data, forward kernels and exact gradients for the tests of the bounds of gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from bn_spec.case.dtypes import DTYPES, Array, DType, Floats
from bn_spec.oracle import gradient_bounds as gb
from bn_spec.oracle.bounds import Accuracy, Model, batch_moments, stored_moments
from bn_spec.strategies import FAMILIES, MIXED, Recipe, chosen, gradients, values
from bn_spec.strategies.choices import Choose
from tests.arithmetic import (
    RULES,
    TOTALS,
    Arithmetic,
    Kernel,
    Rule,
    Total,
    chan,
    statistics,
    textbook,
    two_pass,
    welford,
)

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]

U = 2.0**-12

COARSE_FORMAT = replace(FLOAT32.data, name="coarse", u=U)

COARSE = DType("coarse", COARSE_FORMAT, COARSE_FORMAT, COARSE_FORMAT)
"""Row of dtypes so coarse that the roundings of float64 are negligible beside those of the row."""

CHANNELS = 4

WEIGHT = np.array([[1.0], [-3.0], [0.25], [40.0]])

OF_WEIGHT, OF_BIAS = (
    np.array([[2.0], [0.0], [-5.0], [1.0]]),
    np.array([[-1.0], [3.0], [0.0], [0.5]]),
)
"""Cotangents of the gradients of weight and bias, shape (CHANNELS, 1)."""

WORST: Mapping[str, Rule] = {
    **RULES,
    "one sign an operation": lambda rng, a: np.full_like(a, rng.choice((-1.0, 1.0))),
    "up or down in magnitude": lambda rng, a: np.sign(a) * rng.choice((-1.0, 1.0)),
}
"""Rules for the sign of each rounding error.

Errors of one sign in all operations, or in all elements of one operation, cancel the least.
"""

FORWARDS: Mapping[str, tuple[str, Kernel]] = {
    "two-pass": ("two-pass", two_pass),
    "welford": ("welford", welford),
    "chan": ("welford", chan),
    "textbook": ("textbook", textbook),
}
"""Grade of the variance, and a forward kernel of this grade."""


class Zeros(Arithmetic):
    """An arithmetic in which a product with zero is zero."""

    def __call__(self, product: Array) -> Array:
        return np.asarray(np.where(product == 0, 0.0, super().__call__(product)))


def alike(x: Floats, dy: Floats) -> Floats:
    """Return a gradient that is almost zero without its components along 1 and x̂."""
    return np.asarray((x - x.mean(axis=1, keepdims=True)) + 1e-3 * dy)


RELATIONS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "unrelated": lambda _, dy: dy,
    "alike": alike,
    "orthogonal": lambda x, dy: dy - np.mean(dy * x) * x / max(np.mean(x * x), 1e-9),
    "alone": lambda x, dy: np.where(np.arange(x.shape[1]) == 0, dy, 0),
}
"""Relations of dy to x: c large or small beside dy, and sums with a single term."""


@dataclass(frozen=True, eq=False)
class Data:
    """An input and two gradients, shape (CHANNELS, n), eps, and the rule of the roundings."""

    x: Floats
    dy: Floats
    v: Floats
    eps: float
    rule: str
    seed: int

    @property
    def n(self) -> int:
        return int(self.x.shape[1])


def rows_of(recipe: Recipe, n: int) -> Floats:
    return np.asarray(recipe.make((n, CHANNELS, 1, 1), FLOAT64)[:, :, 0, 0].T)


HARD = values((*FAMILIES, MIXED), scales=(0,), offsets=(0.0, 1.0, -10.0, 100.0, 1e3, -1e4))

RELATED = st.tuples(chosen(gradients(scales=(0,))), st.sampled_from(tuple(RELATIONS)))


@st.composite
def data(
    draw: st.DrawFn,
    value: Choose[Recipe] = HARD,
    related: st.SearchStrategy[tuple[Recipe, str]] = RELATED,
    eps: tuple[float, ...] = (1e-5, 1e-2, 1.0),
    longest: int = 130,
) -> Data:
    n = draw(st.integers(2, 12) | st.integers(2, longest))
    x = rows_of(draw(chosen(value)), n)
    dy, v = (
        RELATIONS[relation](x, rows_of(recipe, n))
        for recipe, relation in (draw(related), draw(related))
    )
    some_eps, rule = draw(st.sampled_from(eps)), draw(st.sampled_from(tuple(WORST)))
    return Data(x, dy, v, some_eps, rule, draw(st.integers(0, 2**16)))


@dataclass(frozen=True, eq=False)
class Seen:
    """The values of a forward that a backward kernel uses, and the arithmetics of the kernel.

    ``x`` is the input, shape (C, n); ``weight``, mu' ``mu`` and s' ``s`` have the shape (C, 1). The
    arithmetics are ``fl`` for sums, ``kept`` for statistics, ``ew`` for elementwise steps, and
    ``io`` for results and for tensors that are read. ``total`` is the way to sum.
    """

    x: Floats
    weight: Floats
    mu: Floats
    s: Floats
    fl: Arithmetic
    kept: Arithmetic
    ew: Arithmetic
    io: Arithmetic
    total: Total

    @staticmethod
    def of(
        data: Data, model: Model, forward: Kernel, running: tuple[Floats, Floats] | None = None
    ) -> Seen:
        """Normalise by the batch statistics, or by ``running`` mean and variance."""
        rng, flushes = np.random.default_rng(data.seed), not model.accuracy.subnormals
        formats = (model.dtype.accumulation, model.statistics, model.elementwise, model.dtype.data)
        fl, kept, ew, io = (Zeros(format, WORST[data.rule], rng, flushes) for format in formats)
        total = TOTALS[model.accuracy.summation]
        x = io.read(data.x)
        if running:
            mu, var = map(io.read, running)
        else:
            mu, var = (column[:, None] for column in forward(x, total, fl))
            if model.keeps_coarsely:
                mu, var = kept(mu), kept(kept(kept(var)))
        s = kept(1 / np.sqrt(kept.add(np.maximum(var, 0) + data.eps)))
        return Seen(x, io.read(WEIGHT), mu, s, fl, kept, ew, io, total)

    @property
    def n(self) -> int:
        return int(self.x.shape[1])

    def sum(self, rows: Floats) -> Floats:
        return self.total(rows, self.fl)[:, None]

    def deviations(self, fl: Arithmetic) -> Floats:
        # A difference of two numbers of a format cannot underflow in this format. The difference
        # from a mean of a finer format can.
        return (fl.add if fl.format == self.kept.format else fl)(self.x - self.mu)

    def x_hat(self, fl: Arithmetic) -> Floats:
        return fl(self.deviations(fl) * self.s)

    def x_hat_by_difference(self, fl: Arithmetic) -> Floats:
        return fl.add(fl(self.x * self.s) - fl(self.mu * self.s))


@dataclass(frozen=True, eq=False)
class Exact:
    """Exact results, computed in float64, and the bounds for a model kernel."""

    data: Data
    known: gb.BoundedForward
    fixed: bool

    @staticmethod
    def of(data: Data, model: Model, running: tuple[Floats, Floats] | None = None) -> Exact:
        moments = (
            stored_moments(model, *running)
            if running
            else batch_moments(model, *statistics(data.x))
        )
        x_hat = (data.x - moments.mean) / np.sqrt(moments.var + data.eps)
        return Exact(
            data,
            gb.BoundedForward.of(model, moments, data.eps, x_hat, running is not None),
            running is not None,
        )

    @property
    def s(self) -> Floats:
        return 1 / np.sqrt(self.known.moments.var + self.data.eps)

    @property
    def x_hat(self) -> Floats:
        return np.asarray(self.known.x_hat.value)

    def direction(self, rows: Floats) -> gb.Direction:
        return gb.Direction.of(self.known, rows, mean(rows), mean(rows * self.x_hat))

    def projected(self, rows: Floats) -> Floats:
        return rows if self.fixed else rows - mean(rows) - self.x_hat * mean(rows * self.x_hat)

    def first(self) -> dict[str, tuple[Floats, Floats]]:
        """Return dx, dweight and dbias with their bounds."""
        dy, known = self.data.dy, self.direction(self.data.dy)
        return {
            "dx": (WEIGHT * self.s * self.projected(dy), gb.input_bound(known, WEIGHT)),
            "dweight": (self.data.n * mean(dy * self.x_hat), gb.weight_bound(known)),
            "dbias": (self.data.n * mean(dy), gb.bias_bound(known)),
        }

    def second(self) -> dict[str, tuple[Floats, Floats]]:
        """Return the gradients of Σ v dx + Σ ẇ dweight + Σ ḃ dbias with their bounds."""
        dy, v, s, x_hat = self.data.dy, self.data.v, self.s, self.x_hat
        g, a, product = self.direction(dy), self.direction(v), mean(dy * v)
        p, q = self.projected(dy), self.projected(v)
        ddx = OF_WEIGHT * s * p
        if not self.fixed:
            curvature = x_hat * mean(v * p) + mean(dy * x_hat) * q + mean(v * x_hat) * p
            ddx = ddx - WEIGHT * s * s * curvature
        return {
            "ddy": (
                WEIGHT * s * q + OF_WEIGHT * x_hat + OF_BIAS,
                gb.double_dy_bound(a, WEIGHT, OF_WEIGHT, OF_BIAS),
            ),
            "ddx": (ddx, gb.double_input_bound(g, a, product, WEIGHT, OF_WEIGHT)),
            "ddweight": (
                self.data.n * s * mean(v * p),
                gb.double_weight_bound(g, a, product)[:, :1],
            ),
        }


def mean(rows: Floats) -> Floats:
    return np.asarray(rows.mean(axis=1, keepdims=True))


def shares(
    got: Mapping[str, Floats], wanted: Mapping[str, tuple[Floats, Floats]]
) -> dict[str, float]:
    """Return the largest err / bound of each result; the first word of a name is the result."""
    return {name: share(result, *wanted[name.split()[0]]) for name, result in got.items()}


def share(got: Floats, exact: Floats, bound: Floats) -> float:
    error = np.abs(got - exact)
    return float(
        np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0).max()
    )


def raised(worst: dict[str, float], found: Mapping[str, float]) -> None:
    """Update ``worst``, the largest share of each result; assert that no share exceeds 1."""
    for name, largest in found.items():
        assert largest <= 1, name
        worst[name] = max(worst.get(name, 0.0), largest)


each_forward = pytest.mark.parametrize("forward", FORWARDS)


def running_statistics_of(drawn: Data) -> tuple[Floats, Floats]:
    """Return running mean and variance that are not the statistics of the batch."""
    rng = np.random.default_rng(drawn.seed)
    return rng.normal(size=(CHANNELS, 1)) * 100, np.exp(rng.normal(size=(CHANNELS, 1)))


PRECISE = replace(COARSE_FORMAT, name="precise")

ROUGH = replace(COARSE_FORMAT, name="rough", u=2.0**-7)

FINE = replace(PRECISE, name="fine", smallest_normal=2.0**-6, smallest_subnormal=2.0**-17)

SHORT = replace(ROUGH, name="short", smallest_normal=2.0**-6, smallest_subnormal=2.0**-12)

KEPT = {
    "statistics": Accuracy(statistics="parameters"),
    "elementwise": Accuracy(elementwise="parameters"),
    "both": Accuracy(statistics="parameters", elementwise="parameters"),
    "neither": Accuracy(),
}

each_keeping = pytest.mark.parametrize("kept", KEPT)

TINY = values(
    [
        family for family in FAMILIES if family != "heavy-tailed"
    ],  # s of heavy-tailed data would underflow here; it does in no real format
    scales=(0, -3, -6, -8, -12, -17),
    offsets=(0.0, 1.0, -10.0),
)


def model_of(
    data: Data, grade: str, centred_products: bool, row: DType = COARSE, **claims: Any
) -> Model:
    return Model(row, data.n, Accuracy(grade, centred_products=centred_products, **claims))
