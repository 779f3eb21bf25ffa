"""MLX: ``mlx.nn.BatchNorm`` on the CPU, on inputs transposed to the NHWC order that it expects."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from bn_spec.backend.adapters import mlx_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.case.arrays import take_apart
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import Array, format_named

with framework("mlx", "mlx", "mlx.core"):
    import mlx.core as mx
    from mlx import nn

_BFLOAT16 = format_named("bfloat16").dtype
_NHWC, _NCHW = (0, 2, 3, 1), (0, 3, 1, 2)

CLAIMS = Capabilities(
    dtypes=("float32", "float64", "float16", "bfloat16"),
    statistics="parameters",
    elementwise="parameters",
    gradients=True,
    grade="two-pass",
    deterministic=True,
    threads=True,
    overflow_safe=True,
    centred_products=True,
    cumulative_momentum=False,
    input_checks=False,  # MLX broadcasts a single channel to the channels of the layer
    dialect=Dialect(counter=False),
)
"""What the adapter claims."""


def to_native(array: Array) -> mx.array:
    """Move the memory in and view it with the array's strides."""
    flat, shape, strides = take_apart(array)
    return mx.as_strided(mx.array(flat, dtype=getattr(mx, array.dtype.name)), shape, strides)


def to_numpy(tensor: mx.array) -> Array:
    """Return the array on the memory of a tensor.

    bfloat16, which the buffer protocol lacks, crosses as its bits.
    """
    if tensor.dtype == mx.bfloat16:
        return np.asarray(memoryview(tensor.view(mx.uint16))).view(_BFLOAT16)
    return np.asarray(memoryview(tensor))


def _module(
    tensors: Mapping[str, mx.array | None], momentum: float, eps: float, channels: int
) -> nn.BatchNorm:
    """Build a module with these tensors; without tensors, its channels are ``channels``."""
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    channels = next((len(tensor) for tensor in present.values()), channels)
    tracked, affine = "running_mean" in present, "weight" in present
    module = nn.BatchNorm(channels, eps, momentum, affine=affine, track_running_stats=tracked)
    module.update(present)
    return module


def _called(module: nn.BatchNorm, x: mx.array) -> mx.array:
    return module(x.transpose(_NHWC)).transpose(_NCHW)


def forward_training(
    x: mx.array, momentum: float, eps: float, **tensors: mx.array | None
) -> tuple[Any, ...]:
    """Return the output, and the running statistics of the module after it."""
    module = _module(tensors, momentum, eps, x.shape[1])
    y = _called(module, x)
    results = y, module.get("running_mean"), module.get("running_var")
    mx.eval(*results)
    return results


def forward_inference(x: mx.array, eps: float, **tensors: mx.array | None) -> mx.array:
    """Return the output of the module in eval mode."""
    y = _called(_module(tensors, 0.0, eps, x.shape[1]).eval(), x)
    mx.eval(y)
    return y


def backward(
    dy: mx.array,
    x: mx.array,
    eps: float,
    training: bool,
    wrt: tuple[str, ...],
    saved: None,
    **tensors: Any,
) -> tuple[Any, ...]:
    """Return the gradients of the call by ``mx.vjp``, which runs the forward once more."""
    del saved
    module = _module(tensors, 0.0, eps, x.shape[1]).train(training)

    def output(primals: dict[str, mx.array]) -> mx.array:
        module.update({name: tensor for name, tensor in primals.items() if name != "input"})
        return _called(module, primals.get("input", x))

    primals = {name: x if name == "input" else tensors[name] for name in wrt}
    _, gradients = mx.vjp(
        lambda *leaves: [output(dict(zip(wrt, leaves, strict=True)))], [*primals.values()], [dy]
    )
    mx.eval(gradients)
    by_name = dict(zip(wrt, gradients, strict=True))
    return by_name.get("input"), by_name.get("weight"), by_name.get("bias")


def backend() -> Backend:
    """Return the backend of the CPU.

    Every step is an operation of its own, in the dtype of the tensors.
    """
    return kernel_backend(
        "mlx",
        forward_training,
        forward_inference,
        backward,
        capabilities=CLAIMS,
        description=f"mlx {version('mlx')}, CPU",
        to_native=to_native,
        to_numpy=to_numpy,
        known_failures=known.CPU,
    )
