"""Keras 3 on PyTorch, NumPy or JAX: BatchNormalization of dtype float64 computes in float32.

Its call() casts the input to ``backend.result_type(inputs.dtype, "float32")``, and the result back
to float64. With every backend but TensorFlow, that type is float32 for float64
(BIT64_TO_BIT32_DTYPE in keras/src/backend/common/dtypes.py). Similar to keras-team/keras#23704.
Measured on Keras 3.15.1, in JAX with 64-bit types enabled. Run it with KERAS_BACKEND=torch, numpy,
jax or tensorflow.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("JAX_ENABLE_X64", "1")

import keras
import numpy as np

x = np.array([1.0, 1.0 + 1e-8, 1.0 - 1e-8, 1.0]).reshape(4, 1, 1, 1)
layer = keras.layers.BatchNormalization(axis=1, momentum=0.0, epsilon=1e-20, dtype="float64")
y = keras.ops.convert_to_numpy(layer(x, training=True))
print(f"backend: {keras.backend.backend()}; dtype of the output: {y.dtype}")
right = (x - x.mean()) / np.sqrt(x.var() + 1e-20)
print("output:", y.flatten().round(4), " right:", right.flatten().round(4))
layer(np.full((2, 1, 1, 1), 0.1), training=True)
mean = keras.ops.convert_to_numpy(layer.moving_mean)[0]
print(f"moving mean: {mean:.17g}  right: 0.10000000000000001")
