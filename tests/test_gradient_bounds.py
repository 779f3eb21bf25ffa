"""The bounds of gradients are theorems too: no form of a backward kernel exceeds them, whatever the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from bn_spec.case.dtypes import DTYPES, Array, DType, Floats
from bn_spec.oracle import gradient_bounds as gb
from bn_spec.oracle.bounds import SUMMATIONS, Accuracy, Model, batch_moments, stored_moments
from bn_spec.strategies import FAMILIES, MIXED, Recipe, chosen, gradients, values
from bn_spec.strategies.choices import Choose

from .arithmetic import (
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
from .common import examples

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]
U = 2.0**-12
_COARSE = replace(FLOAT32.data, name="coarse", u=U)
COARSE = DType("coarse", _COARSE, _COARSE, _COARSE)
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


# The data ------------------------------------------------------------------------------------------------


def _alike(x: Floats, dy: Floats) -> Floats:
    """Return a gradient of which nearly nothing is left when its components along 1 and x̂ are taken away."""
    return np.asarray((x - x.mean(axis=1, keepdims=True)) + 1e-3 * dy)


RELATIONS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "unrelated": lambda _, dy: dy,
    "alike": _alike,
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


# Kernels, in an arithmetic -----------------------------------------------------------------------------------


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


Products: TypeAlias = Callable[[Seen, Floats], Floats]
"""Forms of Σ dy x̂, shape (C, 1)."""


def centred(k: Seen, dy: Floats) -> Floats:
    return k.fl(k.sum(k.fl(dy * k.deviations(k.fl))) * k.s)


def with_x_hat(k: Seen, dy: Floats) -> Floats:
    return k.sum(k.fl(dy * k.x_hat(k.fl)))


def with_x_hat_by_difference(k: Seen, dy: Floats) -> Floats:
    return k.sum(k.fl(dy * k.x_hat_by_difference(k.fl)))


def shifted(k: Seen, dy: Floats) -> Floats:
    return k.fl(k.fl.add(k.sum(k.fl(dy * k.x)) - k.fl(k.mu * k.sum(dy))) * k.s)


PRODUCTS: Mapping[str, tuple[bool, Products]] = {
    "centred": (True, centred),
    "with x̂": (True, with_x_hat),
    "with x̂ by difference": (True, with_x_hat_by_difference),
    "shifted": (False, shifted),
}
"""Whether the form has the claim ``centred_products``, and the form."""

Inputs: TypeAlias = Callable[[Seen, Floats, Floats, Floats], Floats]
"""Forms of s (dy − ḡ − x̂ c) weight, from dy, Σ dy and Σ dy x̂; WEIGHT is known."""


def as_it_reads(
    k: Seen, dy: Floats, sum_dy: Floats, products: Floats, by_difference: bool = False
) -> Floats:
    ew, x_hat = k.ew, k.x_hat_by_difference(k.ew) if by_difference else k.x_hat(k.ew)
    bracket = ew.add(ew.add(dy - k.held(sum_dy / k.n)) - ew(x_hat * k.held(products / k.n)))
    return ew(ew(k.weight * k.s) * bracket)


def as_in_torch(k: Seen, dy: Floats, sum_dy: Floats, products: Floats) -> Floats:
    ew = k.ew
    factor = ew(ew(products * k.s) / k.n)
    bracket = ew.add(ew.add(dy - k.held(sum_dy / k.n)) - ew(k.deviations(ew) * factor))
    return ew(ew(bracket * k.s) * k.weight)


def times_n(k: Seen, dy: Floats, sum_dy: Floats, products: Floats) -> Floats:
    ew = k.ew
    bracket = ew.add(ew.add(ew(k.n * dy) - sum_dy) - ew(k.x_hat(ew) * products))
    return ew(ew(ew(k.weight * k.s) / k.n) * bracket)


def folded(k: Seen, dy: Floats, sum_dy: Floats, products: Floats) -> Floats:
    """A dy + b x + d, as caffe2 has it: a x̂ c by two products of a and s c, one of them with mu."""
    ew = k.ew
    a, s_c, one_by_n = ew(k.weight * k.s), ew(products * k.s), ew(np.asarray(1 / k.n))
    b = -ew(ew(a * s_c) * one_by_n)
    d = ew(ew(a * ew.add(ew(k.mu * s_c) - sum_dy)) * one_by_n)
    return ew.add(ew.add(ew(a * dy) + ew(b * k.x)) + d)


INPUTS: Mapping[str, Inputs] = {
    "as it reads": as_it_reads,
    "x̂ by difference": partial(as_it_reads, by_difference=True),
    "as in torch": as_in_torch,
    "times n": times_n,
    "folded": folded,
}


def gradients_in_every_form(k: Seen, dy: Floats, products: Products) -> dict[str, Floats]:
    """Return dweight, dbias, and dx in each form."""
    dy = k.io.read(dy)
    sum_dy, sum_products = k.sum(dy), products(k, dy)
    if k.held.format != k.fl.format:
        sum_products = k.held(sum_products)
    inputs = {
        f"dx {name}": k.io(form(k, dy, sum_dy, sum_products)) for name, form in INPUTS.items()
    }
    return {"dweight": k.io(sum_products), "dbias": k.io(sum_dy), **inputs}


# The exact results, and their bounds -------------------------------------------------------------------------


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


# Kernels of the second derivatives ---------------------------------------------------------------------------


def second_in_torch(k: Seen, dy: Floats, v: Floats) -> dict[str, Floats]:
    """Return ddy, ddx and ddweight in the expanded form of torch's batchnorm_double_backward, step by step."""
    fl, n, s, deviations = k.fl, k.n, k.s, k.deviations(k.fl)
    s_2 = fl(s * s)
    s_3 = fl(s_2 * s)
    x_s_3 = fl(deviations * s_3)
    dy_x, v_x, sum_dy, sum_v = (
        k.sum(fl(dy * deviations)),
        k.sum(fl(v * deviations)),
        k.sum(dy),
        k.sum(v),
    )
    of_means = fl.add(fl(fl(sum_v * sum_dy) / n) - k.sum(fl(dy * v)))
    inner = fl.add(of_means + fl(fl(fl(s_2 * dy_x) * v_x) * fl(np.asarray(3.0 / n))))
    along_x = fl(fl(x_s_3 * inner) / n)
    along_dy = fl(fl(fl(v_x * s_3) / n) * fl.add(fl(sum_dy / n) - dy))
    along_v = fl(fl(fl(dy_x * s_3) / n) * fl.add(fl(sum_v / n) - v))
    ddx = fl(k.weight * fl.add(fl.add(along_x + along_dy) + along_v))
    of_weight = fl.add(fl(dy * s) - fl(fl(s * sum_dy) / n))
    of_weight = fl.add(of_weight - fl(fl(x_s_3 * dy_x) / n))

    def first(rows: Floats, total: Floats, products: Floats, weight: Floats | float) -> Floats:
        bracket = fl.add(fl.add(fl(n * rows) - total) - fl(fl(deviations * s_2) * products))
        return fl(fl(fl(weight * s) / n) * bracket)

    ddy = fl.add(first(v, sum_v, v_x, k.weight) + fl(fl(OF_WEIGHT * deviations) * s))
    return {
        "ddy": fl.add(fl.add(ddy + OF_BIAS)),
        "ddx": fl.add(fl.add(ddx + fl(OF_WEIGHT * of_weight))),
        "ddweight": fl.add(k.sum(fl(v * first(dy, sum_dy, dy_x, 1.0)))),
    }


