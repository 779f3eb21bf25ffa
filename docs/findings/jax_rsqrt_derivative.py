"""JAX: the derivative of lax.rsqrt leaves the range of float32 where BatchNorm's does not.

JAX computes it as rsqrt(v) / v = v^(−3/2) (jax/_src/lax/lax.py). Above 1.2e25 the quotient is
flushed to zero: dx loses the part that goes through the variance, without a warning. Below 2e-26
the quotient is infinite. Flax and Haiku use lax.rsqrt; Equinox divides by a square root and is
right.
"""

import jax
import jax.numpy as jnp
from flax import linen

x = jnp.asarray([0.0, 1.0, 2.0, 4.0]).reshape(4, 1, 1, 1)
dy = jnp.asarray([0.0, 1.0, 0.0, 0.0]).reshape(4, 1, 1, 1)
layer = linen.BatchNorm(use_running_average=False, axis=1, use_fast_variance=False, epsilon=1e-35)
variables = layer.init(jax.random.key(0), x)


def dx(x: jax.Array) -> jax.Array:
    """Return the gradient of the input, in units of 1 / x."""
    _, pull = jax.vjp(lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0], x)
    return pull(dy)[0].ravel() * x.max()


print("right: ", dx(x))
for scale in (1e13, 1e-14):
    print("got:   ", dx(scale * x), f"for x times {scale:.0e}, which changes nothing but the unit")
