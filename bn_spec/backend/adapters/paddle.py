"""PaddlePaddle: ``paddle.nn.BatchNorm2D`` on the CPU, in both of its data formats."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

from bn_spec.backend.adapters import paddle_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.case.arrays import take_apart
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import Array

with framework("paddle", "paddle"), warnings.catch_warnings():
    # Importing PaddlePaddle warns of a missing ccache, for instance.
    warnings.simplefilter("ignore")
    import paddle

_NHWC, _NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_NAMES = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}
"""Names of the module's tensors, by their names in a state."""

CLAIMS = Capabilities(
    dtypes=("float32", "float64"),
    tracking_off=False,
    cumulative_momentum=False,
    gradients=True,
    grade="two-pass",
    centred_products=True,
    overflow_safe=True,
    empty_batch=True,
    deterministic=True,
    dialect=Dialect(
        momentum_weighs="old",
        running_var="biased",
        single_value="answered",
        attributes="float32",
        counter=False,
    ),
)
"""What the adapter claims.

The CPU has no kernels for half precision, and running statistics are always tracked.
"""


def to_native(array: Array) -> paddle.Tensor:
    """Move the memory in and view it with the array's strides."""
    flat, shape, strides = take_apart(array)
    tensor = paddle.to_tensor(flat, place=paddle.CPUPlace())
    if not array.size:
        return tensor.reshape(shape)
    return paddle.as_strided(tensor, shape, strides)


class _Call:
    """A module with the tensors of a state, which takes inputs in NCHW whatever its data format."""

    def __init__(
        self, data_format: str, tensors: Mapping[str, Any], momentum: float, eps: float
    ) -> None:
        present = {_NAMES[name]: tensors[name] for name in _NAMES if tensors[name] is not None}
        options = {} if "weight" in present else {"weight_attr": False, "bias_attr": False}
        running_mean = present["_mean"]
        self.module = paddle.nn.BatchNorm2D(
            len(running_mean),
            CLAIMS.dialect.momentum(momentum),
            eps,
            data_format=data_format,
            **options,
        )
        self.module.to(dtype=running_mean.dtype)
        self.module.set_state_dict(present)
        self.transposed = data_format == "NHWC"

    def __call__(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.transposed or x.ndim != 4:
            return self.module(x)
        return self.module(x.transpose(_NHWC)).transpose(_NCHW)


def forward_training(
    x: paddle.Tensor, momentum: float, eps: float, *, data_format: str, **tensors: Any
) -> tuple[paddle.Tensor, ...]:
    """Return the output, and the running statistics of the module after it."""
    call = _Call(data_format, tensors, momentum, eps)
    with paddle.no_grad():
        return call(x), call.module._mean, call.module._variance


def forward_inference(
    x: paddle.Tensor, eps: float, *, data_format: str, **tensors: Any
) -> paddle.Tensor:
    """Return the output of the module in eval mode."""
    call = _Call(data_format, tensors, 0.0, eps)
    call.module.eval()
    with paddle.no_grad():
        return call(x)


def backward(
    dy: paddle.Tensor,
    x: paddle.Tensor,
    eps: float,
    training: bool,
    wrt: tuple[str, ...],
    **rest: Any,
) -> tuple[Any, Any, Any]:
    """Return the gradients of the forward by ``paddle.grad``, after running it once more.

    ``rest`` has the data format and the tensors of the state.
    """
    call = _Call(rest.pop("data_format"), rest, 0.0, eps)
    if training:
        call.module.train()
    else:
        call.module.eval()
    leaves = {"input": x.detach(), "weight": call.module.weight, "bias": call.module.bias}
    for name, tensor in leaves.items():
        if tensor is not None:
            tensor.stop_gradient = name not in wrt
    y = call(leaves["input"])
    found = paddle.grad([y], [leaves[name] for name in wrt], [dy])
    gradients = dict(zip(wrt, found, strict=True))
    return gradients.get("input"), gradients.get("weight"), gradients.get("bias")


def _backend(name: str, data_format: str) -> Backend:
    kernels: Any = (forward_training, forward_inference, backward)
    return kernel_backend(
        name,
        *(partial(kernel, data_format=data_format) for kernel in kernels),
        capabilities=CLAIMS,
        description=f"paddlepaddle {paddle.__version__}, CPU, {data_format}",
        to_native=to_native,
        to_numpy=paddle.Tensor.numpy,
        known_failures=known.CPU,
    )


nchw = partial(_backend, "paddle-nchw", "NCHW")
nhwc = partial(_backend, "paddle-nhwc", "NHWC")