def second_projected(
    k: Seen, dy: Floats, v: Floats, products: Products = centred
) -> dict[str, Floats]:
    """Return them by the projections p of dy and q of v: −weight s² (x̂ mean(v p) + c q + a p) + ẇ s p."""
    fl, n, s, x_hat = k.fl, k.n, k.s, k.x_hat(k.fl)

    def projection(rows: Floats) -> tuple[Floats, Floats]:
        along = fl(products(k, rows) / n)
        return along, fl.add(fl.add(rows - fl(k.sum(rows) / n)) - fl(x_hat * along))

    (c, p), (a, q) = projection(dy), projection(v)
    sum_v_p = k.sum(fl(v * p))
    curvature = fl.add(fl.add(fl(x_hat * fl(sum_v_p / n)) + fl(c * q)) + fl(a * p))
    ddx = fl.add(fl(fl(OF_WEIGHT * s) * p) - fl(fl(k.weight * fl(s * s)) * curvature))
    ddy = fl.add(fl.add(fl(fl(k.weight * s) * q) + fl(OF_WEIGHT * x_hat)) + OF_BIAS)
    return {"ddy": fl.add(ddy), "ddx": fl.add(ddx), "ddweight": fl.add(fl(s * sum_v_p))}


def second_expanded(
    k: Seen, dy: Floats, v: Floats, products: Products = centred
) -> dict[str, Floats]:
    """Return them by the means alone: the formula of the reference, and dweight from mean(v dy) − v̄ ḡ − a c."""
    fl, n, s, x_hat = k.fl, k.n, k.s, k.x_hat(k.fl)
    g, v_mean, c, a = (
        fl(total / n) for total in (k.sum(dy), k.sum(v), products(k, dy), products(k, v))
    )
    a_c = fl(a * c)
    less_means = fl.add(fl(k.sum(fl(v * dy)) / n) - fl(v_mean * g))
    inner = fl.add(less_means - fl(3.0 * a_c))
    dy_off, v_off = fl.add(dy - g), fl.add(v - v_mean)
    curvature = fl.add(fl.add(fl(x_hat * inner) + fl(c * v_off)) + fl(a * dy_off))
    of_weight = fl(fl(OF_WEIGHT * s) * fl.add(dy_off - fl(x_hat * c)))
    first = fl(fl(k.weight * s) * fl.add(v_off - fl(x_hat * a)))
    return {
        "ddy": fl.add(fl.add(fl.add(first + fl(OF_WEIGHT * x_hat)) + OF_BIAS)),
        "ddx": fl.add(fl.add(of_weight - fl(fl(k.weight * fl(s * s)) * curvature))),
        "ddweight": fl.add(fl(fl(s * fl.add(less_means - a_c)) * n)),
    }


