"""BatchNorm2d as two NumPy functions, put under test as the backend ``example-kernel``."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bn_spec import Capabilities, kernel_backend

Array: TypeAlias = npt.NDArray[Any]

BATCH = (0, 2, 3)
"""The axes of x (N, C, H, W) that a channel's statistics run over."""


def forward_training(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
    eps: float,
) -> tuple[Array, Array | None, Array | None]:
    """Normalise by the statistics of the batch; return y and the running statistics moved by them."""
    _check(x, weight, bias, running_mean, running_var)
    n = x.size // x.shape[1]
    if n < 2:
        raise ValueError(f"batch statistics need more than one value per channel; got an input of shape {x.shape}")
    mean = x.mean(BATCH)
    var = np.square(x - _plane(mean)).mean(BATCH)  # two passes: squares of the deviations, not of x
    y = _normalised(x, mean, var, weight, bias, eps)
    return y, _moved(running_mean, mean, momentum), _moved(running_var, var * n / (n - 1), momentum)


def forward_inference(
    x: Array, weight: Array | None, bias: Array | None, running_mean: Array, running_var: Array, eps: float
) -> Array:
    """Normalise by the running statistics."""
    _check(x, weight, bias, running_mean, running_var)
    return _normalised(x, running_mean, running_var, weight, bias, eps)


def _normalised(x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float) -> Array:
    y = (x - _plane(mean)) / _plane(np.sqrt(var + eps))
    if weight is not None and bias is not None:
        y = y * _plane(weight) + _plane(bias)
    return y


@np.errstate(invalid="ignore")  # running statistics may be infinite; 0 · ∞ is then NaN, as in any framework
def _moved(running: Array | None, batch: Array, momentum: float) -> Array | None:
    return None if running is None else (1 - momentum) * running + momentum * batch


def _plane(values: Array) -> Array:
    """Lay per-channel values (C,) out so that they broadcast against (N, C, H, W)."""
    return values[:, np.newaxis, np.newaxis]


def _check(x: Array, *tensors: Array | None) -> None:
    if x.ndim != 4:
        raise ValueError(f"expected a 4-D input (N, C, H, W); got shape {x.shape}")
    for tensor in tensors:
        if tensor is not None and len(tensor) != x.shape[1]:
            raise ValueError(f"expected {len(tensor)} channels; got an input of shape {x.shape}")


backend = kernel_backend(
    "example-kernel",
    forward_training,
    forward_inference,
    capabilities=Capabilities(dtypes=("float32", "float64"), grade="two-pass"),
    description=f"NumPy {np.__version__}",
)
