"""Keras 3 on PyTorch or NumPy: the outputs of nearly constant channels are NaN.

``ops.moments`` of these backends computes E[x²] − E[x]² in float32, and does not clip it at zero
where rounding makes it negative (keras/src/backend/torch/nn.py, keras/src/backend/numpy/nn.py).
keras-team/keras#18795 replaced this formula in the backends TensorFlow and JAX. Measured on Keras
3.15.1. Run it with KERAS_BACKEND=torch, numpy, jax or tensorflow.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

print("backend:", keras.backend.backend())
for name, x in (
    ("twelve times 192.3", np.full((3, 1, 2, 2), 192.3, np.float32)),
    ("eighteen times 213.6", np.full((2, 1, 3, 3), 213.6, np.float32)),
    ("299.98 and 300.02", np.array([299.98, 300.02], np.float32).reshape(2, 1, 1, 1)),
):
    layer = keras.layers.BatchNormalization(axis=1, momentum=0.0)
    y = keras.ops.convert_to_numpy(layer(x, training=True))
    var = keras.ops.convert_to_numpy(layer.moving_variance)
    exact = x.var(dtype=np.float64)
    right = (x.flat[0] - x.mean(dtype=np.float64)) / np.sqrt(exact + 1e-3)
    print(
        f"{name}: y = {y.flat[0]:.4g} (right: {right:.4g}),"
        f" moving variance = {var[0]:.3g} (right: {exact:.3g})"
    )