SECOND: Mapping[str, tuple[bool, Callable[[Seen, Floats, Floats], dict[str, Floats]]]] = {
    "as in torch": (True, second_in_torch),
    "projected": (True, second_projected),
    "expanded": (True, second_expanded),
    "projected, shifted sums": (False, partial(second_projected, products=shifted)),
    "expanded, shifted sums": (False, partial(second_expanded, products=shifted)),
}
"""Whether the form has the claim ``centred_products``, and the form."""


# The theorem ----------------------------------------------------------------------------------------------

GIVEN = np.array([[0.0], [100.0], [-3.0], [1.0]]), np.array([[1.0], [4.0], [1e-3], [0.0]])
"""A mean and a variance that the layer holds, in eval mode."""


def model_of(
    data: Data, grade: str, centred_products: bool, row: DType = COARSE, **claims: Any
) -> Model:
    return Model(row, data.n, Accuracy(grade, centred_products=centred_products, **claims))


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("forward", FORWARDS)
def test_gradients_stay_within_their_bounds_however_each_operation_is_rounded(
    forward: str, form: str
) -> None:
    (grade, kernel), (claimed, products) = FORWARDS[forward], PRODUCTS[form]
    worst: dict[str, float] = {}

    @examples(35)
    @given(data())
    def stay_within(data: Data) -> None:
        model = model_of(data, grade, claimed)
        got = gradients_in_every_form(Seen.of(data, model, kernel), data.dy, products)
        for name, used in shares(got, Exact.of(data, model).first()).items():
            assert used <= 1, name
            worst[name.split()[0]] = max(used, worst.get(name.split()[0], 0))

    stay_within()
    # The bounds are not so wide that nothing comes near them.
    assert worst["dx"] > 0.05
    assert worst["dweight"] > 0.05
    assert worst["dbias"] > 0.05


@pytest.mark.parametrize("form", PRODUCTS)
def test_gradients_in_eval_mode_stay_within_their_bounds(form: str) -> None:
    claimed, products = PRODUCTS[form]

    @examples(35)
    @given(data())
    def stay_within(data: Data) -> None:
        model = model_of(data, "two-pass", claimed)
        k = Seen.of(data, model, two_pass, GIVEN)
        dy = k.io.read(data.dy)
        got = {
            "dx": k.io(k.ew(k.ew(k.weight * k.s) * dy)),
            "dweight": k.io(products(k, dy)),
            "dbias": k.io(k.sum(dy)),
        }
        assert max(shares(got, Exact.of(data, model, GIVEN).first()).values()) <= 1

    stay_within()


