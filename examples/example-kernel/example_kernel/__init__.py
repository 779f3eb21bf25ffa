"""BatchNorm2d as three NumPy functions, tested as the backend ``example-kernel``."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bn_spec import Capabilities, kernel_backend

Array: TypeAlias = npt.NDArray[Any]

BATCH = (0, 2, 3)
"""The axes of x (N, C, H, W) over which the statistics of a channel are taken."""


def forward_training(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
    eps: float,
) -> tuple[Array, Array | None, Array | None, tuple[Array, Array]]:
    """Normalise by the statistics of the batch.

    Returns:
        The output y, the new running_mean, the new running_var, and what the backward needs.

    """
    _check(x, weight, bias, running_mean, running_var)
    n = x.size // x.shape[1]
    if n < 2:
        raise ValueError(
            f"batch statistics need two values per channel; got an input of shape {x.shape}"
        )
    mean = x.mean(BATCH)
    # Two passes: the mean of squared deviations, since E[x²] − mean² cancels far from zero.
    var = np.square(x - _plane(mean)).mean(BATCH)
    y = _normalised(x, mean, var, weight, bias, eps)
    new_mean = _moved(running_mean, mean, momentum)
    new_var = _moved(running_var, var * n / (n - 1), momentum)
    return y, new_mean, new_var, (mean, var)


def forward_inference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    eps: float,
) -> Array:
    """Normalise by the running statistics."""
    _check(x, weight, bias, running_mean, running_var)
    return _normalised(x, running_mean, running_var, weight, bias, eps)


def backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    bias: Array | None,  # noqa: ARG001 - gradients do not depend on it
    running_mean: Array | None,
    running_var: Array | None,
    eps: float,
    training: bool,
    saved: Any,
    wrt: tuple[str, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients of Σ dy · y for x, weight and bias; None for those not in ``wrt``."""
    if dy.shape != x.shape:
        raise ValueError(f"expected a gradient of shape {x.shape}; got {dy.shape}")
    mean, var = saved if training else (running_mean, running_var)
    s = 1 / np.sqrt(var + eps)
    x_hat = (x - _plane(mean)) * _plane(s)
    dbias, dweight = dy.sum(BATCH), (dy * x_hat).sum(BATCH)
    inner = dy
    if training:
        n = x.size // x.shape[1]
        inner = dy - _plane(dbias / n) - x_hat * _plane(dweight / n)
    dx = inner * _plane(s if weight is None else weight * s)
    return (
        dx if "input" in wrt else None,
        dweight if "weight" in wrt else None,
        dbias if "bias" in wrt else None,
    )


def _normalised(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    y = (x - _plane(mean)) / _plane(np.sqrt(var + eps))
    if weight is not None and bias is not None:
        y = y * _plane(weight) + _plane(bias)
    return y


# Running statistics may be infinite. Then 0 · ∞ is NaN, as in any framework.
@np.errstate(invalid="ignore")
def _moved(running: Array | None, batch: Array, momentum: float) -> Array | None:
    return None if running is None else (1 - momentum) * running + momentum * batch


def _plane(values: Array) -> Array:
    """Return per-channel values (C,) in a shape that broadcasts against (N, C, H, W)."""
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
    backward,
    capabilities=Capabilities(
        dtypes=("float32", "float64"), grade="two-pass", gradients=True, centred_products=True
    ),
    description=f"NumPy {np.__version__}",
)
