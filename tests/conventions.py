"""What adapters of one layer are asked alike, on numbers that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bn_spec.case.config import Config, State

X = np.array([0.0, 1.0, 5.0], np.float32).reshape(3, 1, 1, 1)
"""Mean 2, biased variance 14/3, unbiased 7."""


def layer_of(backend: Any, momentum: float = 0.25, **tensors: float) -> Any:
    """Build a layer of one channel, as PyTorch builds it but for some tensors."""
    values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0} | tensors
    arrays = {name: np.array([value], np.float32) for name, value in values.items()}
    state = State(**arrays, num_batches_tracked=np.array(0))
    return backend.layer(Config(1, momentum=momentum), state)


class Conventions:
    """Tests of a class of these are parametrised with the ``backend``."""

    running_var: float
    """After a batch of X with momentum 0.25, from 1: what its estimator makes of it."""

    def test_running_statistics_move_by_momentum(self, backend: Any) -> None:
        layer = layer_of(backend)
        layer.forward(backend.to_native(X))
        assert layer.state().running_mean == pytest.approx([0.5])
        assert layer.state().running_var == pytest.approx([self.running_var])

    def test_the_biased_variance_normalises(self, backend: Any) -> None:
        y = backend.to_numpy(layer_of(backend, weight=2.0, bias=1.0).forward(backend.to_native(X)))
        assert y.ravel() == pytest.approx(1 + 2 * (X.ravel() - 2) / (14 / 3) ** 0.5, rel=1e-4)

    def test_eval_uses_the_running_statistics(self, backend: Any) -> None:
        layer = layer_of(backend, running_mean=1.0, running_var=4.0)
        layer.train(False)
        assert backend.to_numpy(layer.forward(backend.to_native(X))).ravel() == pytest.approx(
            [-0.5, 0, 2], abs=1e-5
        )

    def test_gradients_of_an_eval_forward(self, backend: Any) -> None:
        layer = layer_of(backend, weight=2.0, running_mean=1.0, running_var=4.0)
        layer.train(False)
        _, record = layer.record(backend.to_native(X), ("input", "weight", "bias"))
        given = [
            backend.to_numpy(g).ravel()
            for g in layer.backward(record, backend.to_native(np.ones_like(X)))
        ]
        for got, expected in zip(given, ([1, 1, 1], [1.5], [3]), strict=True):
            assert got == pytest.approx(expected, rel=1e-4)
