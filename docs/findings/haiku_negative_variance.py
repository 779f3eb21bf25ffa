"""Haiku: the variance of a batch can be negative, and the output NaN.

The variance is E[x²] − E[x]² (haiku/_src/batch_norm.py), which rounding can make negative; Flax
clips it at zero. Where the variance is below −eps the output is NaN. Where the average of variances
becomes negative, the outputs in eval mode are NaN too.
"""

import haiku
import jax.numpy as jnp


def layer(x: jnp.ndarray, training: bool) -> jnp.ndarray:
    """Call a layer with default arguments."""
    return haiku.BatchNorm(True, True, 0.9, data_format="channels_first")(x, training)


call = haiku.without_apply_rng(haiku.transform_with_state(layer))
for x in ([1000.1, 1000.1, 1000.11], [100.1, 100.1, 100.12]):
    batch = jnp.asarray(x).reshape(3, 1, 1, 1)
    parameters, state = call.init(None, batch, True)
    y, state = call.apply(parameters, state, batch, True)
    print("x:    ", x)
    print(
        "got:  ",
        y.ravel(),
        "in training; a running variance of",
        state["batch_norm/~/var_ema"]["average"].item(),
    )
    print("      ", call.apply(parameters, state, batch, False)[0].ravel(), "in eval mode")
