"""Keras 3: ``keras.layers.BatchNormalization`` on the CPU, by each of the backends that Keras computes with.

With ``axis=1`` arrays go in as they are; in a ``StatelessScope`` layers are functions, which
threads can share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

from bn_spec.backend.adapters import keras_known as known
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Gradients
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import DTYPES
from bn_spec.errors import UnavailableBackend

Tensor: TypeAlias = Any
Tensors: TypeAlias = dict[str, Tensor]
Function: TypeAlias = Callable[..., Any]

DIALECT = Dialect(
    momentum_weighs="old", running_var="biased", single_value="answered", counter=False
)


def _by_tape(function: Function, leaves: Sequence[Tensor], dy: Tensor) -> Any:
    with import_module("tensorflow").GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        y = function(*leaves)
    return tape.gradient(y, leaves, output_gradients=dy)


def _by_vjp(function: Function, leaves: Sequence[Tensor], dy: Tensor) -> Any:
    return import_module("jax").vjp(function, *leaves)[1](dy)


def _by_autograd(function: Function, leaves: Sequence[Tensor], dy: Tensor) -> Any:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    return import_module("torch").autograd.grad(function(*leaves), leaves, dy)


_CLAIMS: dict[str, Any] = {
    "dialect": DIALECT,
    "dtypes": tuple(DTYPES),
    "deterministic": True,
    "threads": True,
}
_CLAIMS |= {"tracking_off": False, "cumulative_momentum": False}  # Keras has neither
_TWO_PASS = {
    "grade": "two-pass",
    "subnormals": False,
    "overflow_safe": True,
    "layouts": ("contiguous",),
}
_TEXTBOOK = {
    "grade": "textbook",
    "direct_means": True,
    "centred_products": True,
    "output_layout": True,
}
_BACKENDS: dict[str, tuple[tuple[str, ...], known.Failures, Function | None, dict[str, Any]]] = {
    "tensorflow": (("tensorflow",), known.TENSORFLOW, _by_tape, _TWO_PASS),
    "jax": (("jax",), known.JAX, _by_vjp, _TWO_PASS | {"expensive_signatures": True}),
    "numpy": (("jax", "scipy"), known.TEXTBOOK, None, _TEXTBOOK),
    "torch": (("torch",), known.TORCH, _by_autograd, _TEXTBOOK),
}
"""Of each backend of Keras: the packages that it imports, known failures, how it differentiates, what it claims."""


def _keras(name: str) -> Any:
    """Return Keras with a backend, which a process chooses once, by an environment variable."""
    if missing := [package for package in ("keras", *_BACKENDS[name][0]) if not find_spec(package)]:
        raise UnavailableBackend(
            f"install {' and '.join(missing)}: pip install 'bn-spec[keras]' {' '.join(missing)}"
        )
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # TensorFlow reads it once, when it is imported
    chosen = "keras" in sys.modules or os.environ.setdefault("KERAS_BACKEND", name) == name
    if chosen and (keras := import_module("keras")).backend.backend() == name:
        return keras
    raise UnavailableBackend(
        f"Keras has another backend here; set KERAS_BACKEND={name} for a process of its own"
    )


def _backend(name: str) -> Backend:
    keras, framework, (_, failures, differentiate, claims) = (
        _keras(name),
        import_module(name),
        _BACKENDS[name],
    )

    @lru_cache(maxsize=1024)
    def layer(channels: int, affine: bool, policy: str, momentum: float, eps: float) -> Any:
        built = keras.layers.BatchNormalization(
            1, momentum, eps, center=affine, scale=affine, dtype=policy
        )
        built.build((None, channels, None, None))
        return built

    def results(built_with: Any, training: bool, tensors: Tensors) -> tuple[Tensor, ...]:
        built, names = layer(*built_with), ("weight", "bias", "running_mean", "running_var")
        state = zip(
            built.weights, (tensors[name] for name in names if name in tensors), strict=True
        )
        with keras.device("cpu"), keras.StatelessScope(state_mapping=state) as scope:
            y = built(tensors["input"], training=training)
        return y, *map(scope.get_current_value, built.non_trainable_weights)

    def gradients(
        built_with: Any, training: bool, leaves: Tensors, rest: Tensors, dy: Tensor
    ) -> Tensors:
        def y(*tensors: Tensor) -> Tensor:
            return results(built_with, training, rest | dict(zip(leaves, tensors, strict=True)))[0]

        return (
            dict(zip(leaves, differentiate(y, [*leaves.values()], dy), strict=True))
            if differentiate
            else {}
        )

    if name == "jax":
        framework.config.update("jax_enable_x64", True)  # without it there is no float64
        results, gradients = (
            framework.jit(function, static_argnums=(0, 1)) for function in (results, gradients)
        )

    def prepared(x: Tensor, momentum: float, eps: float, **given: Tensor) -> tuple[Any, Tensors]:
        tensors = {
            "input": x,
            **{name: tensor for name, tensor in given.items() if tensor is not None},
        }
        data, variables = (
            keras.backend.standardize_dtype(t.dtype) for t in (x, given["running_mean"])
        )
        arguments = (
            data if data == variables else f"mixed_{data}",
            DIALECT.momentum(momentum),
            DIALECT.eps(eps),
        )
        return (len(given["running_mean"]), "weight" in tensors, *arguments), tensors

    def train(x: Tensor, **given: Any) -> tuple[Tensor, ...]:
        built_with, tensors = prepared(x, **given)
        return results(built_with, True, tensors)

    def infer(x: Tensor, **given: Any) -> Tensor:
        built_with, tensors = prepared(x, momentum=0.0, **given)
        return results(built_with, False, tensors)[0]

    def backward(dy: Tensor, *, training: bool, wrt: tuple[str, ...], **given: Any) -> Gradients:
        built_with, tensors = prepared(momentum=0.0, **given | {"saved": None})
        return Gradients(
            **gradients(
                built_with, training, {name: tensors.pop(name) for name in wrt}, tensors, dy
            )
        )

    options: dict[str, Any] = {"known_failures": failures, "to_numpy": keras.ops.convert_to_numpy}
    options["to_native"] = lambda array: keras.ops.convert_to_tensor(array, dtype=array.dtype.name)
    options["capabilities"] = Capabilities(
        **_CLAIMS | {"gradients": differentiate is not None} | claims
    )
    options["description"] = f"Keras {keras.__version__}, {name} {framework.__version__}, CPU"
    return kernel_backend(
        f"keras-{name}", train, infer, backward if differentiate else None, **options
    )


tensorflow, jax, numpy, torch = (partial(_backend, name) for name in _BACKENDS)
