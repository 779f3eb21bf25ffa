"""JAX: the BatchNorm layers of Flax (Linen and NNX) and Haiku, compiled by XLA for the CPU.

Importing this enables float64 in JAX (``jax_enable_x64``). Calls are jitted, as training steps are.
Haiku divides averages that it holds by 1 − decay ** batches; running statistics are the quotients.
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
_DIALECT, _DEBIASED = AVERAGES(), AVERAGES(averages="debiased")
_CLAIMS: dict[str, Any] = {
    "layouts": ("contiguous",),
    "gradients": True,
    "deterministic": True,
    "threads": True,
}
_CLAIMS |= {
    "input_checks": False,
    "subnormals": False,
    "expensive_signatures": True,
    "dialect": _DIALECT,
}


def _flax(x: Any, weight: Any, decay: Any, eps: Any, training: bool) -> dict[str, Any]:
    given = {
        "use_running_average": not training,
        "momentum": decay,
        "epsilon": eps,
        "axis": 1,
        "dtype": x.dtype,
    }
    return given | dict.fromkeys(("use_scale", "use_bias"), weight is not None)


def _linen(x: Any, held: Any, decay: Any, eps: Any, training: bool, _: Any, **options: Any) -> Any:
    weight, bias, mean, var = held
    layer = linen.BatchNorm(**_flax(x, weight, decay, eps, training) | options)
    variables = {
        "params": {"scale": weight, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    y, changed = layer.apply(variables, x, mutable=["batch_stats"])
    return y, changed["batch_stats"]["mean"], changed["batch_stats"]["var"]


def _nnx(x: Any, held: Any, decay: Any, eps: Any, training: bool, _: Any, **options: Any) -> Any:
    layer = nnx.BatchNorm(
        x.shape[1], rngs=nnx.Rngs(0), **_flax(x, held[0], decay, eps, training), **options
    )
    for name, tensor in zip(("scale", "bias", "mean", "var"), held, strict=True):
        if tensor is not None:
            getattr(layer, name)[...] = tensor
    return layer(x), layer.mean[...], layer.var[...]


def _haiku(x: Any, held: Any, decay: Any, eps: Any, training: bool, before: Any) -> Any:
    scale, offset, mean, var = (None if a is None else a.reshape(1, -1, 1, 1) for a in held)
    make = partial(
        haiku.BatchNorm,
        scale is not None,
        offset is not None,
        decay,
        eps,
        data_format="channels_first",
    )
    averages = {"batch_norm/~/mean_ema": mean, "batch_norm/~/var_ema": var}
    state = {
        k: {"counter": before, "hidden": a * (1 - decay**before), "average": a}
        for k, a in averages.items()
    }
    call = haiku.transform_with_state(lambda x: make()(x, training)).apply
    y, state = call({"batch_norm": {"scale": scale, "offset": offset}}, state, None, x)
    return y, *(state[name]["average"].ravel() for name in averages)


def backend(
    name: str,
    call: Any,
    module: Any,
    failures: tuple[KnownFailure, ...],
    static: tuple[str, ...] = (),
    **claims: Any,
) -> Backend:
    """Return the backend of a layer; ``static`` are the attributes, decay and eps, that it is compiled for."""

    @partial(jax.jit, static_argnames=("training", *static))
    def forward(x: Any, held: Any, decay: Any, eps: Any, training: bool, before: Any = 0) -> Any:
        if held[2] is None:  # layers have running statistics, whether they are used or not
            held = (*held[:2], jnp.zeros(x.shape[1], x.dtype), jnp.ones(x.shape[1], x.dtype))
        return call(x, held, decay, eps, training, before)

    def train(x: Any, *, momentum: float, eps: float, batches: int = 1, **held: Any) -> Any:
        return forward(x, tuple(held.values()), _DIALECT.momentum(momentum), eps, True, batches - 1)

    def infer(x: Any, *, eps: float, **held: Any) -> Any:
        return forward(x, tuple(held.values()), 0.9, eps, False)[0]

    @partial(jax.jit, static_argnames=("training", "wrt", *static[1:]))
    def backward(dy: Any, *, x: Any, eps: Any, training: bool, wrt: Any, **held: Any) -> Any:
        held["input"] = x

        def output(leaves: dict[str, Any]) -> Any:
            x, *tensors = map(
                (held | leaves).get, ("input", "weight", "bias", "running_mean", "running_var")
            )
            return forward(x, tuple(tensors), 0.9, eps, training)[0]

        y, pulled_back = jax.vjp(output, {name: held[name] for name in wrt})
        return tuple(map(pulled_back(dy.astype(y.dtype))[0].get, ("input", "weight", "bias")))

    given: dict[str, Any] = {
        "capabilities": Capabilities(**_CLAIMS | claims),
        "known_failures": failures,
    }
    given["description"] = f"{module.__name__} {module.__version__}, jax {jax.__version__}, CPU"
    return kernel_backend(
        name, train, infer, backward, to_native=partial(jnp.array, copy=True), **given
    )


FULL, _ACCURATE = ("float32", "float64"), {"use_fast_variance": False}
_LINEN = partial(backend, module=flax, failures=known.LINEN, dtypes=(*FULL, *known.HALF))
_NNX = partial(backend, module=flax, failures=known.NNX, dtypes=("float32", *known.HALF))
flax_linen = partial(_LINEN, "flax-linen", _linen, grade="textbook")
flax_linen_accurate = partial(
    _LINEN, "flax-linen-accurate", partial(_linen, **_ACCURATE), grade="two-pass"
)
_PROMOTING = partial(
    _LINEN, dtypes=known.HALF, dialect=AVERAGES(mixed_output="parameters"), grade="textbook"
)
flax_linen_promoted = partial(_PROMOTING, "flax-linen-promoted", partial(_linen, dtype=None))
flax_nnx = partial(_NNX, "flax-nnx", _nnx, grade="textbook")
flax_nnx_accurate = partial(_NNX, "flax-nnx-accurate", partial(_nnx, **_ACCURATE), grade="two-pass")
_AVERAGING = partial(backend, dtypes=FULL, dialect=_DEBIASED, cumulative_momentum=False)
haiku_layer = partial(_AVERAGING, "haiku", _haiku, haiku, known.HAIKU, grade="textbook")