@pytest.mark.parametrize("form", SECOND)
@pytest.mark.parametrize("forward", FORWARDS)
def test_second_derivatives_stay_within_their_bounds(forward: str, form: str) -> None:
    (grade, kernel), (claimed, second) = FORWARDS[forward], SECOND[form]

    @examples(25)
    @given(data(longest=60))
    def stay_within(data: Data) -> None:
        model = model_of(data, grade, claimed)
        got = second(Seen.of(data, model, kernel), data.dy, data.v)
        for name, used in shares(got, Exact.of(data, model).second()).items():
            assert used <= 1, name

    stay_within()


@pytest.mark.parametrize("summation", SUMMATIONS)
def test_every_class_of_sums_holds_its_gradients(summation: str) -> None:
    @examples(35)
    @given(data())
    def stay_within(data: Data) -> None:
        model = model_of(data, "two-pass", True, summation=summation)
        got = gradients_in_every_form(Seen.of(data, model, two_pass), data.dy, centred)
        assert max(shares(got, Exact.of(data, model).first()).values()) <= 1

    stay_within()


# What the bounds are worth --------------------------------------------------------------------------------


# The theorem, for all other claims and modes ------------------------------------------------------------------


def raised(worst: dict[str, float], found: Mapping[str, float]) -> None:
    """Note the largest share of each result; it must not exceed 1."""
    for name, largest in found.items():
        assert largest <= 1, name
        worst[name] = max(worst.get(name, 0.0), largest)


SUMMED = {
    name: ("any order",) if name in ("welford", "chan") else tuple(TOTALS) for name in FORWARDS
}
"""The classes of summation of each forward kernel."""

each_forward = pytest.mark.parametrize("forward", FORWARDS)


@pytest.mark.parametrize("form", SECOND)
def test_every_class_of_sums_holds_its_second_derivatives(form: str) -> None:
    is_centred, second = SECOND[form]
    worst: dict[str, float] = {}

    @examples(90)
    @given(
        data(longest=80),
        st.sampled_from([(name, total) for name, totals in SUMMED.items() for total in totals]),
    )
    def stay_within(drawn: Data, chosen: tuple[str, str]) -> None:
        (grade, kernel), summation = FORWARDS[chosen[0]], chosen[1]
        model = Model(COARSE, drawn.n, Accuracy(grade, summation, centred_products=is_centred))
        raised(
            worst,
            shares(
                second(Seen.of(drawn, model, kernel), drawn.dy, drawn.v),
                Exact.of(drawn, model).second(),
            ),
        )

    stay_within()
    assert all(largest > 0.1 for largest in worst.values()), worst


def held_statistics(drawn: Data) -> tuple[Floats, Floats]:
    """Return running statistics: those of other data."""
    rng = np.random.default_rng(drawn.seed)
    return rng.normal(size=(CHANNELS, 1)) * 100, np.exp(rng.normal(size=(CHANNELS, 1)))


@pytest.mark.parametrize("form", PRODUCTS)
def test_first_and_second_derivatives_of_eval_stay_within_their_bounds_for_every_class_of_sums(
    form: str,
) -> None:
    is_centred, products = PRODUCTS[form]
    worst: dict[str, float] = {}

    @examples(60)
    @given(data(), st.sampled_from(tuple(TOTALS)))
    def stay_within(drawn: Data, summation: str) -> None:
        given_ = held_statistics(drawn)
        model = Model(COARSE, drawn.n, Accuracy("two-pass", summation, centred_products=is_centred))
        k, exact, dy, v = (
            Seen.of(drawn, model, two_pass, given_),
            Exact.of(drawn, model, given_),
            drawn.dy,
            drawn.v,
        )
        fl, x_hat = k.fl, k.x_hat(k.fl)
        got = {
            "dweight": fl.add(products(k, dy)),
            "dbias": fl.add(k.sum(dy)),
            "dx": fl.add(fl(fl(WEIGHT * k.s) * dy)),
            "dx, weight last": fl.add(fl(fl(dy * k.s) * WEIGHT)),
        }
        raised(
            worst,
            shares({name.replace(",", ""): result for name, result in got.items()}, exact.first()),
        )
        second = {
            "ddy": fl.add(
                fl.add(fl.add(fl(fl(v * k.s) * WEIGHT) + fl(OF_WEIGHT * x_hat)) + OF_BIAS)
            ),
            "ddx": fl.add(fl(fl(OF_WEIGHT * k.s) * dy)),
            "ddweight": fl.add(k.sum(fl(fl(v * dy) * k.s))),
        }
        raised(worst, shares(second, exact.second()))

    stay_within()
    assert all(largest > 0.1 for largest in worst.values()), worst


