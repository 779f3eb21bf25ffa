"""The backend contract: how an implementation is put under test, and what it claims.

Three protocols, checked when a backend is loaded and when it answers, and nowhere else; nothing has to be
subclassed. Kernel authors who have functions and no layer use :func:`kernel_backend`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from .bounds import Accuracy
from .case import Case
from .config import Config, State, initial_state
from .dtypes import DTYPES, Array
from .errors import ConfigError, allowed

Native: TypeAlias = Any
"""A tensor of the backend's own kind."""

LAYOUTS = ("contiguous", "channels_last", "permuted", "sliced", "cropped", "split")
"""Memory layouts of an input (N, C, H, W): C order, NHWC order, WHCN order, every second element of a row, the
interior of larger planes (rows are contiguous, planes are not), the first channels of a wider tensor (planes are
contiguous, samples are not)."""


@dataclass(frozen=True)
class Capabilities(Accuracy):
    """What a backend claims. A claim is tested; what is not claimed is reported as *not claimed*.

    ``dtypes`` and ``layouts`` list what inputs may have; the flags say which variants of the operator exist. The
    claims about the arithmetic, ``grade`` first among them, are those of :class:`bn_spec.bounds.Accuracy`.

    Raises:
        ConfigError: a dtype, a layout or a class of the arithmetic is not known.

    """

    dtypes: tuple[str, ...] = ("float32",)
    layouts: tuple[str, ...] = LAYOUTS
    inference: bool = True
    """Has an eval mode."""
    affine_off: bool = True
    """Supports affine=False."""
    tracking_off: bool = True
    """Supports track_running_stats=False."""
    cumulative_momentum: bool = True
    """Supports momentum=None."""
    input_checks: bool = True
    """Rejects inputs of wrong rank, wrong channel count, and a single value per channel."""
    unbiased: bool = True
    """Rounds to nearest everywhere, so that errors are as often too large as too small."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, received, known in (
            ("dtype", self.dtypes, tuple(DTYPES)),
            ("layout", self.layouts, LAYOUTS),
        ):
            for name in received:
                if name not in known:
                    raise ConfigError(allowed(kind, name, known))


@dataclass(frozen=True)
class KnownFailure:
    """A violation that is understood and recorded: it is reported, but does not fail a run.

    It covers one observable of one requirement, in all dtypes or in those given, on the cases that ``where`` accepts
    (all by default); ``reason`` says why. A known failure that no longer fails does fail the run.
    """

    requirement: str
    observable: str
    reason: str
    dtypes: tuple[str, ...] = ()
    where: Callable[[Case], bool] = lambda _: True

    def concerns(self, dtype: str) -> bool:
        """Whether the failure is expected in a dtype."""
        return not self.dtypes or dtype in self.dtypes

    def covers(self, observable: str, case: Case) -> bool:
        """Whether a discrepancy of an observable on a case is this failure."""
        return self.observable == observable and self.concerns(case.config.dtype) and self.where(case)


class Layer(Protocol):
    """One BatchNorm2d under test, built in training mode. Tensors are native, the state is NumPy's."""

    def train(self, mode: bool) -> object:
        """Switch to training mode (True) or eval mode (False)."""

    def forward(self, x: Native) -> Native:
        """Return the output for one batch (N, C, H, W)."""

    def state(self) -> State:
        """Return copies of the five tensors as NumPy arrays; None for those that do not exist."""

    def reset_running_stats(self) -> object:
        """Reset running_mean, running_var and num_batches_tracked."""

    def reset_parameters(self) -> object:
        """Reset weight and bias, and the running statistics."""


