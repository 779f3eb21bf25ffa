"""Data, a forward and exact gradients, for kernels of the backward pass in unlucky arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
"""A row whose roundings are so coarse that float64 carries out everything else exactly, for all that shows."""


CHANNELS = 4


WEIGHT = np.array([[1.0], [-3.0], [0.25], [40.0]])


OF_WEIGHT, OF_BIAS = (
    np.array([[2.0], [0.0], [-5.0], [1.0]]),
    np.array([[-1.0], [3.0], [0.0], [0.5]]),
)
"""The cotangents of the gradients of weight and bias."""


WORST: Mapping[str, Rule] = {
    **RULES,
    "one sign an operation": lambda rng, a: np.full_like(a, rng.choice((-1.0, 1.0))),
    "up or down in magnitude": lambda rng, a: np.sign(a) * rng.choice((-1.0, 1.0)),
}
"""Errors that all operations, or all elements of one, have in common cancel the least."""


FORWARDS: Mapping[str, tuple[str, Kernel]] = {
    "two-pass": ("two-pass", two_pass),
    "welford": ("welford", welford),
    "chan": ("welford", chan),
    "textbook": ("textbook", textbook),
}
"""Grade, and a kernel of it."""


class Zeros(Arithmetic):
    """An arithmetic in which a product with zero is zero."""

    def __call__(self, product: Array) -> Array:
        return np.asarray(np.where(product == 0, 0.0, super().__call__(product)))


def alike(x: Floats, dy: Floats) -> Floats:
    """Return a gradient of which nearly nothing is left when its components along 1 and x̂ are taken away."""
    return np.asarray((x - x.mean(axis=1, keepdims=True)) + 1e-3 * dy)


RELATIONS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "unrelated": lambda _, dy: dy,
    "alike": alike,
    "orthogonal": lambda x, dy: dy - np.mean(dy * x) * x / max(np.mean(x * x), 1e-9),
    "alone": lambda x, dy: np.where(np.arange(x.shape[1]) == 0, dy, 0),
}
"""How dy relates to x: a c that is large or small beside dy, and sums of a single term."""


@dataclass(frozen=True, eq=False)
class Data:
    """Rows of an input and of two gradients, shape (CHANNELS, n), an eps, and how roundings go."""

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
    """What a backward kernel has of its forward, and how it computes.

    The input (C, n), the weight, mu' and s' (C, 1); arithmetics for sums (``fl``), for statistics
    that are ``held``, for elementwise steps (``ew``), and for results and tensors read (``io``);
    and the way to sum.
    """

    x: Floats
    weight: Floats
    mu: Floats
    s: Floats
    fl: Arithmetic
    held: Arithmetic
    ew: Arithmetic
    io: Arithmetic
    total: Total

    @staticmethod
    def of(
        data: Data, model: Model, forward: Kernel, given: tuple[Floats, Floats] | None = None
    ) -> Seen:
        """Normalise by the statistics of the batch, or by those given."""
        rng, flushes = np.random.default_rng(data.seed), not model.accuracy.subnormals
        formats = (model.dtype.accumulation, model.statistics, model.elementwise, model.dtype.data)
        fl, held, ew, io = (Zeros(format, WORST[data.rule], rng, flushes) for format in formats)
        total = TOTALS[model.accuracy.summation]
        x = io.read(data.x)
        if given:
            mu, var = map(io.read, given)
        else:
            mu, var = (column[:, None] for column in forward(x, total, fl))
            if model.keeps_coarsely:
                mu, var = held(mu), held(held(held(var)))
        s = held(1 / np.sqrt(held.add(np.maximum(var, 0) + data.eps)))
        return Seen(x, io.read(WEIGHT), mu, s, fl, held, ew, io, total)

    @property
    def n(self) -> int:
        return int(self.x.shape[1])

    def sum(self, rows: Floats) -> Floats:
        return self.total(rows, self.fl)[:, None]

    def deviations(self, fl: Arithmetic) -> Floats:
        # A difference of two numbers of a format cannot underflow in it; that from a finer mean
        # can.
        return (fl.add if fl.format == self.held.format else fl)(self.x - self.mu)

    def x_hat(self, fl: Arithmetic) -> Floats:
        return fl(self.deviations(fl) * self.s)

    def x_hat_by_difference(self, fl: Arithmetic) -> Floats:
        return fl.add(fl(self.x * self.s) - fl(self.mu * self.s))


@dataclass(frozen=True, eq=False)
class Exact:
    """The exact results in float64, and the bounds for a model kernel."""

    data: Data
    known: gb.BoundedForward
    fixed: bool

    @staticmethod
    def of(data: Data, model: Model, given: tuple[Floats, Floats] | None = None) -> Exact:
        moments = (
            stored_moments(model, *given) if given else batch_moments(model, *statistics(data.x))
        )
        x_hat = (data.x - moments.mean) / np.sqrt(moments.var + data.eps)
        return Exact(
            data,
            gb.BoundedForward.of(model, moments, data.eps, x_hat, given is not None),
            given is not None,
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
    """Return the largest err / bound of each result; the first word of its name says which it is."""
    return {name: share(result, *wanted[name.split()[0]]) for name, result in got.items()}


def share(got: Floats, exact: Floats, bound: Floats) -> float:
    error = np.abs(got - exact)
    return float(
        np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0).max()
    )


def raised(worst: dict[str, float], found: Mapping[str, float]) -> None:
    """Note the largest share of each result; it must not exceed 1."""
    for name, largest in found.items():
        assert largest <= 1, name
        worst[name] = max(worst.get(name, 0.0), largest)


each_forward = pytest.mark.parametrize("forward", FORWARDS)


def held_statistics(drawn: Data) -> tuple[Floats, Floats]:
    """Return running statistics: those of other data."""
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
    ],  # whose s would underflow, as no format's does
    scales=(0, -3, -6, -8, -12, -17),
    offsets=(0.0, 1.0, -10.0),
)
