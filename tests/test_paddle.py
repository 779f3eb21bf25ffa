"""The conventions of PaddlePaddle's BatchNorm2D that its adapter declares, on numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("paddle")

from bn_spec.backends import paddle as adapter
from bn_spec.config import Config, State

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # its layers warn whenever they train

BACKENDS = [adapter.nchw(), adapter.nhwc()]
X = np.array([0.0, 1.0, 5.0], np.float32).reshape(3, 1, 1, 1)
"""Mean 2, biased variance 14/3, unbiased 7."""


def _layer(backend: Any, momentum: float = 0.25, **tensors: float) -> Any:
    values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0} | tensors
    arrays = {name: np.array([value], np.float32) for name, value in values.items()}
    state = State(**arrays, num_batches_tracked=np.array(0))
    return backend.layer(Config(1, momentum=momentum), state)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
class TestConventions:
    def test_running_statistics_move_by_momentum(self, backend: Any) -> None:
        layer = _layer(backend)
        layer.forward(backend.to_native(X))
        assert layer.state().running_mean == pytest.approx([0.5])
        assert layer.state().running_var == pytest.approx([0.75 + 0.25 * 14 / 3])

    def test_the_biased_variance_normalises(self, backend: Any) -> None:
        y = backend.to_numpy(_layer(backend, weight=2.0, bias=1.0).forward(backend.to_native(X)))
        assert y.ravel() == pytest.approx(1 + 2 * (X.ravel() - 2) / (14 / 3) ** 0.5, rel=1e-4)

    def test_eval_uses_the_running_statistics(self, backend: Any) -> None:
        layer = _layer(backend, running_mean=1.0, running_var=4.0)
        layer.train(False)
        assert backend.to_numpy(layer.forward(backend.to_native(X))).ravel() == pytest.approx([-0.5, 0, 2], abs=1e-5)

    def test_gradients_of_an_eval_forward(self, backend: Any) -> None:
        layer = _layer(backend, weight=2.0, running_mean=1.0, running_var=4.0)
        layer.train(False)
        _, record = layer.record(backend.to_native(X), ("input", "weight", "bias"))
        given = [backend.to_numpy(g).ravel() for g in layer.backward(record, backend.to_native(np.ones_like(X)))]
        for got, expected in zip(given, ([1, 1, 1], [1.5], [3]), strict=True):
            assert got == pytest.approx(expected, rel=1e-4)

    def test_eps_is_held_in_float32(self, backend: Any) -> None:
        x = X.astype(np.float64)
        y = backend.to_numpy(backend.layer(Config(1, dtype="float64"), None).forward(backend.to_native(x)))
        assert y.ravel() == pytest.approx((x.ravel() - 2) / (14 / 3 + float(np.float32(1e-5))) ** 0.5, rel=1e-15)

    def test_a_single_value_is_answered(self, backend: Any) -> None:
        layer = _layer(backend)
        layer.forward(backend.to_native(X[2:]))
        assert layer.state().running_mean == [0.0]
