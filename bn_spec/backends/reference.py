"""The reference as a backend: the suite judged by itself must find nothing."""

from __future__ import annotations

import numpy as np

from .._version import __version__
from ..backend import Capabilities, Layer
from ..config import Config, State
from ..dtypes import DTYPES, Array
from ..reference import BatchNorm2d


class _Layer(BatchNorm2d):
    def forward(self, x: Array) -> Array:
        return self(x)

    def state(self) -> State:
        return State(**self.state_dict())


class Reference:
    """bn-spec's own BatchNorm2d."""

    name = "reference"
    description = f"bn-spec {__version__}, double-double arithmetic"
    capabilities = Capabilities(dtypes=tuple(DTYPES), grade="two-pass", overflow_safe=True)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a reference layer."""
        layer = _Layer(config.num_features, dtype=config.dtype, **config.departures())
        if state is not None:
            layer.load_state_dict({name: a for name, a in state.items() if a is not None})
        return layer

    def to_native(self, array: Array) -> Array:
        """NumPy arrays are native."""
        return array

    def to_numpy(self, tensor: Array) -> Array:
        """NumPy arrays are native."""
        return np.asarray(tensor)


reference = Reference()
