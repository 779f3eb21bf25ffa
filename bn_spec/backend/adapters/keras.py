"""Keras 3: ``keras.layers.BatchNormalization`` on the CPU, with each backend of Keras.

With ``axis=1`` arrays go in as they are. In a ``StatelessScope`` layers are functions, which
threads can share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

from bn_spec.backend.adapters import keras_known as known
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Gradients
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import DTYPES
from bn_spec.errors import UnavailableBackend

_KerasTensor: TypeAlias = Any
_KerasTensors: TypeAlias = dict[str, _KerasTensor]
_Function: TypeAlias = Callable[..., Any]

DIALECT = Dialect(
    momentum_weighs="old", running_var="biased", single_value="answered", counter=False
)
"""The layer's conventions."""


# Gradients: each function returns those of Σ dy · function(*leaves), in the order of the leaves.


def _by_tape(function: _Function, leaves: Sequence[_KerasTensor], dy: _KerasTensor) -> Any:
    with import_module("tensorflow").GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        y = function(*leaves)
    return tape.gradient(y, leaves, output_gradients=dy)


def _by_vjp(function: _Function, leaves: Sequence[_KerasTensor], dy: _KerasTensor) -> Any:
    _, pull_back = import_module("jax").vjp(function, *leaves)
    return pull_back(dy)


def _by_autograd(function: _Function, leaves: Sequence[_KerasTensor], dy: _KerasTensor) -> Any:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    return import_module("torch").autograd.grad(function(*leaves), leaves, dy)


_CLAIMS: dict[str, Any] = {
    "dialect": DIALECT,
    "dtypes": tuple(DTYPES),
    "deterministic": True,
    "threads": True,
    # Keras always tracks running statistics, with a fixed momentum.
    "tracking_off": False,
    "cumulative_momentum": False,
}
_TWO_PASS: dict[str, Any] = {
    "grade": "two-pass",
    "subnormals": False,
    "overflow_safe": True,
    "layouts": ("contiguous",),
}
_TEXTBOOK: dict[str, Any] = {
    "grade": "textbook",
    "direct_means": True,
    "centred_products": True,
    "output_layout": True,
}


class _Engine(NamedTuple):
    """A backend of Keras.

    Attributes:
        packages: Packages that Keras imports for it.
        known_failures: Known failures of the layer with it.
        differentiate: How it differentiates; None if it does not.
        claims: Claims that depend on it.

    """

    packages: tuple[str, ...]
    known_failures: tuple[KnownFailure, ...]
    differentiate: _Function | None
    claims: dict[str, Any]


_ENGINES: dict[str, _Engine] = {
    "tensorflow": _Engine(("tensorflow",), known.TENSORFLOW, _by_tape, _TWO_PASS),
    "jax": _Engine(("jax",), known.JAX, _by_vjp, _TWO_PASS | {"expensive_signatures": True}),
    "numpy": _Engine(("jax", "scipy"), known.TEXTBOOK, None, _TEXTBOOK),
    "torch": _Engine(("torch",), known.TORCH, _by_autograd, _TEXTBOOK),
}
"""Backends of Keras, by the name of their module."""


def load_keras(name: str) -> Any:
    """Import Keras with one of its backends.

    A process chooses a backend once, by the environment variable KERAS_BACKEND.

    Raises:
        UnavailableBackend: a package is missing, or the process has chosen another backend.

    """
    missing = [p for p in ("keras", *_ENGINES[name].packages) if not find_spec(p)]
    if missing:
        raise UnavailableBackend(
            f"install {' and '.join(missing)}: pip install 'bn-spec[keras]' {' '.join(missing)}"
        )
    # TensorFlow reads the variable once, when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Once Keras is imported its backend is fixed. Until then the environment variable decides.
    chosen = "keras" in sys.modules or os.environ.setdefault("KERAS_BACKEND", name) == name
    if chosen and (keras := import_module("keras")).backend.backend() == name:
        return keras
    raise UnavailableBackend(
        f"Keras has another backend here; set KERAS_BACKEND={name} for a process of its own"
    )


