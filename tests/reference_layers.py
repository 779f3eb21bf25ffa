"""Reference layers and batches that the tests of the reference share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bn_spec import BatchNorm2d, Case
from bn_spec.case.arrays import same_bits
from bn_spec.case.dtypes import Array


def loaded(case: Case) -> BatchNorm2d:
    """Return the reference layer of a case, with the state of the case loaded."""
    layer = BatchNorm2d(
        case.config.num_features, **case.config.departures(), dtype=case.config.dtype
    )
    if case.state is not None:
        layer.load_state_dict({name: a for name, a in case.state.items() if a is not None})
    return layer


def batch(*numbers: float, dtype: str = "float32") -> Array:
    """Return numbers as a batch of one channel: one number per sample."""
    return np.array(numbers, dtype).reshape(-1, 1, 1, 1)


def assert_same_state(layer: BatchNorm2d, state: Mapping[str, Array]) -> None:
    now = layer.state_dict()
    assert now.keys() == state.keys()
    for name, tensor in state.items():
        assert same_bits(now[name], tensor), name


def used_layer(**arguments: Any) -> BatchNorm2d:
    """Return a layer of two channels, always the same; no tensor has its initial values."""
    layer = BatchNorm2d(2, **arguments)
    if layer.weight is not None and layer.bias is not None:
        layer.weight += 1
        layer.bias += 1
    layer(np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1))
    return layer
