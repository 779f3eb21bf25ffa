"""The gradients of the adapter to PyTorch are those of autograd."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Case, Config, check
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
from bn_spec.play.observation import Raised
from bn_spec.play.player import play
from bn_spec.strategies import cases, histories, shapes
from tests.common import examples

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_layers import CPU, DY, X, tensors  # noqa: E402 - it needs torch
from tests.torch_modules import each_mode  # noqa: E402

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size)]


def by_autograd(config: Config, training: bool) -> dict[str, Any]:
    """Return the gradients of a new module as its users get them, by name."""
    module = torch.nn.BatchNorm2d(config.num_features, affine=config.affine).train(training)
    x, dy = tensors(X, DY)
    x.requires_grad_()
    module(x).backward(dy)
    of_parameters = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"input": x.grad, **of_parameters}


@each_mode
@pytest.mark.parametrize("wrt", SUBSETS, ids="+".join)
def test_a_backward_returns_the_gradients_that_were_asked_and_no_others(
    wrt: tuple[str, ...], training: bool
) -> None:
    layer: Any = CPU.layer(Config(3), None)
    layer.train(training)
    x, dy = tensors(X, DY)
    y, record = layer.record(x, wrt)
    wanted = by_autograd(Config(3), training)
    for _ in range(2):  # a record may be asked again, and gradients do not accumulate
        found = layer.backward(record, dy)._asdict()
        assert {name for name, gradient in found.items() if gradient is not None} == set(wrt)
        assert all(torch.equal(found[name], wanted[name]) for name in wrt)
    assert layer.module.weight.grad is layer.module.bias.grad is x.grad is None
    assert y.requires_grad


@each_mode
def test_without_affine_the_gradient_of_the_input_is_that_of_autograd(training: bool) -> None:
    config = Config(3, affine=False)
    layer: Any = CPU.layer(config, None)
    layer.train(training)
    x, dy = tensors(X, DY)
    dx, dweight, dbias = layer.backward(layer.record(x, ("input",))[1], dy)
    assert torch.equal(dx, by_autograd(config, training)["input"])
    assert dweight is dbias is None


def test_a_forward_that_is_not_recorded_leaves_no_graph() -> None:
    layer: Any = CPU.layer(Config(3), None)
    assert not layer.forward(*tensors(X)).requires_grad


def test_a_parameter_is_not_frozen_after_a_forward_without_its_gradient() -> None:
    layer: Any = CPU.layer(Config(3), None)
    x, dy = tensors(X, DY)
    _, of_weight = layer.record(x, ("weight",))
    _, of_input = layer.record(x, ("input",))
    assert all(tensor.requires_grad for tensor in (layer.module.weight, layer.module.bias))
    _, of_bias = layer.record(x, ("bias",))
    wanted = by_autograd(Config(3), True)
    for name, record in (("weight", of_weight), ("input", of_input), ("bias", of_bias)):
        found = layer.backward(record, dy)._asdict()
        assert torch.equal(found.pop(name), wanted[name])
        assert set(found.values()) == {None}


def test_a_parameter_is_not_frozen_after_a_refused_forward() -> None:
    layer: Any = CPU.layer(Config(3), None)
    with pytest.raises(RuntimeError):
        layer.record(*tensors(X[:, :2]), ("input",))
    assert all(tensor.requires_grad for tensor in (layer.module.weight, layer.module.bias))
    _, record = layer.record(*tensors(X), ("weight",))
    assert layer.backward(record, *tensors(DY)).weight is not None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@each_mode
def test_second_derivatives_are_within_their_bounds(
    training: bool, affine: bool, dtype: str
) -> None:
    x, dy, v = (a.astype(dtype) for a in (X, DY, np.cos(X)))
    of_parameters = (DY[0, :, 0, 0].astype(dtype), v[0, :, 0, 0]) if affine else ()
    wrt = DIFFERENTIABLE if affine else ("input",)
    mode = () if training else (Eval(),)
    steps = (*mode, Forward(x, wrt), DoubleBackward(dy, v, *of_parameters), Backward(dy))
    case = Case(Config(3, affine=affine, dtype=dtype), None, steps)
    observation = play(case, CPU)
    verdict = judge(case, observation, (*DOUBLE_GRADIENTS, *GRADIENTS, "handed"), CPU.capabilities)
    assert not verdict.discrepancies
    assert verdict.judged >= 3 * x.size
    assert (observation.answers[-2].results["double_weight"] is None) is not affine


@each_mode
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)], ids=str)
def test_gradients_of_an_empty_batch_are_empty_or_zero(
    shape: tuple[int, ...], training: bool
) -> None:
    nothing = np.zeros(shape, np.float32)
    of_parameters = (DY[0, :, 0, 0], DY[1, :, 0, 0])
    asked = (
        Forward(nothing, DIFFERENTIABLE),
        Backward(nothing),
        DoubleBackward(nothing, nothing, *of_parameters),
    )
    case = Case(Config(3), None, asked if training else (Eval(), *asked))
    assert check(case, CPU) == []
    results: Any = play(case, CPU).answers[-2].results
    assert {name: np.shape(a) for name, a in results.items()} == dict(
        zip(GRADIENTS, (shape, (3,), (3,)), strict=True)
    )
    assert not np.any(results["grad_weight"])


def test_torch_refuses_no_backward_that_the_strategies_ask_for() -> None:
    words = histories(
        "forward with gradients",
        "backward if possible",
        "eval",
        "train",
        "forward",
        "load",
        "reset running statistics",
        "reset parameters",
        "save",
        "restore",
        "restore some tensors",
        "restore into a new layer",
        "load another size",
        "set eps",
        "empty forward",
        "forward of single values",
        # Once more, so that they are drawn more often.
        "forward with gradients",
        "backward if possible",
        least=4,
        most=12,
    )
    met = []

    @examples(300)
    @given(cases(history=words, claims=CPU.capabilities, shape=shapes("tiny")))
    def never_refused(case: Case) -> None:
        answers = [a for a in play(case, CPU, ()).answers if isinstance(a.step, Backward)]
        met.extend(answers)
        assert not [a.error for a in answers if isinstance(a.error, Raised)]

    never_refused()
    assert len(met) > 50
