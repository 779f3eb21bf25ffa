"""Equinox: ``equinox.nn.BatchNorm`` in both of its modes, compiled by XLA for the CPU.

With mode="batch", averages are held and divided by 1 − momentum ** batches; running statistics are
the quotients. With mode="ema", the default, the running statistics normalise in training too,
through which gradients pass.
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


def _built(x: Any, held: Any, decay: float, eps: float, training: bool, mode: str) -> Any:
    """Return a layer that has the weight and bias, and its state."""
    given = (x.shape[1], "batch", eps, held[0] is not None, decay, not training, held[2].dtype)
    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(*given, mode=mode)
    return equinox.tree_at(
        lambda it: (it.weight, it.bias), layer, held[:2], is_leaf=lambda it: it is None
    ), state


def _called(layer: Any, x: Any, state: Any) -> Any:
    return jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)


def _batch(x: Any, held: Any, decay: float, eps: float, training: bool, before: Any) -> Any:
    layer, state = _built(x, held, decay, eps, training, "batch")
    mean, var = held[2:]
    if training:  # before the first batch, the averages are those that the layer was built with
        built, left = state.get(layer.batch_state_index), 1 - decay**before
        mean, var = (
            jnp.where(before == 0, first, a * left)
            for first, a in zip(built, (mean, var), strict=True)
        )
    state = state.set(layer.batch_state_index, (mean, var)).set(layer.batch_counter, before)
    y, state = _called(layer, x, state)
    return y, *(a / (1 - decay ** (before + 1)) for a in state.get(layer.batch_state_index))


def _ema(x: Any, held: Any, decay: float, eps: float, training: bool, before: Any) -> Any:
    layer, state = _built(x, held, decay, eps, training, "ema")
    state = state.set(layer.ema_state_index, held[2:]).set(
        layer.ema_first_time_index, jnp.array(before == 0, bool)
    )
    y, state = _called(layer, x, state)
    return y, *state.get(layer.ema_state_index)


_LAYER = partial(
    backend, static=("decay", "eps"), dtypes=FULL, cumulative_momentum=False, grade="two-pass"
)
batch = partial(
    _LAYER, "equinox", _batch, equinox, known.EQUINOX, dialect=AVERAGES(averages="debiased")
)
_MOVED = AVERAGES(averages="from the first batch", training_output="running")
ema = partial(_LAYER, "equinox-ema", _ema, equinox, (), dialect=_MOVED, gradients=False)
