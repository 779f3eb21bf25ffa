"""TensorFlow: the op FusedBatchNormV3 on the CPU, eager or compiled by XLA.

The adapter calls it through ``tf.compat.v1.nn.fused_batch_norm``. Tensors have no strides. The op
has float32 parameters alone, and data in float32 or half precision. It has none of the input checks
that the suite asks for: eagerly, it refuses other ranks and channels with
``tf.errors.InvalidArgumentError``.
"""

from __future__ import annotations

import os
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

# TensorFlow reads the variable once, when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with framework("tensorflow", "tensorflow"):
    import tensorflow as tf

_TFTensor: TypeAlias = Any
_TFTensors: TypeAlias = dict[str, _TFTensor]

DIALECT = Dialect(single_value="answered", attributes="float32", counter=False)
"""The op's conventions.

eps and exponential_avg_factor, the weight of the new value, are float32 attributes. Any eps is
accepted.
"""

_CLAIMS: dict[str, Any] = {
    "dialect": DIALECT,
    "dtypes": ("float32", "mixed_float16", "mixed_bfloat16"),
    "layouts": ("contiguous",),
    "subnormals": False,
    "input_checks": False,
    "gradients": True,
    "centred_products": True,
    "deterministic": True,
    "threads": True,
}


def _normalised(
    tensors: _TFTensors, momentum: float, eps: float, training: bool, data_format: str
) -> Any:
    """Return output, running_mean and running_var.

    The op always has scale and offset. Its documentation says that in training with a factor of 1
    it takes no statistics.
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


def _gradients(dy: _TFTensor, tensors: _TFTensors, wrt: tuple[str, ...], *arguments: Any) -> Any:
    """Return the gradients of Σ dy · y."""
    leaves = [tensors[name] for name in wrt]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        y, _, _ = _normalised(tensors, *arguments)
    return tape.gradient(y, leaves, output_gradients=dy)


def _backend(
    name: str, data_format: str, known: tuple[KnownFailure, ...] = (), **claims: Any
) -> Backend:
    """Return the backend of the op in a data format.

    It is compiled by XLA if the claims include expensive signatures.
    """
    xla = claims.get("expensive_signatures", False)
    normalised: Any = _normalised
    gradients: Any = _gradients
    if xla:
        compiled = tf.function(autograph=False, jit_compile=True)
        normalised, gradients = compiled(_normalised), compiled(_gradients)
    in_nhwc = data_format == "NHWC"

    def forward_training(x: _TFTensor, *, momentum: float, eps: float, **tensors: Any) -> Any:
        factor = DIALECT.momentum(momentum)
        return normalised({"input": x, **tensors}, factor, DIALECT.eps(eps), True, data_format)

    def forward_inference(x: _TFTensor, *, eps: float, **tensors: Any) -> _TFTensor:
        return normalised({"input": x, **tensors}, 1.0, DIALECT.eps(eps), False, data_format)[0]

    def backward(
        dy: _TFTensor, *, eps: float, training: bool, wrt: tuple[str, ...], **saved: Any
    ) -> Gradients:
        names = ("weight", "bias", "running_mean", "running_var")
        tensors = {"input": saved["x"], **{name: saved[name] for name in names}}
        found = gradients(dy, tensors, wrt, 1.0, DIALECT.eps(eps), training, data_format)
        return Gradients(**dict(zip(wrt, found, strict=True)))

    def to_native(array: Array) -> _TFTensor:
        transposed = array.ndim == 4 and in_nhwc
        with tf.device("CPU"):
            return tf.constant(array.transpose(0, 2, 3, 1) if transposed else array)

    def to_numpy(tensor: _TFTensor) -> Array:
        array = np.asarray(tensor.numpy())  # numpy() of a tensor without axes is a scalar
        transposed = array.ndim == 4 and in_nhwc
        return array.transpose(0, 3, 1, 2) if transposed else array

    how = ", compiled by XLA" if xla else ""
    return kernel_backend(
        name,
        forward_training,
        forward_inference,
        backward,
        capabilities=Capabilities(**_CLAIMS | claims),
        description=f"TensorFlow {tf.__version__}, CPU, {data_format}{how}",
        to_native=to_native,
        to_numpy=to_numpy,
        known_failures=known,
    )


_XLA = negative_variance(
    "BatchNormExpander (xla/service/batchnorm_expander.cc) computes the variance as E[x²] − E[x]²,"
    " and does not clip it at zero where rounding makes it negative: tensorflow/tensorflow#118701"
    " (measured on TensorFlow 2.21.0)",
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
