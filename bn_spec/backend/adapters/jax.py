"""JAX: the BatchNorm layers of Flax (Linen and NNX) and Haiku, compiled by XLA for the CPU.

Importing this module enables float64 in JAX (``jax_enable_x64``). Calls are jitted, as training
steps are. Haiku divides the averages that it stores by 1 − decay ** batches; the quotients are its
running statistics.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from bn_spec.backend.adapters import jax_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dialect import Dialect

with framework("jax", "jax", "flax", "haiku"):
    import flax
    import haiku
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx

jax.config.update("jax_enable_x64", True)

AVERAGES = partial(
    Dialect, momentum_weighs="old", running_var="biased", single_value="answered", counter=False
)
"""Conventions that the layers of JAX's libraries have in common."""

_DIALECT = AVERAGES()
_DEBIASED = AVERAGES(averages="debiased")

_CLAIMS: dict[str, Any] = {
    "dialect": _DIALECT,
    "layouts": ("contiguous",),
    "gradients": True,
    "deterministic": True,
    "threads": True,
    "input_checks": False,
    "subnormals": False,
    "expensive_signatures": True,
}

# The calls of layers ------------------------------------------------------------------------------
# Each takes the input, ``tensors`` (weight, bias, running mean and running variance), decay, eps,
# the mode, and the number of batches before this one. It returns output, running mean and variance.


def _flax(x: Any, weight: Any, decay: Any, eps: Any, training: bool) -> dict[str, Any]:
    """Return the arguments that the constructors of Linen and NNX have in common."""
    affine = weight is not None
    return {
        "use_running_average": not training,
        "momentum": decay,
        "epsilon": eps,
        "axis": 1,
        "dtype": x.dtype,
        "use_scale": affine,
        "use_bias": affine,
    }


def _linen(
    x: Any, tensors: Any, decay: Any, eps: Any, training: bool, _: Any, **options: Any
) -> Any:
    weight, bias, mean, var = tensors
    layer = linen.BatchNorm(**_flax(x, weight, decay, eps, training) | options)
    variables = {
        "params": {"scale": weight, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    y, changed = layer.apply(variables, x, mutable=["batch_stats"])
    return y, changed["batch_stats"]["mean"], changed["batch_stats"]["var"]


def _nnx(x: Any, tensors: Any, decay: Any, eps: Any, training: bool, _: Any, **options: Any) -> Any:
    arguments = _flax(x, tensors[0], decay, eps, training)
    layer = nnx.BatchNorm(x.shape[1], rngs=nnx.Rngs(0), **arguments, **options)
    for name, tensor in zip(("scale", "bias", "mean", "var"), tensors, strict=True):
        if tensor is not None:
            getattr(layer, name)[...] = tensor
    return layer(x), layer.mean[...], layer.var[...]


def _haiku(x: Any, tensors: Any, decay: Any, eps: Any, training: bool, before: Any) -> Any:
    scale, offset, mean, var = (None if a is None else a.reshape(1, -1, 1, 1) for a in tensors)
    make = partial(
        haiku.BatchNorm,
        scale is not None,
        offset is not None,
        decay,
        eps,
        data_format="channels_first",
    )
    averages = {"batch_norm/~/mean_ema": mean, "batch_norm/~/var_ema": var}
    state = {}
    for name, average in averages.items():
        # Haiku stores both the average and its product with 1 − decay ** batches.
        hidden = average * (1 - decay**before)
        state[name] = {"counter": before, "hidden": hidden, "average": average}
    call = haiku.transform_with_state(lambda x: make()(x, training)).apply
    y, state = call({"batch_norm": {"scale": scale, "offset": offset}}, state, None, x)
    return y, *(state[name]["average"].ravel() for name in averages)


# Backends -----------------------------------------------------------------------------------------


def backend(
    name: str,
    call: Any,
    module: Any,
    failures: tuple[KnownFailure, ...],
    static: tuple[str, ...] = (),
    **claims: Any,
) -> Backend:
    """Return the backend of a layer.

    Args:
        name: of the backend.
        call: the call of the layer.
        module: the library, whose name and version go into the description.
        failures: known failures.
        static: the attributes that the layer is compiled for: none, or decay and eps.
        claims: claims that differ from those of all layers.

    """

    @partial(jax.jit, static_argnames=("training", *static))
    def forward(x: Any, tensors: Any, decay: Any, eps: Any, training: bool, before: Any = 0) -> Any:
        # These layers always have running statistics, whether they use them or not.
        if tensors[2] is None:
            tensors = (*tensors[:2], jnp.zeros(x.shape[1], x.dtype), jnp.ones(x.shape[1], x.dtype))
        return call(x, tensors, decay, eps, training, before)

    def train(x: Any, *, momentum: float, eps: float, batches: int = 1, **tensors: Any) -> Any:
        decay = _DIALECT.momentum(momentum)
        return forward(x, tuple(tensors.values()), decay, eps, True, batches - 1)

    def infer(x: Any, *, eps: float, **tensors: Any) -> Any:
        # The decay of 0.9 changes nothing in eval mode.
        return forward(x, tuple(tensors.values()), 0.9, eps, False)[0]

    # The backward has no decay: only eps, the last of ``static``, is among its arguments.
    @partial(jax.jit, static_argnames=("training", "wrt", *static[1:]))
    def backward(dy: Any, *, x: Any, eps: Any, training: bool, wrt: Any, **tensors: Any) -> Any:
        tensors["input"] = x

        def output(leaves: dict[str, Any]) -> Any:
            names = ("input", "weight", "bias", "running_mean", "running_var")
            x, *others = map((tensors | leaves).get, names)
            return forward(x, tuple(others), 0.9, eps, training)[0]

        y, pulled_back = jax.vjp(output, {name: tensors[name] for name in wrt})
        gradients = pulled_back(dy.astype(y.dtype))[0]
        return tuple(map(gradients.get, ("input", "weight", "bias")))

    return kernel_backend(
        name,
        train,
        infer,
        backward,
        capabilities=Capabilities(**_CLAIMS | claims),
        description=f"{module.__name__} {module.__version__}, jax {jax.__version__}, CPU",
        to_native=partial(jnp.array, copy=True),
        known_failures=failures,
    )


FULL = ("float32", "float64")
"""Dtypes of layers in full precision."""

_ACCURATE = {"use_fast_variance": False}
"""Options of Flax's layers that subtract the mean before they square."""

_LINEN = partial(backend, module=flax, failures=known.LINEN, dtypes=(*FULL, *known.HALF))
flax_linen = partial(_LINEN, "flax-linen", _linen, grade="textbook")
flax_linen_accurate = partial(
    _LINEN, "flax-linen-accurate", partial(_linen, **_ACCURATE), grade="two-pass"
)
# With dtype=None the output has the dtype to which data and parameters are promoted.
flax_linen_promoted = partial(
    _LINEN,
    "flax-linen-promoted",
    partial(_linen, dtype=None),
    dtypes=known.HALF,
    dialect=AVERAGES(mixed_output="parameters"),
    grade="textbook",
)

_NNX = partial(backend, module=flax, failures=known.NNX, dtypes=("float32", *known.HALF))
flax_nnx = partial(_NNX, "flax-nnx", _nnx, grade="textbook")
flax_nnx_accurate = partial(_NNX, "flax-nnx-accurate", partial(_nnx, **_ACCURATE), grade="two-pass")

haiku_layer = partial(
    backend,
    "haiku",
    _haiku,
    haiku,
    known.HAIKU,
    dtypes=FULL,
    dialect=_DEBIASED,
    cumulative_momentum=False,
    grade="textbook",
)
