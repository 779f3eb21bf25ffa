"""The backend contract: what you implement to put your kernel under test.

You write two classes: a :class:`Backend` and its :class:`Layer`. The other protocols add methods to
a layer, one for each of several claims. You need not subclass anything. The suite checks the
contract when it loads a backend and when a layer answers.

If your kernel is a few functions without a layer, use
:func:`bn_spec.backend.kernel_functions.kernel_backend` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from bn_spec.backend.claims import Capabilities
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array

Native: TypeAlias = Any
"""A tensor of the class that the backend works with."""


class Gradients(NamedTuple):
    """Gradients, None for a tensor that requires none.

    Attributes:
        input: With respect to the input (N, C, H, W).
        weight: With respect to the weight (C,).
        bias: With respect to the bias (C,).

    """

    input: Native = None
    weight: Native = None
    bias: Native = None


class DoubleGradients(NamedTuple):
    """Gradients of gradients.

    Attributes:
        dy: With respect to the cotangent of the output (N, C, H, W).
        input: With respect to the input (N, C, H, W).
        weight: With respect to the weight (C,); None if the layer has none.

    """

    dy: Native
    input: Native
    weight: Native = None


class Layer(Protocol):
    """One BatchNorm2d under test, built in training mode.

    Inputs and outputs are native tensors; the state is made of NumPy arrays. Claims add methods:

    - ``gradients``: ``record`` and ``backward`` of :class:`DifferentiableLayer`;
    - ``double_backward``: its ``double_backward``;
    - ``checkpoints``: the methods of :class:`StoredLayer`;
    - ``live_attributes``: that of :class:`LiveLayer`;
    - ``folding``: that of :class:`FoldableLayer`.
    """

    def train(self, mode: bool) -> object:
        """Switch to training mode (True) or eval mode (False)."""

    def forward(self, x: Native) -> Native:
        """Return the output (N, C, H, W) for an input (N, C, H, W), in the current mode."""

    def state(self) -> State:
        """Return copies of the five tensors as NumPy arrays, None for those that do not exist."""

    def reset_running_stats(self) -> object:
        """Reset running_mean, running_var and num_batches_tracked."""

    def reset_parameters(self) -> object:
        """Reset weight and bias, the running statistics and num_batches_tracked."""


class DifferentiableLayer(Layer, Protocol):
    """A layer with a backward pass.

    A record is an object of your choice, with what a backward needs to know of one forward.
    """

    def record(self, x: Native, wrt: tuple[str, ...]) -> tuple[Native, Any]:
        """Do a forward, and return its output and a record.

        Args:
            x: The input (N, C, H, W).
            wrt: Those of "input", "weight" and "bias" that require a gradient.

        """

    def backward(self, record: Any, dy: Native) -> Gradients:
        """Return the gradients of Σ dy · y, where y is the output of the recorded forward.

        The suite can ask this of every record, in any order and more than once.
        """

    def double_backward(self, record: Any, dy: Native, cotangents: Gradients) -> DoubleGradients:
        """Return the gradients of Σ cotangent · gradient over the gradients of a backward.

        Only a layer whose backend claims ``double_backward`` needs this method.

        Args:
            record: The record of the forward.
            dy: The cotangent of its output (N, C, H, W).
            cotangents: The cotangents of the gradients that ``backward(record, dy)`` returns.

        """


class StoredLayer(Layer, Protocol):
    """A layer with checkpoints.

    A checkpoint has the tensors by the names of :data:`bn_spec.case.config.STATE_FIELDS`.
    """

    def save(self) -> Mapping[str, Native]:
        """Return copies of all tensors, which later calls of the layer leave as they are."""

    def load(self, tensors: Mapping[str, Native], *, strict: bool) -> object:
        """Copy tensors into the layer.

        With ``strict``, raise an exception unless they are exactly the tensors of the layer.
        Otherwise, the layer keeps those that are missing.
        """


class LiveLayer(Layer, Protocol):
    """A layer whose attributes can be set after it is built."""

    def configure(self, name: str, value: float | None) -> object:
        """Set ``eps`` or ``momentum``, in PyTorch's terms, for all later calls."""


class FoldableLayer(Layer, Protocol):
    """A layer that can be folded, as it is in eval mode, into a convolution before it."""

    def fold(self, weight: Native, bias: Native | None) -> tuple[Native, Native]:
        """Return a convolution that computes what a convolution and then the layer compute.

        Neither the layer nor the arguments change.

        Args:
            weight: Weight of the convolution before the layer (C, I, h, w).
            bias: Its bias (C,), or None.

        Returns:
            Weight (C, I, h, w) and bias (C,) of the convolution that replaces both.

        """


@runtime_checkable
class Backend(Protocol):
    """An adapter to one implementation."""

    @property
    def name(self) -> str:
        """Name in test ids and reports: letters, digits, '-', '_' and '.'."""

    @property
    def description(self) -> str:
        """Version and device, as reports show them."""

    @property
    def capabilities(self) -> Capabilities:
        """The claims of the backend."""

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer, and copy the tensors of the state, if there is one, into it."""

    def to_native(self, array: Array) -> Native:
        """Return an array as a native tensor with the same strides."""

    def to_numpy(self, tensor: Native) -> Array:
        """Return a native tensor as a NumPy array with the same strides."""
