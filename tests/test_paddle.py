"""The conventions that the adapter to PaddlePaddle's BatchNorm2D declares.

Expected numbers are worked out by hand.
"""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("paddle")

from bn_spec.backend.adapters import paddle as adapter
from bn_spec.case.config import Config
from tests.conventions import Conventions, X, layer_of

# PaddlePaddle's layers warn whenever they train.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

BACKENDS = [adapter.nchw(), adapter.nhwc()]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
class TestConventions(Conventions):
    running_var = 0.75 + 0.25 * 14 / 3

    def test_eps_is_rounded_to_float32(self, backend: Any) -> None:
        x = X.astype(np.float64)
        layer = backend.layer(Config(1, dtype="float64"), None)
        y = backend.to_numpy(layer.forward(backend.to_native(x)))
        eps = float(np.float32(1e-5))
        assert y.ravel() == pytest.approx((x.ravel() - 2) / (14 / 3 + eps) ** 0.5, rel=1e-15)

    def test_a_single_value_is_answered(self, backend: Any) -> None:
        layer = layer_of(backend)
        layer.forward(backend.to_native(X[2:]))
        assert layer.state().running_mean == [0.0]
