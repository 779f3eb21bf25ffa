"""What docs/ambiguities.md says of PyTorch on the CPU is so: loading, attributes, backwards."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import (  # noqa: E402 - it needs torch
    TENSORS,
    checkpoint,
    each_mode,
    norm,
    row,
    statistics,
)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 2), (1, 2), ()], ids=str)
def test_a_tensor_of_another_shape_is_refused_whether_strict_or_not_and_the_others_are_loaded(
    shape: tuple[int, ...], strict: bool
) -> None:
    layer = norm(2)
    with pytest.raises(RuntimeError, match="size mismatch for running_mean"):
        layer.load_state_dict(checkpoint(running_mean=torch.ones(shape)), strict=strict)
    assert (statistics(layer), layer.weight.tolist()) == (([0, 0], [5, 5], 6), [2, 2])


def test_missing_and_unexpected_tensors_are_refused_if_strict_and_the_others_are_loaded() -> None:
    missing, unexpected = norm(2), norm(2, affine=False)
    with pytest.raises(RuntimeError, match=r"Missing key.*bias"):
        missing.load_state_dict(checkpoint(bias=None))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias"):
        unexpected.load_state_dict(checkpoint())
    for layer in (missing, unexpected):
        assert statistics(layer) == ([4, 4], [5, 5], 6)
    assert missing.bias.tolist() == [0, 0]


def test_missing_and_unexpected_tensors_are_named_if_not_strict() -> None:
    missing, unexpected = norm(2), norm(2, track_running_stats=False)
    assert missing.load_state_dict(checkpoint(bias=None), strict=False).missing_keys == ["bias"]
    assert (missing.weight.tolist(), missing.bias.tolist()) == ([2, 2], [0, 0])
    named = unexpected.load_state_dict(checkpoint(), strict=False).unexpected_keys
    assert named == ["running_mean", "running_var", "num_batches_tracked"]
    assert unexpected.running_mean is None


@pytest.mark.parametrize(("counter", "loaded"), [(torch.tensor([7]), 7), (torch.tensor([2.7]), 2)])
def test_a_counter_of_one_dimension_becomes_a_scalar(counter: Any, loaded: int) -> None:
    layer = norm(2)
    layer.load_state_dict(checkpoint(num_batches_tracked=counter))
    assert (layer.num_batches_tracked.shape, layer.num_batches_tracked.item()) == ((), loaded)


def test_a_state_dict_refers_and_loading_copies() -> None:
    layer = norm()
    before, copied, other = layer.state_dict(), copy.deepcopy(layer), norm()
    other.load_state_dict(before)
    layer(row(10, 10))
    assert before["running_mean"].tolist() == [1]
    assert other.running_mean.tolist() == copied.running_mean.tolist() == [0]


# Attributes and backwards -------------------------------------------------------------------------


def test_eps_and_momentum_are_not_in_a_checkpoint_and_not_checked_when_set() -> None:
    layer = norm()
    layer.eps, layer.momentum = -1.0, 7.0
    assert set(layer.state_dict()) == {*TENSORS, "num_batches_tracked"}


@pytest.mark.parametrize("name", ["input", "weight"])
def test_a_backward_is_refused_after_its_input_or_weight_has_changed_in_place(
    name: str,
) -> None:
    layer = norm()
    x = row(1, 2).requires_grad_() * 1  # the input is no leaf, which cannot change in place
    y = layer(x)
    with torch.no_grad():
        (layer.weight if name == "weight" else x).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@each_mode
def test_a_backward_uses_the_eps_the_mode_and_the_batch_statistics_of_its_forward(
    training: bool,
) -> None:
    layer, x = norm(training=training), row(1, 2, 4).requires_grad_()
    y, dy = layer(x), row(1, 0, 2)
    (before,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    layer.train(not training).eps = 3.0
    if training:
        layer.train()(row(7, 9))
    assert torch.equal(torch.autograd.grad(y, x, dy)[0], before)
