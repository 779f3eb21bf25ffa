"""What torch.nn.BatchNorm2d answers on the CPU at the limits of its arguments and ranges."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import batch, strided  # noqa: E402 - it needs torch

# Arguments and refusals ---------------------------------------------------------------------------


def test_an_empty_batch_is_answered_with_an_empty_output_and_counted() -> None:
    layer = torch.nn.BatchNorm2d(2)
    layer.running_mean.fill_(3)
    assert layer(torch.zeros(0, 2, 3, 3)).shape == (0, 2, 3, 3)
    assert layer.running_mean.tolist() == [3, 3]
    assert layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked == 1


def test_an_eps_of_zero_is_refused_in_training_after_the_batch_was_counted() -> None:
    layer = torch.nn.BatchNorm2d(1, eps=0.0)
    with pytest.raises(ValueError, match="eps must be positive"):
        layer(batch(1, 2))
    assert layer.num_batches_tracked == 1
    assert layer.running_mean.tolist() == [0]
    assert layer.eval()(batch(1, 2)).ravel().tolist() == [1, 2]


# Ranges -------------------------------------------------------------------------------------------


def test_squares_that_overflow_give_an_infinite_variance_and_the_bias() -> None:
    layer = torch.nn.BatchNorm2d(1, momentum=1.0)
    torch.nn.init.constant_(layer.bias, 3.0)
    x = batch(1e20, -1e20, 3e19, 0)
    assert layer(x).ravel().tolist() == [3, 3, 3, 3]
    assert layer.running_mean.item() == pytest.approx(7.5e18, rel=1e-6)
    assert layer.running_var.tolist() == [np.inf]
    # Strided inputs are computed in double precision.
    assert torch.isfinite(layer(strided(x))).all()
    assert layer(strided(x)).ravel().tolist() != [3, 3, 3, 3]


def test_an_all_float16_layer_gives_nan_for_a_constant_channel_and_a_tiny_eps() -> None:
    def output(eps: float) -> list[float]:
        layer = torch.nn.BatchNorm2d(1, eps=eps, dtype=torch.float16)
        numbers: list[float] = layer(batch(2, 2, 2, dtype=torch.float16)).ravel().tolist()
        return numbers

    assert np.isnan(output(1e-12)).all()
    assert np.isnan(output(0.99 * 65504.0**-2)).all()
    assert output(1e-9) == [0, 0, 0]


def test_differences_overflow_in_strided_inputs_of_all_float16_layers_alone() -> None:
    x = batch(-6e4, 6e4, 6e4, 6e4, dtype=torch.float16)
    layer = torch.nn.BatchNorm2d(1, dtype=torch.float16)
    assert torch.isfinite(layer(x)).all()
    assert not torch.isfinite(layer(strided(x))).all()