PRECISE = replace(_COARSE, name="precise")
ROUGH = replace(_COARSE, name="rough", u=2.0**-7)
FINE = replace(PRECISE, name="fine", smallest_normal=2.0**-6, smallest_subnormal=2.0**-17)
SHORT = replace(ROUGH, name="short", smallest_normal=2.0**-6, smallest_subnormal=2.0**-12)
KEPT = {
    "statistics": Accuracy(statistics="parameters"),
    "elementwise": Accuracy(elementwise="parameters"),
    "both": Accuracy(statistics="parameters", elementwise="parameters"),
    "neither": Accuracy(),
}

each_keeping = pytest.mark.parametrize("kept", KEPT)


@each_keeping
def test_gradients_stay_within_their_bounds_where_statistics_or_elementwise_steps_are_kept_coarsely(
    kept: str,
) -> None:
    row = DType("coarse", ROUGH, ROUGH, PRECISE)
    worst: dict[str, float] = {}

    @examples(90)
    @given(data(longest=80), st.sampled_from(sorted(FORWARDS)), st.sampled_from(sorted(PRODUCTS)))
    def stay_within(drawn: Data, forward: str, form: str) -> None:
        (grade, kernel), (is_centred, products) = FORWARDS[forward], PRODUCTS[form]
        model = Model(row, drawn.n, replace(KEPT[kept], grade=grade, centred_products=is_centred))
        got = gradients_in_every_form(Seen.of(drawn, model, kernel), drawn.dy, products)
        raised(worst, shares(got, Exact.of(drawn, model).first()))

    stay_within()
    assert all(largest > 0.1 for largest in worst.values()), worst


# What is not honest exceeds them -----------------------------------------------------------------------------

RESULTS = ("dx", "dweight", "dbias")


def unshrunk(number: int) -> settings:
    """Return the settings for a search whose finding nobody reads."""
    return settings(examples(number), phases=[Phase.generate])


def only_centred(k: Seen, dy: Floats) -> dict[str, Floats]:
    return {"dx": k.ew(k.ew(k.weight * k.s) * k.ew.add(dy - k.ew(k.sum(dy) / k.n)))}


def without_the_mean(k: Seen, dy: Floats) -> dict[str, Floats]:
    along = k.fl(centred(k, dy) / k.n)
    return {"dx": k.ew(k.ew(k.weight * k.s) * k.ew.add(dy - k.ew(k.x_hat(k.ew) * along)))}


def without_s(k: Seen, dy: Floats) -> dict[str, Floats]:
    return {"dweight": k.sum(k.fl(dy * k.deviations(k.fl)))}


def mean_for_sum(k: Seen, dy: Floats) -> dict[str, Floats]:
    return {"dbias": k.fl(k.sum(dy) / k.n)}


MILD = data(
    values(("gaussian", "ramp"), scales=(0,), offsets=(0.0, 1.0)),
    st.tuples(
        chosen(gradients(("gaussian",), scales=(0,), offsets=(0.0, 1.0))), st.just("unrelated")
    ),
)


@pytest.mark.parametrize(
    "faulty",
    [only_centred, without_the_mean, without_s, mean_for_sum],
    ids=lambda kernel: str(kernel.__name__),
)
@each_forward
def test_a_missing_term_exceeds_a_bound_of_every_grade(
    forward: str, faulty: Callable[[Seen, Floats], dict[str, Floats]]
) -> None:
    grade, kernel = FORWARDS[forward]

    def exceeds(drawn: Data) -> bool:
        model = Model(COARSE, drawn.n, Accuracy(grade))
        got = faulty(Seen.of(drawn, model, kernel), drawn.dy)
        return max(shares(got, Exact.of(drawn, model).first()).values()) > 1

    find(MILD, exceeds, settings=unshrunk(200))


@pytest.mark.parametrize("result", RESULTS)
@each_forward
def test_a_kernel_in_half_of_the_precision_exceeds_its_bound(forward: str, result: str) -> None:
    """As float16 is to float32: half of the digits."""
    grade, kernel = FORWARDS[forward]
    half = replace(_COARSE, name="half", u=U**0.5)

    def exceeds(drawn: Data) -> bool:
        claimed, real = (
            Model(DType(f.name, f, f, f), drawn.n, Accuracy(grade)) for f in (_COARSE, half)
        )
        got = gradients_in_every_form(Seen.of(drawn, real, kernel), drawn.dy, centred)
        name = "dx as it reads" if result == "dx" else result
        return share(got[name], *Exact.of(drawn, claimed).first()[result]) > 1

    find(MILD, exceeds, settings=unshrunk(300))


