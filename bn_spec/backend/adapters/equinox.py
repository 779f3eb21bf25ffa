"""Equinox: ``equinox.nn.BatchNorm`` in both of its modes, compiled by XLA for the CPU.

With mode="batch" the layer stores averages, and divides them by 1 − momentum ** batches. The
quotients are its running statistics. With mode="ema", the default, the running statistics normalise
in training too, and gradients pass through them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from bn_spec.backend.adapters import jax_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.adapters.jax import AVERAGES, FULL, backend

with framework("jax", "jax", "equinox"):
    import equinox
    import jax
    import jax.numpy as jnp


def _built(x: Any, tensors: Any, decay: float, eps: float, training: bool, mode: str) -> Any:
    """Return a layer with the weight and bias of ``tensors``, and its initial state."""
    affine, dtype = tensors[0] is not None, tensors[2].dtype
    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
        x.shape[1], "batch", eps, affine, decay, not training, dtype, mode=mode
    )
    # Without is_leaf, tree_at would not find tensors that are None.
    layer = equinox.tree_at(
        lambda it: (it.weight, it.bias), layer, tensors[:2], is_leaf=lambda it: it is None
    )
    return layer, state


def _called(layer: Any, x: Any, state: Any) -> Any:
    return jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)


def _batch(x: Any, tensors: Any, decay: float, eps: float, training: bool, before: Any) -> Any:
    layer, state = _built(x, tensors, decay, eps, training, "batch")
    mean, var = tensors[2:]
    if training:
        # Running statistics are quotients; before the first batch, the layer stores the averages
        # that it was built with.
        initial = state.get(layer.batch_state_index)
        remaining = 1 - decay**before
        mean, var = (
            jnp.where(before == 0, first, quotient * remaining)
            for first, quotient in zip(initial, (mean, var), strict=True)
        )
    state = state.set(layer.batch_state_index, (mean, var)).set(layer.batch_counter, before)
    y, state = _called(layer, x, state)
    averages = state.get(layer.batch_state_index)
    return y, *(average / (1 - decay ** (before + 1)) for average in averages)


def _ema(x: Any, tensors: Any, decay: float, eps: float, training: bool, before: Any) -> Any:
    layer, state = _built(x, tensors, decay, eps, training, "ema")
    is_first = jnp.array(before == 0, bool)
    state = state.set(layer.ema_state_index, tensors[2:]).set(layer.ema_first_time_index, is_first)
    y, state = _called(layer, x, state)
    return y, *state.get(layer.ema_state_index)


_LAYER = partial(
    backend, static=("decay", "eps"), dtypes=FULL, cumulative_momentum=False, grade="two-pass"
)
batch = partial(
    _LAYER, "equinox", _batch, equinox, known.EQUINOX, dialect=AVERAGES(averages="debiased")
)
ema = partial(
    _LAYER,
    "equinox-ema",
    _ema,
    equinox,
    (),
    dialect=AVERAGES(averages="from the first batch", training_output="running"),
    gradients=False,
)
