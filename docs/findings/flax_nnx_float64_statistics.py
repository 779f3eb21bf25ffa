"""Flax NNX: the running statistics of a float64 layer are float32, and their update warns.

BatchNorm.__init__ (flax/nnx/nn/normalization.py) builds mean and var in float32, whatever
param_dtype is. The update writes float64 values into them in place; JAX warns that this will be an
error. Linen builds them in float32 too, and the first update makes them float64.
"""

import warnings

import jax
import jax.numpy as jnp
from flax import nnx

jax.config.update("jax_enable_x64", True)
warnings.simplefilter("always")
x = jnp.asarray([0.1, 0.3]).reshape(2, 1, 1, 1)
layer = nnx.BatchNorm(
    1,
    axis=1,
    momentum=0.0,
    dtype=jnp.float64,
    param_dtype=jnp.float64,
    rngs=nnx.Rngs(0),
    use_fast_variance=False,
)
layer(x)
print("right:", 0.2, jnp.float64.dtype)
print("got:  ", layer.mean[...].item(), layer.mean[...].dtype)
