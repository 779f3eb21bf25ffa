"""The conventions that the adapter to TensorFlow's FusedBatchNormV3 declares.

Expected numbers are worked out by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Case, Config, State, check
from bn_spec.backend.known_failure import known_failures
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Eval, Forward, Set

tf = pytest.importorskip("tensorflow", reason="TensorFlow is an extra")

from bn_spec.backend.adapters import tensorflow as adapter  # noqa: E402 - it needs TensorFlow

BACKENDS = (adapter.nhwc, adapter.nchw, adapter.xla_nhwc, adapter.xla_nchw)
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


def batch(*numbers: float, dtype: Any = np.float32) -> Array:
    """Return one channel of these numbers, a sample each."""
    return np.array(numbers, dtype).reshape(-1, 1, 1, 1)


def state_with(mean: float, var: float) -> State:
    """Return a state of one channel with weight 1 and bias 0."""
    weight, bias, running_mean, running_var = (
        np.array([number], np.float32) for number in (1, 0, mean, var)
    )
    return State(weight, bias, running_mean, running_var, np.zeros((), np.int64))


def after(backend: Backend, x: Array, **config: Any) -> tuple[float, float]:
    """Return running mean and variance after a batch; before it they are 10 and 20."""
    layer = backend.layer(Config(1, **config), state_with(10, 20))
    layer.forward(backend.to_native(x))
    state = layer.state()
    assert state.running_mean is not None
    assert state.running_var is not None
    return float(state.running_mean[0]), float(state.running_var[0])


@each_backend
def test_the_factor_weighs_the_new_value_and_the_variance_is_unbiased(backend: Backend) -> None:
    assert after(backend, batch(1, 2, 3, 6), momentum=0.25) == pytest.approx(
        (0.75 * 10 + 0.25 * 3, 15 + 14 / 12)
    )
    assert after(backend, batch(1, 2, 3, 6), momentum=1.0) == pytest.approx((3, 14 / 3))
    assert after(backend, batch(1, 2, 3, 6), momentum=0.0) == (10, 20)


@each_backend
def test_a_single_value_has_a_variance_of_zero(backend: Backend) -> None:
    assert after(backend, batch(3), momentum=0.25) == (8.25, 15)


@each_backend
@pytest.mark.parametrize("eps", [1e-20, 1e-12, 1e-3, 3.0])
def test_any_eps_is_taken(backend: Backend, eps: float) -> None:
    forward = Forward(batch(0, 2))
    built = Case(Config(1, eps=eps), state_with(0, 1), (forward, Eval(), forward))
    assert not check(built, backend)
    changed = Case(Config(1), None, (forward, Set("eps", eps), forward))
    assert not check(changed, backend)


@each_backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parameters_of_half_precision_data_are_in_float32(backend: Backend, dtype: str) -> None:
    config = Config(1, dtype=f"mixed_{dtype}")
    layer = backend.layer(config, None)
    x = batch(0, 2).astype(config.arithmetic.data.dtype)
    y = layer.forward(backend.to_native(x))
    assert backend.to_numpy(y).dtype.name == dtype
    tensors = layer.state().tensors()
    assert tensors["weight"].dtype == tensors["running_var"].dtype == np.float32


@pytest.mark.parametrize("backend", BACKENDS[2:], ids=lambda backend: backend.name)
def test_compiled_by_xla_a_constant_channel_has_a_negative_variance(backend: Backend) -> None:
    case = Case(Config(1, eps=1e-3), None, (Forward(np.full((4, 1, 5, 7), 100.125, np.float32)),))
    found = {discrepancy.observable for discrepancy in check(case, backend)}
    assert "output" in found
    for observable in found:
        assert any(known.covers(observable, case) for known in known_failures(backend))


def test_eagerly_a_constant_channel_has_no_negative_variance() -> None:
    case = Case(Config(1, eps=1e-3), None, (Forward(np.full((4, 1, 5, 7), 100.125, np.float32)),))
    assert not check(case, adapter.nhwc)
