"""Plain modules and batches of PyTorch, for the tests of what PyTorch does. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

INF, NAN = float("inf"), float("nan")
NCHW, NHWC = torch.contiguous_format, torch.channels_last

TENSORS = {"weight": 2.0, "bias": 3.0, "running_mean": 4.0, "running_var": 5.0}
"""The number in every element of each tensor of a :func:`checkpoint`."""

MENDED = "torch has mended it: remove the known failure"
"""Message of the tests that repeat a known failure."""

each_mode = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
each_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC", "other strides"])
each_special = pytest.mark.parametrize("value", [NAN, INF, -INF])


def norm(channels: int = 1, training: bool = True, **arguments: Any) -> Any:
    """Build a BatchNorm2d in training or eval mode."""
    return torch.nn.BatchNorm2d(channels, **arguments).train(training)


def batch(*numbers: float, dtype: Any = torch.float32) -> Any:
    """Return one channel of these numbers, a sample each."""
    return torch.tensor(numbers, dtype=dtype).reshape(-1, 1, 1, 1)


def row(*numbers: float, channels: int = 1, dtype: Any = torch.float32) -> Any:
    """Return one sample, with these numbers in each channel."""
    return torch.tensor(numbers, dtype=dtype).repeat(channels, 1)[None, :, None, :]


def strided(x: Any) -> Any:
    """Return the same tensor as every second element of a row."""
    n, c, h, w = x.shape
    return torch.zeros(n, c, h, 2 * w, dtype=x.dtype)[..., ::2].copy_(x)


def laid_out(x: Any, layout: str) -> Any:
    """Return the same tensor in one of the layouts of ``each_layout``."""
    if layout == "other strides":
        return strided(x)
    return x.contiguous(memory_format=NCHW if layout == "NCHW" else NHWC)


def with_(layer: Any, **numbers: float) -> Any:
    """Set every element of these tensors of the layer to a number, and return the layer."""
    with torch.no_grad():
        for name, number in numbers.items():
            getattr(layer, name).fill_(number)
    return layer


def statistics(layer: Any) -> tuple[list[float], list[float], int]:
    """Return running mean, running variance and counter."""
    return layer.running_mean.tolist(), layer.running_var.tolist(), layer.num_batches_tracked.item()


def checkpoint(**changes: Any) -> dict[str, Any]:
    """Return the tensors of a layer of two channels, with changes; None leaves a tensor out."""
    whole = {name: torch.full((2,), number) for name, number in TENSORS.items()}
    tensors = whole | {"num_batches_tracked": torch.tensor(6)} | changes
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