def test_sums_that_are_shifted_exceed_the_bound_of_those_that_claim_centred_products() -> None:
    def exceeds(drawn: Data) -> bool:
        model = Model(COARSE, drawn.n, Accuracy("two-pass", centred_products=True))
        got = gradients_in_every_form(Seen.of(drawn, model, two_pass), drawn.dy, shifted)
        return share(got["dweight"], *Exact.of(drawn, model).first()["dweight"]) > 1

    find(data(), exceeds, settings=unshrunk(500))


# The bounds among themselves -----------------------------------------------------------------------------------


def all_bounds(drawn: Data, accuracy: Accuracy, row: DType = COARSE) -> dict[str, Floats]:
    exact = Exact.of(drawn, Model(row, drawn.n, accuracy))
    return {name: bound for name, (_, bound) in (exact.first() | exact.second()).items()}


def assert_growing(smaller: Mapping[str, Floats], larger: Mapping[str, Floats]) -> None:
    """Rounding may order equal bounds either way."""
    for name, bound in smaller.items():
        assert ((bound <= larger[name] * (1 + 1e-9)) | (larger[name] < 1e-30)).all(), name


CLAIMS = [
    Accuracy(grade, centred_products=claimed)
    for grade, _ in FORWARDS.values()
    for claimed in (True, False)
]


@examples(35)
@given(data(longest=40), st.sampled_from(CLAIMS), st.integers(2, 4))
def test_the_bounds_grow_with_the_number_of_values_and_with_the_unit_roundoff(
    drawn: Data, claims: Accuracy, times: int
) -> None:
    """Repeated rows have the same means, and sums so many times as large."""
    x, dy, v = (np.tile(rows, times) for rows in (drawn.x, drawn.dy, drawn.v))
    models = (
        (drawn, FLOAT64),
        (drawn, FLOAT32),
        (drawn, COARSE),
        (replace(drawn, x=x, dy=dy, v=v), COARSE),
    )
    steps = [all_bounds(d, claims, row) for d, row in models]
    steps[-1] = {name: bound[:, : steps[0][name].shape[1]] for name, bound in steps[-1].items()}
    for smaller, larger in pairwise(steps):
        assert_growing(smaller, larger)


NARROWER = [
    (Accuracy("two-pass"), Accuracy("welford")),
    (Accuracy("welford"), Accuracy("textbook")),
    (Accuracy("welford", direct_means=True), Accuracy("welford")),
    *(
        (Accuracy(grade, centred_products=True), Accuracy(grade))
        for grade in ("two-pass", "welford", "textbook")
    ),
    *(
        (Accuracy(grade, "wide"), Accuracy(grade, "any order"))
        for grade in ("two-pass", "welford", "textbook")
    ),
    *((Accuracy(grade, "wide"), Accuracy(grade, "pairwise")) for grade in ("two-pass", "textbook")),
    (Accuracy("two-pass", "pairwise"), Accuracy("two-pass")),
    (Accuracy(), Accuracy(statistics="parameters")),
    (Accuracy(), Accuracy(elementwise="parameters")),
]


@pytest.mark.parametrize(("narrow", "wide"), NARROWER)
def test_a_narrower_claim_never_widens_a_bound(narrow: Accuracy, wide: Accuracy) -> None:
    differs = False
    row = DType("coarse", ROUGH, ROUGH, PRECISE)

    @examples(20)
    @given(data(longest=400))
    def widens_none(drawn: Data) -> None:
        nonlocal differs
        ours, theirs = (all_bounds(drawn, claims, row) for claims in (narrow, wide))
        assert_growing(ours, theirs)
        differs |= any((bound < theirs[name]).any() for name, bound in ours.items())

    widens_none()
    assert differs


