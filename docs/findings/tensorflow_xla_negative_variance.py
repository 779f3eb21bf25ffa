"""TensorFlow compiled by XLA: the outputs of nearly constant channels are NaN.

Their running variance is negative. XLA's BatchNormExpander computes the variance as E[x²] − E[x]²
in float32, and does not clip it at zero: tensorflow/tensorflow#118701. Measured on TensorFlow
2.21.0, CPU. Eager mode subtracts the mean first and is right.
"""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf


def normalised(x: Any) -> Any:
    """Return output, mean and variance."""
    return tf.compat.v1.nn.fused_batch_norm(x, tf.ones(1), tf.zeros(1), epsilon=1e-3)


compiled = tf.function(normalised, jit_compile=True)

for name, x in (
    ("140 times 100.125", tf.fill((4, 5, 7, 1), 100.125)),
    ("140 times 100.125, in float16", tf.fill((4, 5, 7, 1), tf.constant(100.125, tf.float16))),
    ("299.98 and 300.02", tf.constant([299.98, 300.02], shape=(2, 1, 1, 1))),
):
    for mode, function in (("eager", normalised), ("compiled", compiled)):
        y, _, var = function(x)
        print(f"{name}, {mode}: y = {float(y[0, 0, 0, 0]):.4g}, variance = {float(var[0]):.3g}")

print("right: y = 0, 0 and -0.5343; variance = 0, 0 and 0.0008 (unbiased)")


def gradient(x: Any) -> Any:
    """Return the gradient of the sum of all outputs, which is zero."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _, _ = normalised(x)
    return tape.gradient(y, x)


for mode, function in (("eager", gradient), ("compiled", tf.function(gradient, jit_compile=True))):
    dx = function(tf.fill((4, 5, 7, 1), 100.125))
    print(f"gradient of the input, {mode}: {float(dx[0, 0, 0, 0]):.4g}  (right: 0)")
