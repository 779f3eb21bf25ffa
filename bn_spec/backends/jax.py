"""JAX: the BatchNorm layers of Flax (Linen and NNX), Haiku and Equinox, compiled by XLA for the CPU.

Importing this module enables float64 in JAX (``jax_enable_x64``). Layers are built and called within jitted functions,
as training steps are, with channels in axis 1 and outputs in the dtype of the data. Momentum and eps are arguments of
these functions, so that none of their values has to be compiled for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..backend import Backend, Capabilities, KnownFailure, kernel_backend
from ..dialect import Dialect
from ..errors import UnavailableBackend
from . import jax_known as known

try:
    import equinox
    import flax
    import haiku
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx
except ModuleNotFoundError as error:
    if error.name not in ("jax", "flax", "haiku", "equinox"):
        raise
    raise UnavailableBackend(f"{error.name} is not installed; install it with: pip install 'bn-spec[jax]'") from error

jax.config.update("jax_enable_x64", True)

Call = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
"""``(x, weight, bias, mean, var, decay, eps, training)`` to y, mean and var; decay is the weight of the old value."""


def _linen(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any, **options: Any) -> Any:
    decay, eps, training = rest
    given = {"use_running_average": not training, "momentum": decay, "epsilon": eps, "dtype": x.dtype, **options}
    layer = linen.BatchNorm(axis=1, use_scale=weight is not None, use_bias=bias is not None, **given)
    variables = {"params": _present(scale=weight, bias=bias), "batch_stats": {"mean": mean, "var": var}}
    y, changed = layer.apply(variables, x, mutable=["batch_stats"])
    return y, changed["batch_stats"]["mean"], changed["batch_stats"]["var"]


def _nnx(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any, **options: Any) -> Any:
    decay, eps, training = rest
    given = {"use_running_average": not training, "momentum": decay, "epsilon": eps, "dtype": x.dtype, **options}
    affine = {"use_scale": weight is not None, "use_bias": bias is not None}
    layer = nnx.BatchNorm(x.shape[1], axis=1, rngs=nnx.Rngs(0), **affine, **given)
    for name, tensor in _present(scale=weight, bias=bias, mean=mean, var=var).items():
        getattr(layer, name)[...] = tensor
    return layer(x), layer.mean[...], layer.var[...]


def _equinox(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Any:
    decay, eps, training = rest
    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
        x.shape[1], "batch", eps, weight is not None, decay, not training, mean.dtype, mode="batch"
    )
    if weight is not None:
        layer = equinox.tree_at(lambda it: (it.weight, it.bias), layer, (weight, bias))
    state = state.set(layer.batch_state_index, (mean, var))
    y, state = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
    return y, *state.get(layer.batch_state_index)


def _present(**tensors: Any) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _backend(
    name: str, call: Call, version: str, failures: tuple[KnownFailure, ...], *, static: tuple[str, ...] = (), **claims: Any
) -> Backend:
    """Return the backend of a layer, by its forward and ``jax.vjp`` of it, both jitted."""
    dialect = Dialect(momentum_weighs="old", running_var="biased", single_value="answered", counter=False)

    @partial(jax.jit, static_argnames=("training", *static))
    def forward(x: Any, weight: Any, bias: Any, mean: Any, var: Any, decay: Any, eps: Any, training: bool) -> Any:
        if mean is None:  # layers have running statistics, whether these are of use or not
            shape, dtype = (x.shape[1],), jnp.promote_types(x.dtype, "float32")
            mean, var = jnp.zeros(shape, dtype), jnp.ones(shape, dtype)
        return call(x, weight, bias, mean, var, decay, eps, training)

    def train(x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, momentum: float, eps: float) -> Any:
        return forward(x, weight, bias, running_mean, running_var, dialect.momentum(momentum), eps, True)

    def infer(x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, eps: float) -> Any:
        return forward(x, weight, bias, running_mean, running_var, 0.9, eps, False)[0]

    @partial(jax.jit, static_argnames=("training", "wrt", *static))
    def pull(dy: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: Any, training: bool, wrt: Any) -> Any:
        tensors = {"input": x, "weight": weight, "bias": bias}

        def output(leaves: dict[str, Any]) -> Any:
            return forward(*(tensors | leaves).values(), mean, var, 0.9, eps, training)[0]

        (found,) = jax.vjp(output, {name: tensors[name] for name in wrt})[1](dy)
        return tuple(map(found.get, tensors))

    def backward(dy: Any, *, running_mean: Any, running_var: Any, saved: Any, **recorded: Any) -> Any:
        del saved
        return pull(dy, mean=running_mean, var=running_var, **recorded)

    return kernel_backend(
        name,
        train,
        infer,
        backward,
        capabilities=Capabilities(
            layouts=("contiguous",),
            gradients=True,
            deterministic=True,
            threads=True,
            input_checks=False,
            subnormals=False,
            expensive_signatures=True,
            dialect=dialect,
            **claims,
        ),
        description=f"{version}, jax {jax.__version__}, CPU",
        to_native=partial(jnp.array, copy=True),
        known_failures=failures,
    )


_FLAX = f"flax {flax.__version__}"


def flax_linen() -> Backend:
    """``flax.linen.BatchNorm`` as it is by default: the variance is E[x²] − E[x]²."""
    return _backend("flax-linen", _linen, _FLAX, known.LINEN, dtypes=("float32", "float64", *known.HALF), grade="textbook")


def flax_linen_accurate() -> Backend:
    """``flax.linen.BatchNorm`` with use_fast_variance=False."""
    call = partial(_linen, use_fast_variance=False)
    return _backend("flax-linen-accurate", call, _FLAX, known.LINEN, dtypes=("float32", "float64", *known.HALF), grade="two-pass")


def flax_nnx() -> Backend:
    """``flax.nnx.BatchNorm`` as it is by default: the variance is E[x²] − E[x]²."""
    return _backend("flax-nnx", _nnx, _FLAX, known.LINEN, dtypes=("float32", *known.HALF), grade="textbook")


def flax_nnx_accurate() -> Backend:
    """``flax.nnx.BatchNorm`` with use_fast_variance=False."""
    call = partial(_nnx, use_fast_variance=False)
    return _backend("flax-nnx-accurate", call, _FLAX, known.LINEN, dtypes=("float32", *known.HALF), grade="two-pass")


def equinox_batch() -> Backend:
    """``equinox.nn.BatchNorm`` with mode="batch"."""
    return _backend("equinox", _equinox, f"equinox {equinox.__version__}", (), static=("decay", "eps"), dtypes=("float32", "float64"), grade="two-pass")