@runtime_checkable
class Backend(Protocol):
    """An adapter to one implementation."""

    @property
    def name(self) -> str:
        """Appears in test ids: letters, digits, '-', '_' and '.'."""

    @property
    def description(self) -> str:
        """Version and device, for people."""

    @property
    def capabilities(self) -> Capabilities:
        """What the backend claims."""

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer; with a state, load it (copied)."""

    def to_native(self, array: Array) -> Native:
        """Move an array in, keeping its strides."""

    def to_numpy(self, tensor: Native) -> Array:
        """Move a tensor out, keeping its strides."""


def known_failures(backend: Backend) -> tuple[KnownFailure, ...]:
    """Return the known failures that a backend declares in its optional attribute ``known_failures``."""
    return tuple(getattr(backend, "known_failures", ()))


ForwardTraining: TypeAlias = Callable[..., tuple[Native, Native | None, Native | None]]
ForwardInference: TypeAlias = Callable[..., Native]


def kernel_backend(
    name: str,
    forward_training: ForwardTraining,
    forward_inference: ForwardInference | None = None,
    *,
    capabilities: Capabilities | None = None,
    description: str = "kernel functions",
    to_native: Callable[[Array], Native] = np.asarray,
    to_numpy: Callable[[Native], Array] = np.asarray,
) -> Backend:
    """Make a backend of plain kernel functions; mode, counter, momentum and resets are kept for them.

    Args:
        name: of the backend.
        forward_training: ``(x, weight, bias, running_mean, running_var, momentum, eps)`` to
            ``(y, running_mean, running_var)``: x and y (N, C, H, W), the others (C,) or None where they do not
            exist, momentum the weight of the new value, already 1 / k for a cumulative mean.
        forward_inference: ``(x, weight, bias, running_mean, running_var, eps)`` to ``y``. Without it, eval
            mode is not claimed.
        capabilities: what the kernels claim; the defaults of :class:`Capabilities` otherwise.
        description: version and device, for people.
        to_native: moves an array in, strides kept.
        to_numpy: moves a tensor out, strides kept.

    """
    claims = capabilities or Capabilities(inference=forward_inference is not None)
    if claims.inference and forward_inference is None:
        raise ConfigError(f"{name} claims inference but has no forward_inference; give one, or claim less")
    return _KernelBackend(name, description, claims, forward_training, forward_inference, to_native, to_numpy)


@dataclass(frozen=True)
class _KernelBackend:
    name: str
    description: str
    capabilities: Capabilities
    forward_training: ForwardTraining
    forward_inference: ForwardInference | None
    to_native: Callable[[Array], Native]
    to_numpy: Callable[[Native], Array]

    def layer(self, config: Config, state: State | None) -> Layer:
        return _KernelLayer(self, config, (state or initial_state(config)).copy())


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
        def moved(array: Array | None) -> Native | None:
            return None if array is None else self.backend.to_native(array)

        self.counter = state.num_batches_tracked
        self.tensors = {name: moved(a) for name, a in state.items() if name != "num_batches_tracked"}

    def train(self, mode: bool) -> None:
        self.training = mode

    def forward(self, x: Native) -> Native:
        tensors, eps = self.tensors, self.config.eps
        if not self.training and self.config.track_running_stats:
            if self.backend.forward_inference is None:
                raise NotImplementedError(f"{self.backend.name} has no forward_inference")
            return self.backend.forward_inference(x, **tensors, eps=eps)
        tracked = None if self.counter is None else self.counter + 1
        momentum = 1 / int(tracked or 1) if self.config.momentum is None else self.config.momentum
        y, mean, var = self.backend.forward_training(x, **tensors, momentum=momentum, eps=eps)
        if tracked is not None:
            self.counter = np.asarray(tracked)
            tensors |= {"running_mean": mean, "running_var": var}
        return y

    def state(self) -> State:
        def moved(tensor: Native | None) -> Array | None:
            return None if tensor is None else np.array(self.backend.to_numpy(tensor))

        tensors = {name: moved(tensor) for name, tensor in self.tensors.items()}
        return State(**tensors, num_batches_tracked=None if self.counter is None else self.counter.copy())

    def reset_running_stats(self) -> None:
        fresh = dict(initial_state(self.config).items())
        now = self.state()
        self._hold(State(**fresh | {"weight": now.weight, "bias": now.bias}))

    def reset_parameters(self) -> None:
        self._hold(initial_state(self.config))
