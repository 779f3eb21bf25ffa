"""The conventions that the adapter to tinygrad's BatchNorm declares.

Expected numbers are worked out by hand.
"""

from typing import Any

import pytest

pytest.importorskip("tinygrad")

from bn_spec.backend.adapters import tinygrad as adapter
from bn_spec.errors import UnavailableBackend
from tests.conventions import Conventions, X, layer_of

try:
    BACKENDS = [adapter.backend()]
except UnavailableBackend as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
class TestConventions(Conventions):
    running_var = 2.5

    def test_a_compiled_call_returns_a_new_result_each_time(self, backend: Any) -> None:
        layer = layer_of(backend)
        results = [layer.forward(backend.to_native(X + k)) for k in range(4)]
        for y in results:
            assert y.ravel() == pytest.approx((X.ravel() - 2) / (14 / 3) ** 0.5, rel=1e-4)
