"""Known failures of Keras 3's BatchNormalization: what fails, why, and where. Needs no Keras."""

from __future__ import annotations

from typing import TypeAlias

from bn_spec.backend.adapters import jax_known
from bn_spec.backend.adapters.cancellation import OF_VALUES, negative_variance
from bn_spec.backend.adapters.composed import through_rsqrt
from bn_spec.backend.known_failure import KnownFailure

Failures: TypeAlias = tuple[KnownFailure, ...]

TENSORFLOW = (
    KnownFailure(
        "ERR-07",
        "refusal",
        "tf.GradientTape.gradient does not compare the shapes of output_gradients and target; the ops that the layer"
        " consists of broadcast, sum, or fail with tf.errors.InvalidArgumentError (measured on TensorFlow 2.21.0)",
    ),
)

FLOAT64 = tuple(
    KnownFailure(
        "*",
        observable,
        "a layer of dtype float64 computes in float32, unless the backend is TensorFlow: call() casts its input to"
        ' backend.result_type(inputs.dtype, "float32"), which gives float32 for float64'
        " (BIT64_TO_BIT32_DTYPE in keras/src/backend/common/dtypes.py): of the kind of keras-team/keras#23704"
        " (measured on Keras 3.15.1)",
        dtypes=("float64",),
    )
    for observable in OF_VALUES
)

TEXTBOOK = (
    *FLOAT64,
    *negative_variance(
        "moments() of the backends NumPy and PyTorch is E[x²] − E[x]², which may be negative and is not kept from it"
        " (keras/src/backend/{numpy,torch}/nn.py): what keras-team/keras#18795 ended in those of TensorFlow and JAX"
        " (measured on Keras 3.15.1)",
        summation="pairwise",
    ),
)

TORCH = (
    *TEXTBOOK,
    *through_rsqrt(
        "batch_normalization() of the backend PyTorch (keras/src/backend/torch/nn.py) is differentiated through"
        " rsqrt, whose derivative is -1/2 result ** 3 (tools/autograd/derivatives.yaml): subnormal in float32 for"
        " variances above 1e25, so that dx is without the digits of the part that goes through the variance, and"
        " infinite for those below 2e-26 (measured on Keras 3.15.1 and torch 2.13.0)"
    ),
)

JAX = (*FLOAT64, *jax_known.RSQRT)
"""On JAX."""