def _prepared(
    keras: Any, x: _KerasTensor, momentum: float, eps: float, **handed_over: _KerasTensor
) -> tuple[Any, _KerasTensors]:
    """Return the arguments that a layer is built with, and the tensors that there are."""
    present = {name: tensor for name, tensor in handed_over.items() if tensor is not None}
    tensors = {"input": x, **present}
    running_mean = handed_over["running_mean"]
    data = keras.backend.standardize_dtype(x.dtype)
    variables = keras.backend.standardize_dtype(running_mean.dtype)
    built_with = (
        len(running_mean),
        "weight" in tensors,
        data if data == variables else f"mixed_{data}",
        DIALECT.momentum(momentum),
        DIALECT.eps(eps),
    )
    return built_with, tensors


def backend(name: str) -> Backend:
    """Return the layer, computing with a backend of Keras.

    Raises:
        UnavailableBackend: as :func:`load_keras`.

    """
    keras = load_keras(name)
    framework = import_module(name)
    engine = _ENGINES[name]
    differentiate = engine.differentiate

    @lru_cache(maxsize=1024)
    def layer(channels: int, affine: bool, policy: str, momentum: float, eps: float) -> Any:
        built = keras.layers.BatchNormalization(
            1, momentum, eps, center=affine, scale=affine, dtype=policy
        )
        built.build((None, channels, None, None))
        return built

    def results(
        built_with: Any, training: bool, tensors: _KerasTensors
    ) -> tuple[_KerasTensor, ...]:
        """Return output, running mean and running variance of a layer with these tensors."""
        built = layer(*built_with)
        names = ("weight", "bias", "running_mean", "running_var")
        present = (tensors[name] for name in names if name in tensors)
        state = zip(built.weights, present, strict=True)
        with keras.device("cpu"), keras.StatelessScope(state_mapping=state) as scope:
            y = built(tensors["input"], training=training)
        return y, *map(scope.get_current_value, built.non_trainable_weights)

    def gradients(
        built_with: Any,
        training: bool,
        leaves: _KerasTensors,
        rest: _KerasTensors,
        dy: _KerasTensor,
    ) -> _KerasTensors:
        """Return the gradients of Σ dy · y with respect to the leaves, by their names."""

        def y(*tensors: _KerasTensor) -> _KerasTensor:
            replaced = dict(zip(leaves, tensors, strict=True))
            return results(built_with, training, rest | replaced)[0]

        if not differentiate:
            return {}
        found = differentiate(y, [*leaves.values()], dy)
        return dict(zip(leaves, found, strict=True))

    if name == "jax":
        framework.config.update("jax_enable_x64", True)  # without it JAX has no float64
        # The first two arguments, with what a layer is built, and the mode, are static.
        results, gradients = (
            framework.jit(function, static_argnums=(0, 1)) for function in (results, gradients)
        )

    prepared = partial(_prepared, keras)

    def train(x: _KerasTensor, **handed_over: Any) -> tuple[_KerasTensor, ...]:
        built_with, tensors = prepared(x, **handed_over)
        return results(built_with, True, tensors)

    def infer(x: _KerasTensor, **handed_over: Any) -> _KerasTensor:
        built_with, tensors = prepared(x, momentum=0.0, **handed_over)
        return results(built_with, False, tensors)[0]

    def backward(
        dy: _KerasTensor, *, training: bool, wrt: tuple[str, ...], **handed_over: Any
    ) -> Gradients:
        built_with, tensors = prepared(momentum=0.0, **handed_over | {"saved": None})
        leaves = {name: tensors.pop(name) for name in wrt}
        return Gradients(**gradients(built_with, training, leaves, tensors, dy))

    own_claims = {"gradients": differentiate is not None} | engine.claims
    return kernel_backend(
        f"keras-{name}",
        train,
        infer,
        backward if differentiate else None,
        capabilities=Capabilities(**_CLAIMS | own_claims),
        description=f"Keras {keras.__version__}, {name} {framework.__version__}, CPU",
        to_native=lambda array: keras.ops.convert_to_tensor(array, dtype=array.dtype.name),
        to_numpy=keras.ops.convert_to_numpy,
        known_failures=engine.known_failures,
    )


tensorflow, jax, numpy, torch = (partial(backend, name) for name in _ENGINES)
