"""The conventions of the layers of JAX's libraries, on numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bn_spec.backend.contract import Backend
from bn_spec.backend.registry import load
from bn_spec.case.config import Config, State, initial_state

for name in ("jax", "flax", "haiku", "equinox"):
    pytest.importorskip(name)

X = np.array([0, 2, 1, 5], np.float32).reshape(1, 2, 1, 2)  # means 1 and 3, variances 1 and 4


@pytest.fixture(
    params=[
        "flax-linen",
        "flax-linen-accurate",
        "flax-linen-promoted",
        "flax-nnx",
        "flax-nnx-accurate",
        "haiku",
        "equinox",
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    return load(request.param)


def answered(backend: Backend, config: Config, x: Any) -> tuple[Any, Any]:
    """Return the output and the state after a second batch."""
    layer = backend.layer(config, replace(initial_state(config), num_batches_tracked=np.array(1)))
    y = backend.to_numpy(layer.forward(backend.to_native(x)))
    return y, layer.state()


def test_channels_are_axis_1_and_the_variance_of_the_output_is_biased(backend: Backend) -> None:
    y, _ = answered(backend, Config(2, eps=1e-12), X)
    np.testing.assert_allclose(y.ravel(), [-1, 1, -1, 1], rtol=1e-6)


def test_momentum_weighs_the_new_value_and_running_var_is_biased(
    backend: Backend,
) -> None:
    _, state = answered(backend, Config(2, momentum=0.25), X)
    weight = weight_of_the_second(backend, 0.25)
    np.testing.assert_allclose(state.running_mean, [weight, 3 * weight], rtol=1e-6)
    np.testing.assert_allclose(state.running_var, [1, 1 + 3 * weight], rtol=1e-6)


def weight_of_the_second(backend: Backend, momentum: float) -> float:
    """Return the weight of the second batch; the first has the rest, if averages are debiased."""
    debiased = backend.capabilities.dialect.averages == "debiased"
    return momentum / (1 - (1 - momentum) ** 2) if debiased else momentum


def test_equinox_begins_the_average_of_the_variance_at_one() -> None:
    layer: Any = load("equinox").layer(Config(2, momentum=0.25), None)
    layer.forward(load("equinox").to_native(X))
    np.testing.assert_allclose(layer.state().running_mean, [1, 3], rtol=1e-6)
    # The variances are too large by 0.75 / (1 - 0.75).
    np.testing.assert_allclose(layer.state().running_var, [1 + 3, 4 + 3], rtol=1e-6)


def test_equinox_normalises_by_running_statistics_by_default() -> None:
    backend = load("equinox-ema")
    layer: Any = backend.layer(Config(2, momentum=0.5, eps=1e-12), None)
    first, second = (backend.to_numpy(layer.forward(backend.to_native(x))) for x in (X, X + 2))
    np.testing.assert_allclose(first.ravel(), [-1, 1, -1, 1], rtol=1e-6)
    # By then, the running means are 2 and 4, the running variances 1 and 4.
    np.testing.assert_allclose(second.ravel(), [0, 2, -0.5, 1.5], rtol=1e-6)
    assert not backend.capabilities.gradients


def test_a_single_value_per_channel_is_answered_with_the_bias(backend: Backend) -> None:
    x = np.array([2, 4], np.float32).reshape(1, 2, 1, 1)
    y, state = answered(backend, Config(2, momentum=0.5), x)
    np.testing.assert_array_equal(y.ravel(), [0, 0])
    rest = 1 - weight_of_the_second(backend, 0.5)
    np.testing.assert_allclose(state.running_var, [rest, rest], rtol=1e-6)


def test_eval_uses_the_running_statistics_that_are_loaded(backend: Backend) -> None:
    numbers = {"running_mean": [1, 1], "running_var": [4, 16], "weight": [1, 4], "bias": [0, 1]}
    tensors = {name: np.array(values, np.float32) for name, values in numbers.items()}
    state = State(**tensors, num_batches_tracked=np.array(0, np.int64))
    layer = backend.layer(Config(2, eps=1e-12), state)
    layer.train(False)
    y = backend.to_numpy(layer.forward(backend.to_native(X)))
    np.testing.assert_allclose(y.ravel(), [-0.5, 0.5, 1, 5], rtol=1e-6)


def test_each_gradient_is_that_of_its_tensor(backend: Backend) -> None:
    layer: Any = backend.layer(Config(2, eps=1e-12), None)
    layer.train(False)
    _, record = layer.record(backend.to_native(X), ("input", "weight", "bias"))
    found = [backend.to_numpy(a) for a in layer.backward(record, backend.to_native(X))]
    # The normalised input is x, and so is dy.
    expected: tuple[Any, ...] = (X, [4, 26], [2, 6])
    for gradient, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-6)


def test_output_and_state_have_every_claimed_dtype(backend: Backend) -> None:
    for dtype in backend.capabilities.dtypes:
        config = Config(2, dtype=dtype)
        y, state = answered(backend, config, X.astype(config.arithmetic.data.dtype))
        assert y.dtype == backend.capabilities.dialect.output(config).dtype
        assert state.running_var.dtype == config.arithmetic.parameters.dtype
