"""TensorFlow: a tape accepts a gradient of another shape than the output.

It returns a gradient of another shape than x. ``tf.GradientTape.gradient`` hands
``output_gradients`` unchanged to the gradient functions of the ops. Those of elementwise ops do not
look at the shape; others sum over it. So a mistake in a loss goes unnoticed. PyTorch and JAX refuse
such a gradient. Measured on TensorFlow 2.21.0, eager. Keras 3's BatchNormalization consists of such
ops.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

x = tf.ones((2, 3))
for shape in ((1, 3), (4, 3), (2, 3, 5)):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = 2 * x
    gradient = tape.gradient(y, x, output_gradients=tf.ones(shape))
    print(
        f"dy of shape {shape}: gradient of shape {tuple(gradient.shape)}"
        "  (right: an error, since y has shape (2, 3))"
    )
