"""TensorFlow: the op FusedBatchNormV3, by ``tf.compat.v1.nn.fused_batch_norm``, eager or compiled by XLA, on the CPU.

Tensors have no strides. The op has float32 parameters alone, data in float32 or half precision, and
no input checks of the kinds that are asked for: eagerly, ranks and channels are refused with
``tf.errors.InvalidArgumentError``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from bn_spec.backend.adapters.cancellation import negative_variance
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Gradients
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import Array

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reads it once, when it is imported
with framework("tensorflow", "tensorflow"):
    import tensorflow as tf

Tensor: TypeAlias = Any
Tensors: TypeAlias = dict[str, Tensor]

DIALECT = Dialect(single_value="answered", attributes="float32", counter=False)
"""eps and exponential_avg_factor, the weight of the new value, are float32 attributes of the op; any eps is taken."""

_CLAIMS: dict[str, Any] = {
    "dialect": DIALECT,
    "dtypes": ("float32", "mixed_float16", "mixed_bfloat16"),
}
_CLAIMS |= {
    "layouts": ("contiguous",),
    "subnormals": False,
    "input_checks": False,
    "gradients": True,
}
_CLAIMS |= {"centred_products": True, "deterministic": True, "threads": True}


def _normalised(
    tensors: Tensors, momentum: float, eps: float, training: bool, data_format: str
) -> Any:
    """Return output, running_mean and running_var.

    The op always has scale and offset; in training with a factor of 1, its documentation says, no
    statistics.
    """
    x, weight, bias, *statistics = tensors.values()
    channels = x.shape[data_format.index("C")]
    if training and (momentum == 1 or None in statistics):
        momentum, statistics = 1.0, [None, None]
    with tf.device("CPU"):
        return tf.compat.v1.nn.fused_batch_norm(
            x,
            tf.ones(channels) if weight is None else weight,
            tf.zeros(channels) if bias is None else bias,
            *statistics,
            epsilon=eps,
            data_format=data_format,
            is_training=training,
            exponential_avg_factor=momentum,
        )


def _gradients(dy: Tensor, tensors: Tensors, wrt: tuple[str, ...], *arguments: Any) -> Any:
    """Return the gradients of Σ dy · y."""
    leaves = [tensors[name] for name in wrt]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        y, _, _ = _normalised(tensors, *arguments)
    return tape.gradient(y, leaves, output_gradients=dy)


def _backend(
    name: str, data_format: str, known: tuple[KnownFailure, ...] = (), **claims: Any
) -> Backend:
    """Return the op in a data format, compiled by XLA if that is claimed to be expensive."""
    xla = claims.get("expensive_signatures", False)
    wrapped: Callable[..., Any] = (
        tf.function(autograph=False, jit_compile=True) if xla else lambda f: f
    )
    normalised, gradients = wrapped(_normalised), wrapped(_gradients)

    def forward_training(x: Tensor, *, momentum: float, eps: float, **tensors: Any) -> Any:
        factor, eps = DIALECT.momentum(momentum), DIALECT.eps(eps)
        return normalised({"input": x, **tensors}, factor, eps, True, data_format)

    def forward_inference(x: Tensor, *, eps: float, **tensors: Any) -> Tensor:
        return normalised({"input": x, **tensors}, 1.0, DIALECT.eps(eps), False, data_format)[0]

    def backward(
        dy: Tensor, *, eps: float, training: bool, wrt: tuple[str, ...], **saved: Any
    ) -> Gradients:
        tensors = {
            "input": saved["x"],
            **{k: saved[k] for k in ("weight", "bias", "running_mean", "running_var")},
        }
        found = gradients(dy, tensors, wrt, 1.0, DIALECT.eps(eps), training, data_format)
        return Gradients(**dict(zip(wrt, found, strict=True)))

    def to_native(array: Array) -> Tensor:
        with tf.device("CPU"):
            return tf.constant(
                array.transpose(0, 2, 3, 1) if array.ndim == 4 and data_format == "NHWC" else array
            )

    def to_numpy(tensor: Tensor) -> Array:
        array = np.asarray(tensor.numpy())  # without axes it is a scalar
        return array.transpose(0, 3, 1, 2) if array.ndim == 4 and data_format == "NHWC" else array

    description = (
        f"TensorFlow {tf.__version__}, CPU, {data_format}{', compiled by XLA' if xla else ''}"
    )
    claimed, kernels = (
        Capabilities(**_CLAIMS | claims),
        (forward_training, forward_inference, backward),
    )
    rest: dict[str, Any] = {"to_native": to_native, "to_numpy": to_numpy, "known_failures": known}
    return kernel_backend(name, *kernels, capabilities=claimed, description=description, **rest)


_XLA = negative_variance(
    "BatchNormExpander (xla/service/batchnorm_expander.cc) takes E[x²] − E[x]² for the variance, which may be"
    " negative and is not kept from it: tensorflow/tensorflow#118701 (measured on TensorFlow 2.21.0)",
    summation="any order",
)
_COMPILED: dict[str, Any] = {
    "grade": "textbook",
    "direct_means": True,
    "expensive_signatures": True,
}
_EAGER: dict[str, Any] = {"grade": "two-pass", "overflow_safe": True}

nhwc = _backend("tensorflow-nhwc", "NHWC", **_EAGER)
nchw = _backend("tensorflow-nchw", "NCHW", **_EAGER)
xla_nhwc = _backend("tensorflow-xla-nhwc", "NHWC", _XLA, **_COMPILED)
xla_nchw = _backend("tensorflow-xla-nchw", "NCHW", _XLA, **_COMPILED)
