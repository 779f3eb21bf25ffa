"""The backend contract: how an implementation is put under test, and what it claims.

Three protocols, checked when a backend is loaded and when it answers, and nowhere else; nothing has to be
subclassed. Kernel authors who have functions and no layer use :func:`kernel_backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from .bounds import Accuracy
from .case import Case
from .config import Config, State, initial_state
from .dialect import PYTORCH
from .dtypes import DTYPES, Array
from .errors import ConfigError, allowed
from .memory import private_copy

Native: TypeAlias = Any
"""A tensor of the backend's own kind."""

LAYOUTS = (
    "contiguous",
    "channels_last",
    "permuted",
    "sliced",
    "cropped",
    "split",
    "ambiguous",
    "expanded",
)
"""Memory layouts of an input (N, C, H, W): C order, NHWC order, WHCN order, every second element of a row, the
interior of larger planes (rows are contiguous, planes are not), the first channels of a wider tensor (planes are
contiguous, samples are not), C order with odd strides for axes of length 1 (which no address depends on), one sample
that stands for all (its stride is 0)."""


_COSTS = ("expensive_signatures",)


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
    gradients: bool = False
    """Has a backward pass: its layers have ``record`` and ``backward``."""
    gradient_layout: bool = False
    """The gradient of an input in NCHW or NHWC order is in the same order."""
    double_backward: tuple[str, ...] = ()
    """Dtypes in which the backward pass can be differentiated: layers have ``double_backward``."""
    expensive_signatures: bool = False
    """Each new shape, layout, eps, momentum or set of gradients costs seconds: values are drawn over few of them."""
    output_layout: bool = False
    """The output for an input in NCHW or NHWC order is in the same order."""
    strided_state: bool = False
    """Layers are built on the tensors of a state as they lie in memory, with whatever strides."""
    checkpoints: bool = False
    """Layers have ``save`` and ``load``."""
    live_attributes: bool = False
    """eps and momentum of a layer can be changed: layers have ``configure``."""
    empty_batch: bool = False
    """Answers a batch without samples, or without pixels, with an output as empty."""
    deterministic: bool = False
    """The same case gives the same bits, on this layer or on another."""
    threads: bool = False
    """Layers can be driven from several threads at a time, each by one of them."""
    folding: bool = False
    """Layers can be folded into a convolution before them: they have ``fold``."""
    input_checks: bool = True
    """Rejects inputs of wrong rank, wrong channel count, and a single value per channel."""
    unbiased: bool = True
    """Rounds to nearest everywhere, so that errors are as often too large as too small."""

    @property
    def answers_single_values(self) -> bool:
        """Whether its dialect answers a single value per channel in training."""
        return self.dialect.single_value == "answered"

    @property
    def normalises_by_batch(self) -> bool:
        """Whether the statistics of the batch normalise in training, in its dialect."""
        return self.dialect.training_output == PYTORCH.training_output

    @property
    def momentum_zero(self) -> bool:
        """Whether momentum 0 keeps running statistics as they are, in its dialect."""
        return self.dialect.averages == PYTORCH.averages

    @property
    def refuses_single_values(self) -> bool:
        """Whether it checks its inputs, and its dialect refuses a single value per channel in training."""
        return self.input_checks and not self.answers_single_values

    def has(self, flag: str, dtype: str) -> bool:
        """Whether a flag is claimed in a dtype; those that list dtypes are claimed in these."""
        claim = getattr(self, flag)
        return dtype in claim if isinstance(claim, tuple) else bool(claim)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradients and not self.normalises_by_batch:
            raise ConfigError(
                "gradients are claimed of a layer whose running statistics normalise in training; allowed:"
                " none, since there is no reference for them"
            )
        for kind, received, known in (
            ("dtype", self.dtypes, tuple(DTYPES)),
            ("dtype with a double backward", self.double_backward, self.dtypes),
            ("layout", self.layouts, LAYOUTS),
        ):
            for name in received:
                if name not in known:
                    raise ConfigError(allowed(kind, name, known))


_FLAGS: dict[str, Any] = {f.name: True for f in fields(Capabilities) if f.type == "bool" and f.name not in _COSTS}

EVERYTHING = Capabilities(dtypes=tuple(DTYPES), double_backward=tuple(DTYPES), **_FLAGS)
"""All that can be claimed of an operator."""


@dataclass(frozen=True)
class KnownFailure:
    """A violation that is understood and recorded: it is reported, but does not fail a run.

    It covers an observable of a requirement (or several, as in ``GRD-*`` and ``grad_*``), in all dtypes or in those
    given, on the cases that ``where`` accepts (all by default); ``reason`` says why. A known failure of a single
    requirement that no longer fails, on any of many such cases, does fail the run.
    """

    requirement: str
    observable: str
    reason: str
    dtypes: tuple[str, ...] = ()
    where: Callable[[Case], bool] = lambda _: True

    def concerns(self, requirement: str, dtype: str) -> bool:
        """Whether the failure is expected of a requirement in a dtype."""
        return fnmatchcase(requirement, self.requirement) and (not self.dtypes or dtype in self.dtypes)

    def covers(self, observable: str, case: Case) -> bool:
        """Whether a discrepancy of an observable on a case of such a requirement and dtype is this failure."""
        return fnmatchcase(observable, self.observable) and self.where(case)


class Gradients(NamedTuple):
    """Gradients with respect to the input (N, C, H, W), weight and bias (C,); None for what was not asked."""

    input: Native = None
    weight: Native = None
    bias: Native = None


class DoubleGradients(NamedTuple):
    """Gradients of gradients, with respect to dy and the input (N, C, H, W), and the weight (C,), if there is one."""

    dy: Native
    input: Native
    weight: Native = None


GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
"""What people call the parts of :class:`Gradients`."""

DOUBLE_GRADIENTS = ("double_dy", "double_input", "double_weight")
"""What people call the parts of :class:`DoubleGradients`."""

FOLDED = ("folded_weight", "folded_bias")
"""What people call the parameters of a convolution into which a layer was folded."""


class Layer(Protocol):
    """One BatchNorm2d under test, built in training mode. Tensors are native, the state is NumPy's.

    A layer whose backend claims gradients also has the methods of :class:`DifferentiableLayer`; those of
    :class:`StoredLayer`, :class:`LiveLayer` and :class:`FoldableLayer` go with other claims.
    """

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


class DifferentiableLayer(Layer, Protocol):
    """A layer with a backward pass. A record is whatever the layer wants to remember of one forward."""

    def record(self, x: Native, wrt: tuple[str, ...]) -> tuple[Native, Any]:
        """Return the output and a record; ``wrt`` are those of input, weight and bias that require a gradient."""

    def backward(self, record: Any, dy: Native) -> Gradients:
        """Return the gradients of Σ dy · y; for any record, as often as it is asked."""

    def double_backward(self, record: Any, dy: Native, cotangents: Gradients) -> DoubleGradients:
        """Return the gradients of Σ of the products of cotangents and gradients. Where claimed."""


class StoredLayer(Layer, Protocol):
    """A layer with checkpoints: its tensors by the names of :data:`bn_spec.config.STATE_FIELDS`."""

    def save(self) -> Mapping[str, Native]:
        """Return copies of all tensors, for later: what the layer does from here on leaves them alone."""

    def load(self, tensors: Mapping[str, Native], *, strict: bool) -> object:
        """Take copies of the tensors; with ``strict``, raise unless they are all, and those alone, that it has."""


class LiveLayer(Layer, Protocol):
    """A layer that can be changed after it is built."""

    def configure(self, name: str, value: float | None) -> object:
        """Set ``eps`` or ``momentum`` for the calls that follow."""


class FoldableLayer(Layer, Protocol):
    """A layer that can be folded, as it is in eval mode, into a convolution before it."""

    def fold(self, weight: Native, bias: Native | None) -> tuple[Native, Native]:
        """Return weight (C, I, h, w) and bias (C,) of a convolution that does what both do; nothing changes."""


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


class Deputy:
    """Stands for a backend, and is in all things as it is but for those that a subclass does otherwise."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def name(self) -> str:
        """That of the backend."""
        return self.backend.name

    @property
    def description(self) -> str:
        """That of the backend."""
        return self.backend.description

    @property
    def capabilities(self) -> Capabilities:
        """What the backend claims."""
        return self.backend.capabilities

    @property
    def known_failures(self) -> tuple[KnownFailure, ...]:
        """Those that the backend declares."""
        return known_failures(self.backend)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer of the backend."""
        return self.backend.layer(config, state)

    def to_native(self, array: Array) -> Native:
        """Move an array in as the backend does."""
        return self.backend.to_native(array)

    def to_numpy(self, tensor: Native) -> Array:
        """Move a tensor out as the backend does."""
        return self.backend.to_numpy(tensor)


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
            ``(y, running_mean, running_var)``: x and y (N, C, H, W), the others (C,) or None where they do not
            exist, momentum the weight of the new value, already 1 / k for a cumulative mean. A fourth value, of any
            kind, is saved for the backward. Where averages are not from the initial value, it also gets ``batches``,
            their number with this one.
        forward_inference: ``(x, weight, bias, running_mean, running_var, eps)`` to ``y``. Without it, eval
            mode is not claimed.
        backward: ``(dy, x, weight, bias, running_mean, running_var, eps, training, saved, wrt)`` to
            ``(dx, dweight, dbias)``: the arguments of the forward, running statistics as they were in it (only
            ``training=False`` needs them), ``saved`` the fourth value of forward_training or None, ``wrt`` those of
            "input", "weight" and "bias" whose gradient is asked; None for the others. Without it, gradients are not
            claimed.
        capabilities: what the kernels claim; the defaults of :class:`Capabilities` otherwise. Checkpoints and
            attributes that can be changed are kept here, and so claimed whatever it says.
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
        raise ConfigError(f"{name} claims inference but has no forward_inference; give one, or claim less")
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
        self.tensors = {name: self._moved(a) for name, a in state.items() if name != "num_batches_tracked"}

    def _moved(self, array: Array | None) -> Native | None:
        return None if array is None else self.backend.to_native(private_copy(array))

    def train(self, mode: bool) -> None:
        self.training = mode

    def forward(self, x: Native) -> Native:
        return self._forward(x)[0]

    def record(self, x: Native, wrt: tuple[str, ...]) -> tuple[Native, dict[str, Any]]:
        # A kernel may update its running statistics in place; a backward needs them as they were.
        held = {name: self._moved(a) for name, a in self.state().items() if name != "num_batches_tracked"}
        y, saved, training = self._forward(x)
        return y, {"x": x, **held, "eps": self.config.eps, "training": training, "saved": saved, "wrt": wrt}

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
        return State(**tensors, num_batches_tracked=None if self.counter is None else self.counter.copy())

    def save(self) -> dict[str, Native]:
        return {name: self.backend.to_native(a) for name, a in self.state().tensors().items()}

    def load(self, tensors: Mapping[str, Native], *, strict: bool) -> None:
        own = self.state().tensors()
        if strict and own.keys() != tensors.keys():
            raise ValueError(f"expected {', '.join(own)}; got {', '.join(tensors)}")
        given = {name: np.array(self.backend.to_numpy(tensors[name])) for name in own if name in tensors}
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
