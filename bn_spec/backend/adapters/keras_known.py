"""Known failures of Keras 3's BatchNormalization: what was found, why, and on which cases.

Needs no Keras.
"""

from __future__ import annotations

from bn_spec.backend.adapters import jax_known
from bn_spec.backend.adapters.cancellation import OF_VALUES, negative_variance
from bn_spec.backend.adapters.composed import through_rsqrt
from bn_spec.backend.known_failure import KnownFailure

TENSORFLOW = (
    KnownFailure(
        "ERR-07",
        "refusal",
        "tf.GradientTape.gradient does not compare the shapes of output_gradients and target. The"
        " ops of the layer broadcast a gradient of another shape, sum it, or fail with"
        " tf.errors.InvalidArgumentError (measured on TensorFlow 2.21.0)",
    ),
)
"""Known failures with the backend TensorFlow."""

FLOAT64 = tuple(
    KnownFailure(
        "*",
        observable,
        "a layer of dtype float64 computes in float32, unless the backend is TensorFlow: call()"
        ' casts its input to backend.result_type(inputs.dtype, "float32"), which gives float32 for'
        " float64 (BIT64_TO_BIT32_DTYPE in keras/src/backend/common/dtypes.py). Similar to"
        " keras-team/keras#23704 (measured on Keras 3.15.1)",
        dtypes=("float64",),
    )
    for observable in OF_VALUES
)
"""Known failures of float64 layers with every backend but TensorFlow."""

TEXTBOOK = (
    *FLOAT64,
    *negative_variance(
        "moments() of the backends NumPy and PyTorch (keras/src/backend/{numpy,torch}/nn.py)"
        " computes E[x²] − E[x]², and does not clip it at zero where rounding makes it negative."
        " keras-team/keras#18795 removed this formula from the backends TensorFlow and JAX"
        " (measured on Keras 3.15.1)",
        summation="pairwise",
    ),
)
"""Known failures with the backend NumPy."""

TORCH = (
    *TEXTBOOK,
    *through_rsqrt(
        "batch_normalization() of the backend PyTorch (keras/src/backend/torch/nn.py) is"
        " differentiated through rsqrt, whose derivative is -1/2 result ** 3"
        " (tools/autograd/derivatives.yaml). In float32 the derivative is subnormal for variances"
        " above 1e25, so that dx lacks digits of the part that goes through the variance; it is"
        " infinite for variances below 2e-26 (measured on Keras 3.15.1 and torch 2.13.0)"
    ),
)
"""Known failures with the backend PyTorch."""

JAX = (*FLOAT64, *jax_known.RSQRT)
"""Known failures with the backend JAX."""
