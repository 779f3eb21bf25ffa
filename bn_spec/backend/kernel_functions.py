"""Backends made of plain kernel functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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


ForwardInference: TypeAlias = Callable[..., Native]


BackwardKernel: TypeAlias = Callable[..., tuple[Native | None, Native | None, Native | None]]


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
    """Make a backend of plain kernel functions; mode, counter, momentum and resets are kept for them.

    Args:
        name: of the backend.
        forward_training: ``(x, weight, bias, running_mean, running_var, momentum, eps)`` to
            ``(y, running_mean, running_var)``: x and y (N, C, H, W), the others (C,) or None where
            they do not exist, momentum the weight of the new value, already 1 / k for a cumulative
            mean. A fourth value, of any kind, is saved for the backward. Where averages are not
            from the initial value, it also gets ``batches``, their number with this one.
        forward_inference: ``(x, weight, bias, running_mean, running_var, eps)`` to ``y``. Without
            it, eval mode is not claimed.
        backward: ``(dy, x, weight, bias, running_mean, running_var, eps, training, saved, wrt)`` to
            ``(dx, dweight, dbias)``: the arguments of the forward, running statistics as they were
            in it (only ``training=False`` needs them), ``saved`` the fourth value of
            forward_training or None, ``wrt`` those of "input", "weight" and "bias" whose gradient
            is asked; None for the others. Without it, gradients are not claimed.
        capabilities: what the kernels claim; the defaults of :class:`Capabilities` otherwise.
            Checkpoints and attributes that can be changed are kept here, and so claimed whatever it
            says.
        description: version and device, for people.
        to_native: moves an array in, strides kept.
        to_numpy: moves a tensor out, strides kept.
        known_failures: violations that are understood and recorded.

    Raises:
        ConfigError: a function takes other arguments, or is claimed and not given.

    """
    kernels = Capabilities(inference=forward_inference is not None, gradients=backward is not None)
    claims = replace(capabilities or kernels, checkpoints=True, live_attributes=True)
    if claims.inference and forward_inference is None:
        raise ConfigError(
            f"{name} claims inference but has no forward_inference; give one, or claim less"
        )
    if claims.gradients and backward is None:
        raise ConfigError(f"{name} claims gradients but has no backward; give one, or claim less")
    if claims.double_backward:
        raise ConfigError(
            f"{name} claims a double backward, which takes a layer of its own; claim less, or write one"
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
    """Raise ConfigError unless a kernel takes the first of these arguments by its place, and the others by name."""
    first, *others = names
    try:
        taken = signature(kernel)
    except (TypeError, ValueError):  # compiled functions may have none that Python knows
        return
    try:
        taken.bind(None, **dict.fromkeys(others))
    except TypeError as error:
        raise ConfigError(
            f"{label} takes {taken} ({error}); it is called with {first}, and by name with {', '.join(others)}"
        ) from error


@dataclass(frozen=True)
class _KernelBackend:
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
    backend: _KernelBackend
    config: Config
    held: State
    training: bool = True
    tensors: dict[str, Native | None] = field(init=False)

    def __post_init__(self) -> None:
        self._hold(self.held)

    def _hold(self, state: State) -> None:
        self.counter = None if (count := state.num_batches_tracked) is None else count.copy()
        self.tensors = {
            name: self._moved(a) for name, a in state.items() if name != "num_batches_tracked"
        }

    def _moved(self, array: Array | None) -> Native | None:
        return None if array is None else self.backend.to_native(private_copy(array))

    def train(self, mode: bool) -> None:
        self.training = mode

    def forward(self, x: Native) -> Native:
        return self._forward(x)[0]

    def record(self, x: Native, wrt: tuple[str, ...]) -> tuple[Native, dict[str, Any]]:
        # A kernel may update its running statistics in place; a backward needs them as they were.
        held = {
            name: self._moved(a)
            for name, a in self.state().items()
            if name != "num_batches_tracked"
        }
        y, saved, training = self._forward(x)
        return y, {
            "x": x,
            **held,
            "eps": self.config.eps,
            "training": training,
            "saved": saved,
            "wrt": wrt,
        }

    def backward(self, record: dict[str, Any], dy: Native) -> Gradients:
        if self.backend.backward is None:
            raise NotImplementedError(f"{self.backend.name} has no backward")
        return Gradients(*self.backend.backward(dy, **record))

    def _forward(self, x: Native) -> tuple[Native, Any, bool]:
        """Return the output, what is saved for a backward, and whether batch statistics normalise."""
        tensors, eps = self.tensors, self.config.eps
        if not self.training and self.config.track_running_stats:
            if self.backend.forward_inference is None:
                raise NotImplementedError(f"{self.backend.name} has no forward_inference")
            return self.backend.forward_inference(x, **tensors, eps=eps), None, False
        tracked = None if self.counter is None else self.counter + 1
        momentum = 1 / int(tracked or 1) if self.config.momentum is None else self.config.momentum
        given = {"momentum": momentum, "eps": eps}
        if self.backend.capabilities.dialect.averages != PYTORCH.averages:
            given["batches"] = int(tracked or 1)
        y, mean, var, *saved = self.backend.forward_training(x, **tensors, **given)
        if tracked is not None:
            self.counter = np.asarray(tracked)
            tensors |= {"running_mean": mean, "running_var": var}
        return y, saved[0] if saved else None, True

    def state(self) -> State:
        def moved(tensor: Native | None) -> Array | None:
            return None if tensor is None else np.array(self.backend.to_numpy(tensor))

        tensors = {name: moved(tensor) for name, tensor in self.tensors.items()}
        return State(
            **tensors, num_batches_tracked=None if self.counter is None else self.counter.copy()
        )

    def save(self) -> dict[str, Native]:
        return {name: self.backend.to_native(a) for name, a in self.state().tensors().items()}

    def load(self, tensors: Mapping[str, Native], *, strict: bool) -> None:
        own = self.state().tensors()
        if strict and own.keys() != tensors.keys():
            raise ValueError(f"expected {', '.join(own)}; got {', '.join(tensors)}")
        given = {
            name: np.array(self.backend.to_numpy(tensors[name])) for name in own if name in tensors
        }
        for name, a in given.items():
            if a.shape != own[name].shape:
                raise ValueError(f"{name} has shape {a.shape}; expected {own[name].shape}")
        self._hold(State(**{name: given.get(name, a).astype(a.dtype) for name, a in own.items()}))

    def configure(self, name: str, value: float | None) -> None:
        self.config = self.config.changed(name, value)

    def reset_running_stats(self) -> None:
        fresh = dict(initial_state(self.config).items())
        now = self.state()
        self._hold(State(**fresh | {"weight": now.weight, "bias": now.bias}))

    def reset_parameters(self) -> None:
        self._hold(initial_state(self.config))
