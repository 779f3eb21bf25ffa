"""The conventions that the adapters to ONNX and ONNX Runtime declare.

Expected numbers are worked out by hand.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from bn_spec.backend.contract import Backend
from bn_spec.case.config import Config
from bn_spec.case.dtypes import Array

pytest.importorskip("onnx", reason="onnx is an extra")


@pytest.fixture(params=["onnx:reference", "onnxruntime:cpu"])
def backend(request: pytest.FixtureRequest) -> Backend:
    name, _, attribute = request.param.partition(":")
    pytest.importorskip(name, reason="ONNX Runtime is an extra")
    found: Backend = getattr(import_module(f"bn_spec.backend.adapters.{name}"), attribute)()
    return found


def trained(
    backend: Backend, values: list[float], dtype: str, **arguments: Any
) -> tuple[Array, float, float]:
    """Return output and running statistics of a new layer after a batch of one channel."""
    config = Config(1, dtype=dtype, **arguments)
    layer = backend.layer(config, None)
    y = layer.forward(np.array(values, config.arithmetic.data.dtype).reshape(-1, 1, 1, 1))
    mean, var = layer.state().running_mean, layer.state().running_var
    assert mean is not None
    assert var is not None
    return y.ravel(), float(mean[0]), float(var[0])


def test_momentum_weighs_the_old_value_and_running_var_is_biased(backend: Backend) -> None:
    _, mean, var = trained(backend, [0, 4], "float32", momentum=0.25)
    assert mean == 0.25 * 2
    assert var == 0.75 + 0.25 * 4


def test_eps_and_momentum_are_rounded_to_float32(backend: Backend) -> None:
    y, mean, _ = trained(backend, [3, 3, 5, 5], "float64", eps=0.1, momentum=0.1)
    assert y[3] == pytest.approx(1 / np.sqrt(1 + float(np.float32(0.1))), rel=1e-15)
    assert mean == pytest.approx(4 * (1 - float(np.float32(0.9))), rel=1e-15)


def test_a_single_value_has_a_variance_of_zero(backend: Backend) -> None:
    y, mean, var = trained(backend, [3], "float32", momentum=1.0)
    assert y == 0
    assert (mean, var) == (3, 0)


# NumPy warns of a mean of no values.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_batch_without_samples_makes_running_statistics_nan(backend: Backend) -> None:
    y, mean, var = trained(backend, [], "float32")
    assert y.size == 0
    assert np.isnan([mean, var]).all()


def test_a_constant_channel_gives_zeros_for_the_smallest_and_the_largest_eps(
    backend: Backend,
) -> None:
    for eps in backend.capabilities.dialect.eps_range:
        assert not trained(backend, [3, 3], "float32", eps=eps)[0].any()


def test_inputs_are_taken_in_any_strides(backend: Backend) -> None:
    x = np.arange(16.0, dtype="float32").reshape(2, 2, 2, 2).transpose(3, 1, 0, 2)[:, :, ::-1]
    layer = backend.layer(Config(2), None)
    np.testing.assert_array_equal(layer.forward(x), layer.forward(x.copy()))
