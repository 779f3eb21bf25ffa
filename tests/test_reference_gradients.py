"""The reference's gradients against 60-digit differences of the forward, and torch.autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, localcontext
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import BatchNorm2d, Case, Config, State, check
from bn_spec.backend.adapters.reference_backend import reference
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Eval,
    Forward,
)
from bn_spec.judge.judging import judge
from bn_spec.play.player import play
from bn_spec.strategies import (
    ABSENT,
    FAMILIES,
    MIXED,
    PARAMETER_STYLES,
    RUNNING_STYLES,
    cases,
    shapes,
    values,
)
from tests.common import examples

Row: TypeAlias = list[Decimal]
STEP = Decimal(10) ** -25
MODES = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])


def mean(row: Row) -> Decimal:
    return sum(row, Decimal()) / len(row)


def normalised(
    x: Row, eps: Decimal, running: tuple[Decimal, Decimal] | None
) -> tuple[Row, Decimal]:
    """Return x̂ and s, by the batch statistics or by a ``running`` mean and variance."""
    mu = running[0] if running else mean(x)
    var = running[1] if running else mean([(value - mu) ** 2 for value in x])
    s = 1 / (var + eps).sqrt()
    return [(value - mu) * s for value in x], s


def loss(
    x: Row,
    dy: Row,
    weight: Decimal,
    bias: Decimal,
    eps: Decimal,
    running: tuple[Decimal, Decimal] | None,
) -> Decimal:
    """Return Σ dy y, by the definition of the forward."""
    x_hat, _ = normalised(x, eps, running)
    return sum((g * (weight * value + bias) for g, value in zip(dy, x_hat, strict=True)), Decimal())


def difference(f: Callable[[Decimal], Decimal], at: Decimal, scale: Decimal) -> Decimal:
    h = STEP * scale
    return (f(at + h) - f(at - h)) / (2 * h)


def each(f: Callable[[Row], Decimal], row: Row, scale: Decimal) -> Row:
    def moved(i: int) -> Callable[[Decimal], Decimal]:
        return lambda value: f([*row[:i], value, *row[i + 1 :]])

    return [difference(moved(i), value, scale) for i, value in enumerate(row)]


@st.composite
def layers(draw: st.DrawFn) -> tuple[BatchNorm2d, Array, Array]:
    """A float64 layer of one channel, an input and a gradient; some inputs are ill-conditioned."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n, offset, scale = (
        draw(st.integers(2, 6)),
        draw(st.sampled_from((0, 1, 1e3, -1e6))),
        draw(st.sampled_from((1, 1e-4))),
    )
    layer = BatchNorm2d(1, eps=draw(st.sampled_from((1e-5, 1.0, 1e-12))), dtype="float64")
    layer.weight, layer.bias = rng.normal(size=(2, 1))
    layer.running_mean, layer.running_var = rng.normal(size=1), np.exp(rng.normal(size=1))
    x = offset + scale * rng.normal(size=(n, 1, 1, 1)) * draw(st.sampled_from((1, 1, 1, 0)))
    return layer, x, rng.normal(size=x.shape)


def decimals(a: Array) -> Row:
    return [Decimal(float(value)) for value in a.ravel()]


def close(got: Array | None, exact: Row) -> bool:
    """Return whether float64 results are the exact ones, rounded.

    The differences have about 20 correct digits, relative to the largest one.
    """
    assert got is not None
    room = max(map(abs, exact)) * Decimal(10) ** -18
    return all(
        abs(a - b) <= abs(b) * Decimal(2) ** -52 + room
        for a, b in zip(decimals(got), exact, strict=True)
    )


def statistics_in_use(state: Mapping[str, Array], training: bool) -> tuple[Decimal, Decimal] | None:
    """Return the running mean and variance that normalise in eval mode, None in training mode."""
    if training:
        return None
    (mean,), (var,) = decimals(state["running_mean"]), decimals(state["running_var"])
    return mean, var


@MODES
@examples(35)
@given(layers())
def test_gradients_are_the_differences_of_the_forward(
    training: bool, drawn: tuple[BatchNorm2d, Array, Array]
) -> None:
    layer, x, dy = drawn
    state = layer.state_dict()
    running = statistics_in_use(state, training)
    _, record = layer.train(training).record(x)
    before = layer.state_dict()
    dx, dweight, dbias = layer.backward(record, dy)
    assert {name: a.tobytes() for name, a in layer.state_dict().items()} == {
        n: a.tobytes() for n, a in before.items()
    }
    with localcontext() as context:
        context.prec = 90
        (weight,), (bias,), eps = (
            decimals(state["weight"]),
            decimals(state["bias"]),
            Decimal(layer.config.eps),
        )
        row, g = decimals(x), decimals(dy)
        s = normalised(row, eps, running)[1]
        assert close(dx, each(lambda r: loss(r, g, weight, bias, eps, running), row, 1 / s))
        assert close(
            dweight, [difference(lambda w: loss(row, g, w, bias, eps, running), weight, Decimal(1))]
        )
        assert close(
            dbias, [difference(lambda b: loss(row, g, weight, b, eps, running), bias, Decimal(1))]
        )


