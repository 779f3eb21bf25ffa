"""The conventions that the adapter to MLX's BatchNorm declares, on numbers worked out by hand."""

from typing import Any

import pytest

pytest.importorskip("mlx.core")

from bn_spec.backend.adapters import mlx as adapter
from tests.conventions import Conventions, X, layer_of

BACKENDS = [adapter.backend()]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
class TestConventions(Conventions):
    running_var = 2.5

    def test_a_single_value_is_refused(self, backend: Any) -> None:
        with pytest.raises(ValueError, match="more than one value"):
            layer_of(backend).forward(backend.to_native(X[:1]))