@pytest.mark.parametrize("claims", [*CLAIMS[::2], Accuracy(subnormals=False), KEPT["both"]])
def test_where_dy_is_zero_in_a_channel_no_error_is_allowed(claims: Accuracy) -> None:
    @examples(10)
    @given(data(longest=20), st.integers(0, CHANNELS - 1))
    def none_is_allowed(drawn: Data, channel: int) -> None:
        silent = np.where(
            np.arange(CHANNELS)[:, None] == channel, 0, np.where(drawn.dy == 0, 1, drawn.dy)
        )
        zeros = replace(drawn, dy=silent)
        for row in (COARSE, FLOAT32, DTYPES["bfloat16"]):
            exact = Exact.of(zeros, Model(row, zeros.n, claims)).first()
            for name, (_, bound) in exact.items():
                assert ((bound > 0).all(axis=1) == (np.arange(CHANNELS) != channel)).all(), name
                assert (bound[channel] == 0).all(), name

    none_is_allowed()


@examples(20)
@given(data(longest=20))
def test_where_all_cotangents_are_zero_no_error_is_allowed_in_a_second_derivative(
    drawn: Data,
) -> None:
    exact, zeros, none = (
        Exact.of(drawn, Model(COARSE, drawn.n)),
        np.zeros_like(drawn.v),
        np.zeros((CHANNELS, 1)),
    )
    g, a = exact.direction(drawn.dy), exact.direction(zeros)
    assert (gb.double_dy_bound(a, WEIGHT, none, none) == 0).all()
    assert (gb.double_weight_bound(g, a, none) == 0).all()
    assert (gb.double_input_bound(g, a, none, WEIGHT, none) == 0).all()


# Underflow ------------------------------------------------------------------------------------------------


TINY = values(
    [
        family for family in FAMILIES if family != "heavy-tailed"
    ],  # whose s would underflow, as no format's does
    scales=(0, -3, -6, -8, -12, -17),
    offsets=(0.0, 1.0, -10.0),
)


@pytest.mark.parametrize("flushes", [True, False], ids=["flushed", "not flushed"])
@each_keeping
def test_gradients_stay_within_their_bounds_where_everything_underflows(
    kept: str, flushes: bool
) -> None:
    row = (
        DType("fine", FINE, FINE, FINE)
        if kept == "neither"
        else DType("short", SHORT, SHORT, PRECISE)
    )
    keeping = replace(KEPT[kept], subnormals=not flushes)

    @examples(50)
    @given(
        data(TINY, eps=(0.5,), longest=60),
        st.sampled_from(sorted(FORWARDS)),
        st.sampled_from(sorted(PRODUCTS)),
    )
    def stay_within(drawn: Data, forward: str, form: str) -> None:
        (grade, kernel), (is_centred, products) = FORWARDS[forward], PRODUCTS[form]
        model = Model(row, drawn.n, replace(keeping, grade=grade, centred_products=is_centred))
        got = gradients_in_every_form(Seen.of(drawn, model, kernel), drawn.dy, products)
        raised({}, shares(got, Exact.of(drawn, model).first()))

    stay_within()


@pytest.mark.parametrize("flushes", [True, False], ids=["flushed", "not flushed"])
@pytest.mark.parametrize("form", SECOND)
def test_second_derivatives_stay_within_their_bounds_where_everything_underflows(
    form: str, flushes: bool
) -> None:
    is_centred, second = SECOND[form]

    @examples(35)
    @given(data(TINY, eps=(0.5, 1.0), longest=60), st.sampled_from(sorted(FORWARDS)))
    def stay_within(drawn: Data, forward: str) -> None:
        grade, kernel = FORWARDS[forward]
        claims = Accuracy(grade, centred_products=is_centred, subnormals=not flushes)
        model = Model(DType("fine", FINE, FINE, FINE), drawn.n, claims)
        k = Seen.of(drawn, model, kernel)
        raised(
            {},
            shares(
                second(k, k.io.read(drawn.dy), k.io.read(drawn.v)), Exact.of(drawn, model).second()
            ),
        )

    stay_within()


@examples(20)
@given(data(longest=20))
def test_a_bound_has_the_shape_of_what_it_bounds(drawn: Data) -> None:
    exact = Exact.of(drawn, Model(COARSE, drawn.n))
    for name, (value, bound) in exact.first().items():
        assert value.shape == bound.shape, name
    g, a, product = exact.direction(drawn.dy), exact.direction(drawn.v), mean(drawn.dy * drawn.v)
    assert gb.double_dy_bound(a, WEIGHT, OF_WEIGHT, OF_BIAS).shape == drawn.x.shape
    assert gb.double_input_bound(g, a, product, WEIGHT, OF_WEIGHT).shape == drawn.x.shape
    assert gb.double_weight_bound(g, a, product).shape == (CHANNELS, 1)
