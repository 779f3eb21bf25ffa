"""Backends made of one, two or three kernel functions, without a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from inspect import signature
from typing import Any, TypeAlias

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Gradients, Layer, Native
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.arrays import private_copy
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dialect import PYTORCH
from bn_spec.case.dtypes import Array
from bn_spec.errors import ConfigError

ForwardTraining: TypeAlias = Callable[..., tuple[Native | None, ...]]
"""A forward in training, as :func:`kernel_backend` takes it."""

ForwardInference: TypeAlias = Callable[..., Native]
"""A forward in eval mode, as :func:`kernel_backend` takes it."""

BackwardKernel: TypeAlias = Callable[..., tuple[Native | None, Native | None, Native | None]]
"""A backward, as :func:`kernel_backend` takes it."""


def kernel_backend(
    name: str,
    forward_training: ForwardTraining,
    forward_inference: ForwardInference | None = None,
    backward: BackwardKernel | None = None,
    *,
    capabilities: Capabilities | None = None,
    description: str = "kernel functions",
    to_native: Callable[[Array], Native] = np.asarray,
    to_numpy: Callable[[Native], Array] = np.asarray,
    known_failures: tuple[KnownFailure, ...] = (),
) -> Backend:
    """Make a backend of kernel functions.

    The backend keeps the mode, the counter, the tensors, eps and momentum of each layer, and does
    resets and checkpoints itself. It calls your functions with the first argument by position, and
    all others by name. In these functions, x, y and dy are (N, C, H, W); weight, bias and running
    statistics are (C,), or None where they do not exist.

    Args:
        name: Name of the backend.
        forward_training: Function from ``(x, weight, bias, running_mean, running_var, momentum,
            eps)`` to ``(y, running_mean, running_var)``. Momentum is the weight of the new value,
            and is 1 / k at batch k of a cumulative mean. The function may return a fourth value of
            any class, which the backward gets as ``saved``. In a dialect whose averages are not
            from the initial value, it also gets ``batches``, the number of batches including this
            one.
        forward_inference: Function from ``(x, weight, bias, running_mean, running_var, eps)`` to
            ``y``. Without it, eval mode is not claimed.
        backward: Function from ``(dy, x, weight, bias, running_mean, running_var, eps, training,
            saved, wrt)`` to ``(dx, dweight, dbias)``. ``training`` is whether batch statistics
            normalised in the forward. The running statistics are those before the forward; only
            ``training=False`` needs them. ``saved`` is the fourth value of forward_training, or
            None. ``wrt`` has those of "input", "weight" and "bias" that require a gradient; return
            None for the others. Without this function, gradients are not claimed.
        capabilities: Claims of the kernels. The default is a plain
            :class:`bn_spec.backend.claims.Capabilities` that claims the functions that exist.
            ``checkpoints`` and ``live_attributes`` are always claimed,
            because the backend itself implements them.
        description: Version and device, as reports show them.
        to_native: Function from an array to a native tensor with the same strides.
        to_numpy: Function from a native tensor to an array with the same strides.
        known_failures: Violations that are understood and recorded.

    Raises:
        ConfigError: A function takes other arguments, a claim needs a function that is missing, or
            a double backward is claimed.

    """
    kernels = Capabilities(inference=forward_inference is not None, gradients=backward is not None)
    claims = replace(capabilities or kernels, checkpoints=True, live_attributes=True)
    if claims.inference and forward_inference is None:
        raise ConfigError(
            f"{name} claims inference but has no forward_inference;"
            " pass forward_inference=..., or claim inference=False"
        )
    if claims.gradients and backward is None:
        raise ConfigError(
            f"{name} claims gradients but has no backward;"
            " pass backward=..., or claim gradients=False"
        )
    if claims.double_backward:
        raise ConfigError(
            f"{name} claims a double backward, which kernel functions cannot have;"
            " write a layer of your own (bn_spec.Layer), or claim double_backward=()"
        )
    averages = ("batches",) if claims.dialect.averages != PYTORCH.averages else ()
    for label, kernel, names in (
        ("forward_training", forward_training, ("x", *_TENSORS, "momentum", "eps", *averages)),
        ("forward_inference", forward_inference, ("x", *_TENSORS, "eps")),
        ("backward", backward, ("dy", "x", *_TENSORS, "eps", "training", "saved", "wrt")),
    ):
        if kernel is not None:
            _check_arguments(f"{name}: {label}", kernel, names)
    return _KernelBackend(
        name,
        description,
        claims,
        forward_training,
        forward_inference,
        backward,
        to_native,
        to_numpy,
        known_failures,
    )


_TENSORS = ("weight", "bias", "running_mean", "running_var")


def _check_arguments(label: str, kernel: Callable[..., object], names: tuple[str, ...]) -> None:
    """Raise ConfigError unless a kernel takes these arguments, all but the first by name."""
    first, *others = names
    try:
        taken = signature(kernel)
    except (TypeError, ValueError):
        return  # a compiled function may have no signature that Python can read
    try:
        taken.bind(None, **dict.fromkeys(others))
    except TypeError as error:
        raise ConfigError(
            f"{label} takes {taken} ({error}); it is called with {first} by position"
            f" and with {', '.join(others)} by name"
        ) from error


@dataclass(frozen=True)
class _KernelBackend:
    """A backend whose layers call kernel functions; see :func:`kernel_backend` for its fields."""

    name: str
    description: str
    capabilities: Capabilities
    forward_training: ForwardTraining
    forward_inference: ForwardInference | None
    backward: BackwardKernel | None
    to_native: Callable[[Array], Native]
    to_numpy: Callable[[Native], Array]
    known_failures: tuple[KnownFailure, ...]

    def layer(self, config: Config, state: State | None) -> Layer:
        return _KernelLayer(self, config, state or initial_state(config))


@dataclass
class _KernelLayer:
    """A layer around kernel functions.

    Attributes:
        backend: The kernel functions.
        config: The config, with eps and momentum as they were set last.
        training: Whether the layer is in training mode.
        counter: num_batches_tracked, a NumPy array.
        tensors: The other tensors of the state by name, native.

    Args:
        initial: The state that the layer starts with.

    """

    backend: _KernelBackend
    config: Config
    initial: InitVar[State]
    training: bool = True
    counter: Array | None = field(init=False)
    tensors: dict[str, Native | None] = field(init=False)

    def __post_init__(self, initial: State) -> None:
        self._store(initial)

    def _store(self, state: State) -> None:
        counter = state.num_batches_tracked
        self.counter = None if counter is None else counter.copy()
        self.tensors = self._natives(state)

    def _natives(self, state: State) -> dict[str, Native | None]:
        """Return native copies of all tensors of a state but the counter."""
        return {name: self._native(getattr(state, name)) for name in _TENSORS}

    def _native(self, array: Array | None) -> Native | None:
        return None if array is None else self.backend.to_native(private_copy(array))

    def train(self, mode: bool) -> None:
        self.training = mode

    def forward(self, x: Native) -> Native:
        return self._forward(x)[0]

    def record(self, x: Native, wrt: tuple[str, ...]) -> tuple[Native, dict[str, Any]]:
        # A kernel may update its running statistics in place; a backward needs them as they were.
        before = self._natives(self.state())
        y, saved, training = self._forward(x)
        record = {"x": x, **before, "eps": self.config.eps}
        return y, record | {"training": training, "saved": saved, "wrt": wrt}

    def backward(self, record: dict[str, Any], dy: Native) -> Gradients:
        if self.backend.backward is None:
            raise NotImplementedError(f"{self.backend.name} has no backward")
        return Gradients(*self.backend.backward(dy, **record))

    def _forward(self, x: Native) -> tuple[Native, Any, bool]:
        """Return the output, the value saved for a backward, and if batch statistics normalise."""
        tensors, eps = self.tensors, self.config.eps
        if not self.training and self.config.track_running_stats:
            if self.backend.forward_inference is None:
                raise NotImplementedError(f"{self.backend.name} has no forward_inference")
            return self.backend.forward_inference(x, **tensors, eps=eps), None, False
        tracked = None if self.counter is None else self.counter + 1
        batches = int(tracked or 1)
        momentum = 1 / batches if self.config.momentum is None else self.config.momentum
        arguments = {"momentum": momentum, "eps": eps}
        if self.backend.capabilities.dialect.averages != PYTORCH.averages:
            arguments["batches"] = batches
        y, mean, var, *saved = self.backend.forward_training(x, **tensors, **arguments)
        if tracked is not None:
            self.counter = np.asarray(tracked)
            tensors |= {"running_mean": mean, "running_var": var}
        return y, saved[0] if saved else None, True

    def state(self) -> State:
        def copied(tensor: Native | None) -> Array | None:
            return None if tensor is None else np.array(self.backend.to_numpy(tensor))

        tensors = {name: copied(tensor) for name, tensor in self.tensors.items()}
        counter = None if self.counter is None else self.counter.copy()
        return State(**tensors, num_batches_tracked=counter)

    def save(self) -> dict[str, Native]:
        return {name: self.backend.to_native(a) for name, a in self.state().tensors().items()}

    def load(self, tensors: Mapping[str, Native], *, strict: bool) -> None:
        own = self.state().tensors()
        if strict and own.keys() != tensors.keys():
            raise ValueError(f"expected {', '.join(own)}; got {', '.join(tensors)}")
        # All shapes are checked before anything is stored: a load that fails changes nothing.
        loaded = dict(own)
        for name, a in own.items():
            if name in tensors:
                array = np.array(self.backend.to_numpy(tensors[name]))
                if array.shape != a.shape:
                    raise ValueError(f"{name} has shape {array.shape}; expected {a.shape}")
                loaded[name] = array.astype(a.dtype)
        self._store(State(**loaded))

    def configure(self, name: str, value: float | None) -> None:
        self.config = self.config.changed(name, value)

    def reset_running_stats(self) -> None:
        now = self.state()
        self._store(replace(initial_state(self.config), weight=now.weight, bias=now.bias))

    def reset_parameters(self) -> None:
        self._store(initial_state(self.config))
