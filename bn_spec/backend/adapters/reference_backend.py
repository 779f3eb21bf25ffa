"""The reference as a backend: the suite judged by itself must find nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bn_spec import __version__
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import DoubleGradients, Gradients, Layer
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import DIFFERENTIABLE
from bn_spec.oracle.reference import BatchNorm2d, ForwardRecord


class _Layer:
    def __init__(self, layer: BatchNorm2d) -> None:
        self.layer = layer
        self.train, self.forward = layer.train, layer
        self.reset_running_stats, self.reset_parameters = (
            layer.reset_running_stats,
            layer.reset_parameters,
        )
        self.save, self.fold = layer.state_dict, layer.fold

    def record(
        self, x: Array, wrt: tuple[str, ...]
    ) -> tuple[Array, tuple[ForwardRecord, tuple[str, ...]]]:
        y, record = self.layer.record(x)
        return y, (record, wrt)

    def backward(self, record: tuple[ForwardRecord, tuple[str, ...]], dy: Array) -> Gradients:
        gradients = zip(DIFFERENTIABLE, self.layer.backward(record[0], dy), strict=True)
        return Gradients(**{name: gradient for name, gradient in gradients if name in record[1]})

    def double_backward(
        self, record: tuple[ForwardRecord, tuple[str, ...]], dy: Array, cotangents: Gradients
    ) -> DoubleGradients:
        return DoubleGradients(*self.layer.double_backward(record[0], dy, *cotangents))

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
        """NumPy arrays are native."""
        return array

    def to_numpy(self, tensor: Array) -> Array:
        """NumPy arrays are native."""
        return np.asarray(tensor)


reference = Reference()
