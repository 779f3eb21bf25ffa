"""The layer keeps checkpoints and live attributes for the kernel functions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bn_spec import Config, ConfigError, State, kernel_backend
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import Array
from tests.kernels import (
    WRT,
    Boxed,
    Recorder,
    X,
    assert_same_state,
    forward_training,
    overwrite,
    some_state,
    unboxed,
)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_checkpoint_has_a_copy_of_every_tensor_by_name(recorder: Recorder) -> None:
    layer: Any = recorder.backend.layer(Config(2), some_state())
    first, second = layer.save(), layer.save()
    assert [*first] == [*STATE_FIELDS]
    assert_same_state(State(**first), some_state())
    overwrite(State(**first))
    assert_same_state(layer.state(), some_state())
    assert_same_state(State(**second), some_state())


@pytest.mark.parametrize("in_place", [False, True], ids=["new statistics", "in place"])
def test_a_checkpoint_stays_as_it_is_whatever_the_layer_does(in_place: bool) -> None:
    layer: Any = Recorder(in_place).differentiable.layer(Config(2), some_state())
    saved = layer.save()
    layer.forward(X)
    assert_same_state(State(**saved), some_state())
    layer.reset_parameters()
    assert_same_state(State(**saved), some_state())


@pytest.mark.parametrize("config", [Config(2, affine=False), Config(2, track_running_stats=False)])
def test_a_checkpoint_has_no_tensor_that_the_layer_has_not(
    config: Config, recorder: Recorder
) -> None:
    layer: Any = recorder.backend.layer(config, None)
    wanted = initial_state(config).tensors()
    assert [*layer.save()] == [*wanted]
    layer.load(wanted, strict=True)
    assert_same_state(layer.state(), initial_state(config))


@pytest.mark.parametrize("in_place", [False, True], ids=["new statistics", "in place"])
def test_loaded_tensors_are_copied(in_place: bool) -> None:
    layer: Any = Recorder(in_place).differentiable.layer(Config(2), None)
    tensors = some_state().tensors()
    layer.load(tensors, strict=True)
    layer.forward(X)
    assert_same_state(State(**tensors), some_state())
    layer.load(tensors, strict=True)
    overwrite(State(**tensors))
    assert_same_state(layer.state(), some_state())


def test_a_layer_goes_on_from_the_counter_that_was_loaded(recorder: Recorder) -> None:
    layer: Any = recorder.backend.layer(Config(2, momentum=None), None)
    layer.forward(X)
    layer.load(some_state().tensors(), strict=True)
    layer.forward(X)
    layer.load({"num_batches_tracked": np.array(1)}, strict=False)
    layer.forward(X)
    assert [call["momentum"] for call in recorder.calls] == [1, 1 / 6, 1 / 2]
    assert layer.state().num_batches_tracked == 2


def test_loading_keeps_the_mode(recorder: Recorder) -> None:
    layer: Any = recorder.backend.layer(Config(2), None)
    layer.train(False)
    layer.load(some_state().tensors(), strict=True)
    assert np.array_equal(layer.forward(X), -X)


@pytest.mark.parametrize("name", STATE_FIELDS)
@pytest.mark.parametrize(
    "extra", [{}, {"gamma": np.zeros(7)}], ids=["alone", "beside one that no layer has"]
)
def test_without_strict_what_is_not_given_stays(
    name: str, extra: dict[str, Array], recorder: Recorder
) -> None:
    layer: Any = recorder.backend.layer(Config(2), some_state())
    tensor = initial_state(Config(2)).tensors()[name]
    layer.load({name: tensor, **extra}, strict=False)
    assert_same_state(layer.state(), replace(some_state(), **{name: tensor}))


def test_loaded_tensors_take_the_dtype_of_the_layer(recorder: Recorder) -> None:
    layer: Any = recorder.backend.layer(Config(2), None)
    layer.load(
        {name: a.astype(np.float64) for name, a in some_state().tensors().items()}, strict=True
    )
    assert_same_state(layer.state(), some_state())


@pytest.mark.parametrize(
    ("change", "strict", "sentence"),
    [
        pytest.param(
            {"bias": None},
            True,
            "expected weight, bias, running_mean, .*; got weight, running",
            id="too few",
        ),
        pytest.param(
            {"gamma": np.ones(2)}, True, "num_batches_tracked; got .*, gamma", id="too many"
        ),
        *(
            pytest.param(
                {"bias": np.ones(3)},
                strict,
                r"bias has shape \(3,\); expected \(2,\)",
                id=f"longer {strict}",
            )
            for strict in (True, False)
        ),
        *(
            pytest.param(
                {"running_var": np.ones((2, 1))},
                strict,
                "running_var has shape",
                id=f"a column {strict}",
            )
            for strict in (True, False)
        ),
        *(
            pytest.param(
                {"num_batches_tracked": np.ones(1)},
                strict,
                "num_batches_tracked has shape",
                id=f"a vector {strict}",
            )
            for strict in (True, False)
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_none_of_them_is_loaded(
    change: dict[str, Array | None], strict: bool, sentence: str, recorder: Recorder
) -> None:
    layer: Any = recorder.backend.layer(Config(2), some_state())
    given_tensors = initial_state(Config(2)).tensors() | change
    tensors = {name: a for name, a in given_tensors.items() if a is not None}
    with pytest.raises(ValueError, match=sentence):
        layer.load(tensors, strict=strict)
    assert_same_state(layer.state(), some_state())


def test_a_new_eps_and_a_new_momentum_count_from_the_next_call(recorder: Recorder) -> None:
    layer: Any = recorder.differentiable.layer(Config(2), some_state())
    _, record = layer.record(X, WRT)
    layer.configure("eps", 0.5)
    layer.configure("momentum", None)
    layer.backward(record, X)
    layer.backward(layer.record(X, WRT)[1], X)
    layer.train(False)
    layer.configure("eps", 0.25)
    layer.forward(X)
    assert [call["eps"] for call in recorder.calls] == [1e-5, 0.5, 0.25]
    assert [call.get("momentum") for call in recorder.calls] == [0.1, 1 / 7, None]
    assert [call["eps"] for call in recorder.backwards] == [1e-5, 0.5]


def test_a_new_attribute_changes_no_tensor(recorder: Recorder) -> None:
    layer: Any = recorder.backend.layer(Config(2), some_state())
    layer.configure("momentum", 1.0)
    assert_same_state(layer.state(), some_state())
    layer.configure("eps", 1.0)
    assert_same_state(layer.state(), some_state())


@pytest.mark.parametrize(
    ("name", "value"), [("gamma", 1.0), ("eps", None), ("eps", 0), ("momentum", 1.5)]
)
def test_an_attribute_that_no_layer_has_is_refused_and_the_others_stay(
    name: str, value: float | None, recorder: Recorder
) -> None:
    layer: Any = recorder.backend.layer(Config(2), some_state())
    with pytest.raises(ConfigError, match=name):
        layer.configure(name, value)
    layer.forward(X)
    assert (recorder.calls[0]["eps"], recorder.calls[0]["momentum"]) == (1e-5, 0.1)


def test_checkpoints_of_boxed_tensors_are_boxes() -> None:
    backend = kernel_backend("boxed", forward_training, to_native=Boxed, to_numpy=unboxed)
    layer: Any = backend.layer(Config(2), some_state())
    saved = layer.save()
    assert {type(tensor) for tensor in saved.values()} == {Boxed}
    layer.reset_parameters()
    layer.load(saved, strict=True)
    assert_same_state(layer.state(), some_state())
