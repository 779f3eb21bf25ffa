"""Layers and tensors of the adapter to PyTorch on the CPU, for its tests. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from bn_spec import Config, State
from bn_spec.backend.adapters.torch import cpu
from bn_spec.case.dtypes import Array

CPU = cpu()

X = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
DY = np.sin(X)
STATE = State(
    weight=np.array([1.5, -2, 0.5], np.float32),
    bias=np.array([1, 2, 3], np.float32),
    running_mean=np.array([3, -1, 0], np.float32),
    running_var=np.array([2, 1, 0.5], np.float32),
    num_batches_tracked=np.array(7),
)
"""A state of three channels, as X has."""

HALF = ("float16", "bfloat16")
"""Dtypes of layers with data and parameters in half precision."""


def tensors(*arrays: Array) -> list[Any]:
    """Return copies of arrays as tensors."""
    return [CPU.to_native(array.copy()) for array in arrays]


def layer_of(state: State | None = STATE, **config: Any) -> Any:
    """Build a layer of three channels with a state, or with its initial state."""
    return CPU.layer(Config(3, **config), state)


def numbers(tensors: Any) -> dict[str, Any]:
    """Return the numbers in tensors that have names."""
    items = tensors.items() if hasattr(tensors, "items") else tensors
    return {name: None if tensor is None else tensor.tolist() for name, tensor in items}
