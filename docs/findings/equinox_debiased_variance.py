"""Equinox: with mode="batch", eval mode uses far too large a variance after few batches.

Eval mode divides the averages by 1 − momentum ** batches, which is right for averages that start at
zero. The average of the variance starts at one (equinox/nn/_batch_norm.py), so that momentum ** k /
(1 − momentum ** k) is added to the variance after k batches: 99 after the first batch at the
default momentum. The error fades as momentum ** k becomes small. patrick-kidger/equinox#955 asked
for this start, for eval before training.
"""

import equinox
import jax
import jax.numpy as jnp

layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(1, "batch", mode="batch")
x = jnp.asarray([-1.0, 1.0]).reshape(2, 1, 1, 1)  # mean 0, variance 1
train = jax.jit(jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None)))
infer = jax.jit(
    jax.vmap(
        equinox.nn.inference_mode(layer), axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
)
print("right: [-1, 1] after any number of batches")
for batches in (1, 10, 100):
    for _ in range(batches - state.get(layer.batch_counter).item()):
        _, state = train(x, state)
    y = infer(x, state)[0].ravel()
    print("got:  ", y, "after", batches, "- a variance of", 1 / y[1] ** 2)
