"""The conventions that the adapter to Keras 3's BatchNormalization declares.

Expected numbers are worked out by hand.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Case, Config, State, UnavailableBackend, check
from bn_spec.backend.adapters import keras as adapter
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import Forward

# Importing Keras would choose its backend.
if not find_spec("keras"):
    pytest.skip("Keras is an extra", allow_module_level=True)

# convert_to_numpy causes this warning.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ("tensorflow", "jax", "numpy", "torch")


@pytest.fixture(scope="module")
def backend() -> Backend:
    """Return the layer with the backend of Keras in this process, or the first available one."""
    for name in NAMES:
        try:
            return adapter.backend(name)
        except UnavailableBackend:
            continue
    pytest.skip("Keras has no backend here")


def batch(*numbers: float) -> Array:
    """Return one channel of these numbers, a sample each."""
    return np.array(numbers, np.float32).reshape(-1, 1, 1, 1)


def after(backend: Backend, x: Array, **config: Any) -> tuple[float, float]:
    """Return running mean and variance after a batch; before it they are 10 and 20."""
    weight, bias, mean, var = (np.array([number], np.float32) for number in (1, 0, 10, 20))
    state = State(weight, bias, mean, var, np.zeros((), np.int64))
    layer = backend.layer(Config(1, **config), state)
    layer.forward(backend.to_native(x))
    state = layer.state()
    assert state.running_mean is not None
    assert state.running_var is not None
    return float(state.running_mean[0]), float(state.running_var[0])


def test_momentum_weighs_the_old_value_and_the_variance_is_biased(backend: Backend) -> None:
    assert adapter.DIALECT.momentum(0.25) == 0.75
    assert after(backend, batch(1, 2, 3, 6), momentum=0.25) == pytest.approx(
        (0.75 * 10 + 0.25 * 3, 15 + 3.5 / 4)
    )


def test_a_single_value_has_a_variance_of_zero(backend: Backend) -> None:
    assert after(backend, batch(3), momentum=0.25) == (8.25, 15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_policies_have_the_names_of_dtypes(backend: Backend, dtype: str) -> None:
    config = Config(1, dtype=dtype)
    layer = backend.layer(config, None)
    y = layer.forward(backend.to_native(batch(0, 2).astype(config.arithmetic.data.dtype)))
    assert backend.to_numpy(y).dtype == config.arithmetic.data.dtype
    tensors = layer.state().tensors()
    assert {tensors[name].dtype for name in ("weight", "running_var")} == {
        config.arithmetic.parameters.dtype
    }


def test_float64_is_float32_unless_the_backend_is_tensorflow(backend: Backend) -> None:
    x = batch(0, 1).astype(np.float64) * 1e-9 + 1
    case = Case(Config(1, eps=1e-20, dtype="float64"), None, (Forward(x),))
    found = {discrepancy.observable for discrepancy in check(case, backend)}
    assert ("running_mean" in found) is (backend.name != "keras-tensorflow")


def test_a_constant_channel_has_a_negative_variance_where_moments_are_textbook(
    backend: Backend,
) -> None:
    case = Case(Config(1, eps=1e-3), None, (Forward(np.full((3, 1, 2, 2), 192.3, np.float32)),))
    found = {discrepancy.observable for discrepancy in check(case, backend)}
    assert ("output" in found) is (backend.name in ("keras-numpy", "keras-torch"))


@pytest.mark.usefixtures("backend")
def test_other_backends_of_keras_ask_for_a_process_of_their_own() -> None:
    active = import_module("keras").backend.backend()
    for name in NAMES:
        if name != active:
            with pytest.raises(UnavailableBackend, match=f"KERAS_BACKEND={name}|pip install"):
                adapter.load_keras(name)