@MODES
@examples(25)
@given(layers(), st.integers(0, 99))
def test_second_derivatives_are_the_differences_of_the_gradients(
    training: bool, drawn: tuple[BatchNorm2d, Array, Array], seed: int
) -> None:
    layer, x, dy = drawn
    state = layer.state_dict()
    running = statistics_in_use(state, training)
    rng = np.random.default_rng(seed)
    v, of_weight, of_bias = rng.normal(size=x.shape), rng.normal(size=1), rng.normal(size=1)
    _, record = layer.train(training).record(x)
    ddy, ddx, ddweight = layer.double_backward(record, dy, v, of_weight, of_bias)
    with localcontext() as context:
        context.prec = 90
        (weight,), eps = decimals(state["weight"]), Decimal(layer.config.eps)
        row, g, cotangent = decimals(x), decimals(dy), decimals(v)
        (w_dot,), (b_dot,) = decimals(of_weight), decimals(of_bias)

        def inner(row: Row, g: Row, weight: Decimal) -> Decimal:
            x_hat, s = normalised(row, eps, running)
            c = mean([a * b for a, b in zip(g, x_hat, strict=True)])
            projected = (
                g if running else [a - mean(g) - b * c for a, b in zip(g, x_hat, strict=True)]
            )
            along = sum(
                (a * weight * s * b for a, b in zip(cotangent, projected, strict=True)), Decimal()
            )
            return along + w_dot * c * len(row) + b_dot * sum(g, Decimal())

        s = normalised(row, eps, running)[1]
        assert close(ddx, each(lambda r: inner(r, g, weight), row, 1 / s))
        assert close(ddy, each(lambda r: inner(row, r, weight), g, Decimal(1)))
        assert close(ddweight, [difference(lambda w: inner(row, g, w), weight, Decimal(1))])


def steps_of(
    case: Case, rng: np.random.Generator
) -> Iterator[Backward | DoubleBackward | Eval | Forward]:
    (x,) = case.forwards()
    wrt = DIFFERENTIABLE if case.config.affine else DIFFERENTIABLE[:1]
    dtype = case.config.arithmetic.parameters.dtype
    of_parameters = (
        rng.normal(size=(2, x.shape[1])).astype(dtype) if case.config.affine else (None, None)
    )
    for mode in ((), (Eval(),)):
        yield from mode
        yield Forward(x, wrt)
        yield Backward(rng.normal(size=x.shape).astype(x.dtype))
        yield DoubleBackward(*rng.normal(size=(2, *x.shape)).astype(x.dtype), *of_parameters)


@examples(70)
@given(
    cases(
        dtype="float64",
        shape=shapes("tiny", "different", "small"),
        value=values((*FAMILIES, MIXED), scales=(0, 3, -10), offsets=(0.0, 1.0, 1e3)),
        parameters=PARAMETER_STYLES,
        running=(*RUNNING_STYLES, ABSENT),
        eps=(1e-5, 1.0),
    )
)
def test_reference_and_autograd_agree_within_their_bounds(case: Case) -> None:
    torch_cpu = pytest.importorskip("bn_spec.backend.adapters.torch").cpu()
    steps = tuple(steps_of(case, np.random.default_rng(0)))
    case = Case(case.config, case.state, steps)
    for backend in (reference, torch_cpu):
        verdict = judge(
            case, play(case, backend), (*GRADIENTS, *DOUBLE_GRADIENTS), backend.capabilities
        )
        misread = any(
            known.where(case) for known in torch_cpu.known_failures if known.observable == "grad*"
        )
        assert not verdict.discrepancies or (backend is torch_cpu and misread)
        assert verdict.judged > 0


def test_a_gradient_of_another_shape_is_refused() -> None:
    layer = BatchNorm2d(2)
    _, record = layer.record(np.zeros((2, 2, 1, 1), np.float32))
    with pytest.raises(
        ValueError, match=r"expected a gradient of shape \(2, 2, 1, 1\); got \(2, 2, 1, 2\)"
    ):
        layer.backward(record, np.zeros((2, 2, 1, 2), np.float32))


def test_without_affine_there_are_no_gradients_of_parameters() -> None:
    layer = BatchNorm2d(2, affine=False)
    x = np.arange(4, dtype=np.float32).reshape(2, 2, 1, 1)
    _, record = layer.record(x)
    assert layer.backward(record, x)[1:] == (None, None)
    assert layer.double_backward(record, x, x)[2] is None


def test_a_case_with_every_gradient_step_holds_for_the_reference() -> None:
    x = np.arange(4, dtype=np.float64).reshape(2, 2, 1, 1)
    one = np.ones(2)
    state = State(one, one, one, one, np.array(0))
    steps = (Forward(x, DIFFERENTIABLE), Backward(x), DoubleBackward(x, x, np.ones(2), np.ones(2)))
    assert check(Case(Config(2, dtype="float64"), state, steps), reference) == []
