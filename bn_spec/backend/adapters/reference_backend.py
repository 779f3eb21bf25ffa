"""The reference as a backend. The suite must find nothing when it judges its own reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from bn_spec import __version__
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import DoubleGradients, Gradients, Layer
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import DIFFERENTIABLE
from bn_spec.oracle.reference import BatchNorm2d, ForwardRecord

_Recorded: TypeAlias = tuple[ForwardRecord, tuple[str, ...]]
"""The record of a forward, and the names of the gradients that a backward may ask of it."""


class _Layer:
    def __init__(self, layer: BatchNorm2d) -> None:
        self.layer = layer
        self.train = layer.train
        self.forward = layer
        self.reset_running_stats = layer.reset_running_stats
        self.reset_parameters = layer.reset_parameters
        self.save = layer.state_dict
        self.fold = layer.fold

    def record(self, x: Array, wrt: tuple[str, ...]) -> tuple[Array, _Recorded]:
        y, record = self.layer.record(x)
        return y, (record, wrt)

    def backward(self, record: _Recorded, dy: Array) -> Gradients:
        forward, wrt = record
        gradients = zip(DIFFERENTIABLE, self.layer.backward(forward, dy), strict=True)
        return Gradients(**{name: gradient for name, gradient in gradients if name in wrt})

    def double_backward(
        self, record: _Recorded, dy: Array, cotangents: Gradients
    ) -> DoubleGradients:
        forward, _ = record
        return DoubleGradients(*self.layer.double_backward(forward, dy, *cotangents))

    def state(self) -> State:
        return State(**self.layer.state_dict())

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        self.layer.load_state_dict(tensors, strict)

    def configure(self, name: str, value: float | None) -> None:
        self.layer.config = self.layer.config.changed(name, value)


class Reference:
    """bn-spec's own BatchNorm2d."""

    name = "reference"
    description = f"bn-spec {__version__}, double-double arithmetic"
    capabilities = Capabilities(
        dtypes=tuple(DTYPES),
        grade="two-pass",
        centred_products=True,
        overflow_safe=True,
        gradients=True,
        double_backward=tuple(DTYPES),
        checkpoints=True,
        live_attributes=True,
        empty_batch=True,
        deterministic=True,
        threads=True,
        folding=True,
    )

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a reference layer."""
        layer = BatchNorm2d(config.num_features, dtype=config.dtype, **config.departures())
        if state is not None:
            layer.load_state_dict(state.tensors())
        return _Layer(layer)

    def to_native(self, array: Array) -> Array:
        """Return the array itself: NumPy arrays are native."""
        return array

    def to_numpy(self, tensor: Array) -> Array:
        """Return the array itself: NumPy arrays are native."""
        return np.asarray(tensor)


reference = Reference()
"""The reference backend, as the registry loads it."""
