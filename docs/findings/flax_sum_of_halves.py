"""Flax: dx of half-precision data is a sum of two halves, and loses the digits that cancel.

BatchNorm converts x to float32 twice, for the statistics and for x − mean. On the way back each
conversion rounds its part of dx to half precision, and only then are the parts added. If you
convert the input yourself, dx is rounded once.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

x = jnp.asarray([0.0, 1, 2, 3]).reshape(4, 1, 1, 1)
dy = jnp.asarray([100.0, 101, 102, 104]).reshape(4, 1, 1, 1)


def dx(call: Any, dtype: Any, convert: Any = lambda x: x) -> Any:
    """Return the gradient of the input."""
    _, pull = jax.vjp(lambda x: call(dtype)(convert(x)), x.astype(dtype))
    return pull(dy.astype(dtype))[0].ravel()


def of_linen(dtype: Any) -> Any:
    """Return a layer of Linen in training."""
    layer = linen.BatchNorm(use_running_average=False, axis=1, dtype=dtype)
    return lambda x: layer.init_with_output(jax.random.key(0), x)[0]


def of_nnx(dtype: Any) -> Any:
    """Return a layer of NNX in training."""
    return nnx.BatchNorm(1, axis=1, dtype=dtype, rngs=nnx.Rngs(0))


print("right:                 ", dx(of_linen, jnp.float32))
print("linen:                 ", dx(of_linen, jnp.float16))
print("linen, input converted:", dx(of_linen, jnp.float16, lambda x: x.astype(jnp.float32)))
print("nnx:                   ", dx(of_nnx, jnp.float16))
