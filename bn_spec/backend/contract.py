"""The backend contract: how an implementation is put under test.

Three protocols, checked when a backend is loaded and when it answers, and nowhere else; nothing has
to be subclassed. Kernel authors who have functions and no layer use
:func:`bn_spec.backend.kernel_functions.kernel_backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from bn_spec.backend.claims import Capabilities
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array

Native: TypeAlias = Any
"""A tensor of the backend's own kind."""


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


class Layer(Protocol):
    """One BatchNorm2d under test, built in training mode. Tensors are native, the state is NumPy's.

    A layer whose backend claims gradients also has the methods of :class:`DifferentiableLayer`;
    those of :class:`StoredLayer`, :class:`LiveLayer` and :class:`FoldableLayer` go with other
    claims.
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
    """A layer with checkpoints: its tensors by the names of :data:`bn_spec.case.config.STATE_FIELDS`."""

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
