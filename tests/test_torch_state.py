"""The adapter to PyTorch saves, loads, configures and folds as torch.nn.BatchNorm2d does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bn_spec import State
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import spread

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_layers import STATE, X, layer_of, numbers, tensors  # noqa: E402 - it needs torch


def state_tensors() -> dict[str, Any]:
    """Return new tensors with the numbers of STATE, by name."""
    return dict(zip(STATE_FIELDS, tensors(*STATE.tensors().values()), strict=True))


def present(named: dict[str, Any]) -> dict[str, Any]:
    """Return what is not None."""
    return {name: value for name, value in named.items() if value is not None}


def test_a_checkpoint_is_a_copy_of_the_state_dict() -> None:
    layer = layer_of()
    saved = layer.save()
    before = numbers(saved)
    assert before == numbers(layer.module.state_dict()) == numbers(STATE)
    layer.forward(*tensors(X))
    layer.reset_parameters()
    assert numbers(saved) == before != numbers(layer.module.state_dict())
    saved["weight"].fill_(9)
    assert layer.state().weight.tolist() == [1, 1, 1]


def test_loading_copies_the_tensors_that_are_handed_over() -> None:
    layer = layer_of(None)
    handed_over = state_tensors()
    layer.load(handed_over, strict=True)
    assert numbers(layer.state()) == numbers(STATE)
    layer.forward(*tensors(X))
    layer.reset_parameters()
    assert numbers(handed_over) == numbers(STATE)


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        pytest.param({}, {"bias": None}, "Missing key", id="a tensor that is missing"),
        pytest.param(
            {"affine": False}, {}, "Unexpected key", id="tensors that the layer does not have"
        ),
    ],
)
def test_a_strict_load_requires_exactly_the_tensors_of_the_layer_and_another_takes_what_fits(
    config: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    layer = layer_of(None, **config)
    before = present(numbers(layer.state()))
    some = present(state_tensors() | changes)
    with pytest.raises(RuntimeError, match=reason):
        layer.load(some, strict=True)
    layer.load(some, strict=False)
    loaded = {name: tensor for name, tensor in numbers(some).items() if name in before}
    assert present(numbers(layer.state())) == before | loaded


@pytest.mark.parametrize("shape", [(4,), (3, 1), (1, 3), ()], ids=str)
@pytest.mark.parametrize("strict", [True, False])
def test_a_tensor_of_another_shape_is_refused_whether_strict_or_not(
    strict: bool, shape: tuple[int, ...]
) -> None:
    layer = layer_of()
    with pytest.raises(RuntimeError, match="size mismatch for running_var"):
        layer.load(layer.save() | {"running_var": torch.ones(shape)}, strict=strict)
    assert numbers(layer.state()) == numbers(STATE)


def test_configure_sets_an_attribute_of_the_module_for_the_next_forward() -> None:
    layer = layer_of(None)
    (x,) = tensors(X)
    layer.configure("momentum", 1.0)
    layer.forward(x)
    assert torch.equal(layer.module.running_mean, x.mean((0, 2, 3)))
    layer.configure("momentum", None)
    layer.configure("eps", 3.0)
    assert (layer.module.momentum, layer.module.eps) == (None, 3.0)
    layer.train(False)
    torch.nn.init.zeros_(layer.module.running_mean)
    torch.nn.init.ones_(layer.module.running_var)
    assert torch.equal(layer.forward(x), x / 2)


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)], ids=str)
def test_folding_gives_the_convolution_that_torch_fuses(
    kernel: tuple[int, int], biased: bool, affine: bool
) -> None:
    torch.manual_seed(0)
    state = STATE if affine else replace(STATE, weight=None, bias=None)
    layer = layer_of(state, affine=affine)
    layer.train(False)
    convolution = torch.nn.Conv2d(2, 3, kernel, bias=biased).eval()
    fused = torch.nn.utils.fuse_conv_bn_eval(convolution, layer.module)
    before = numbers(layer.module.state_dict()), numbers(convolution.state_dict())
    weight, bias = layer.fold(
        convolution.weight.detach(), convolution.bias.detach() if biased else None
    )
    assert torch.equal(weight, fused.weight)
    assert torch.equal(bias, fused.bias)
    assert before == (numbers(layer.module.state_dict()), numbers(convolution.state_dict()))
    x = torch.randn(2, 2, 5, 4)
    torch.testing.assert_close(fused(x), layer.module(convolution(x)))


def spread_out(a: Array) -> Array:
    """Return an array with gaps of two elements."""
    return spread(a, 3) if a.ndim else a.copy()


def test_the_module_keeps_the_memory_of_a_state_with_gaps_and_copies_one_without() -> None:
    for state, step, shared in ((STATE.map(spread_out), 3, True), (STATE.map(np.copy), 1, False)):
        layer = layer_of(state)
        module = layer.module
        assert set(module.state_dict()) == set(STATE_FIELDS)
        assert {name for name, _ in module.named_parameters()} == {"weight", "bias"}
        assert {getattr(module, name).stride() for name in STATE_FIELDS[:4]} == {(step,)}
        assert numbers(layer.state()) == numbers(STATE)
        layer.forward(*tensors(X))
        moved = layer.state()
        assert numbers(moved) == numbers(layer_of_after_a_forward())
        assert (state.running_mean.tolist() == moved.running_mean.tolist()) is shared  # type: ignore[union-attr]


def layer_of_after_a_forward() -> State:
    layer = layer_of()
    layer.forward(*tensors(X))
    state: State = layer.state()
    return state
