"""Flax NNX: with dtype=float16, eval mode computes in float16, sums of gradients included.

BatchNorm.__call__ (flax/nnx/nn/normalization.py) promotes x, mean, var, scale and bias to the dtype
of the output, although the running statistics are float32. A running_var above 65504 is then
infinite, and the output is the bias. In eval mode the gradients of weight and bias are summed in
float16; in training they are summed in float32 and rounded to float16. Linen promotes none of these
tensors.
"""

import jax
import jax.numpy as jnp
from flax import linen, nnx

x = jnp.asarray([-300.0, 300.0], jnp.float16).reshape(2, 1, 1, 1)
var = jnp.asarray([90000.0])
layer = nnx.BatchNorm(1, axis=1, dtype=jnp.float16, use_running_average=True, rngs=nnx.Rngs(0))
layer.var[...] = var
other = linen.BatchNorm(axis=1, dtype=jnp.float16, use_running_average=True)
variables = {
    "params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)},
    "batch_stats": {"mean": jnp.zeros(1), "var": var},
}
print("right:", [-1.0, 1.0])
print("linen:", other.apply(variables, x).ravel())
print("nnx:  ", layer(x).ravel())

ones = jnp.ones((80, 1, 32, 32), jnp.float16)
gradients = nnx.grad(lambda layer: layer(ones).astype(jnp.float32).sum())(layer)
linens = jax.grad(lambda p: other.apply(variables | {"params": p}, ones).astype(jnp.float32).sum())(
    variables["params"]
)
print("right:", ones.size, "for the gradient of a float32 bias")
print("linen:", linens["bias"])
print("nnx:  ", gradients["bias"][...])
