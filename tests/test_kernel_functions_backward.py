"""A backward function receives all that its forward received."""

from typing import Any

import numpy as np
import pytest

from bn_spec import Config, State, kernel_backend
from bn_spec.backend.contract import Gradients
from bn_spec.case.arrays import same_bits
from tests.kernels import WRT, Boxed, Recorder, X, assert_same_state, some_state, unboxed


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_backward_is_given_all_that_its_forward_was(recorder: Recorder) -> None:
    state = some_state()
    layer = recorder.differentiable.layer(Config(2, eps=0.5), state)
    y, record = layer.record(X, WRT)
    assert y is X
    dy = X + 1
    gradients = layer.backward(record, dy)
    assert isinstance(gradients, Gradients)
    assert (gradients.input is dy, gradients.weight) == (True, None)
    assert np.array_equal(gradients.bias, [1, 3])
    (call,) = recorder.backwards
    assert call.keys() == {
        *(
            "dy",
            "x",
            "weight",
            "bias",
            "running_mean",
            "running_var",
            "eps",
            "training",
            "saved",
            "wrt",
        )
    }
    assert (call["dy"] is dy, call["x"] is X) == (True, True)
    assert (call["eps"], call["training"], call["saved"], call["wrt"]) == (
        0.5,
        True,
        "saved by call 1",
        WRT,
    )
    for name, tensor in state.items()[:4]:
        assert tensor is not None
        assert same_bits(call[name], tensor), name


@pytest.mark.parametrize("in_place", [False, True], ids=["new statistics", "in place"])
def test_a_backward_is_given_the_statistics_of_its_own_forward_whatever_came_after(
    in_place: bool,
) -> None:
    recorder = Recorder(in_place)
    layer = recorder.differentiable.layer(Config(2), some_state())
    records = [layer.record(X, WRT)[1]]
    layer.train(False)
    records.append(layer.record(X, WRT)[1])
    layer.train(True)
    layer.forward(X)
    records.append(layer.record(X, WRT)[1])
    layer.reset_parameters()
    for record in (*records, records[0]):
        layer.backward(record, X)
    means = [call["running_mean"].tolist() for call in recorder.backwards]
    variances = [call["running_var"].tolist() for call in recorder.backwards]
    assert means == [[6, 7], [7, 8], [8, 9], [6, 7]]
    assert variances == [[8, 9], [9, 10], [10, 11], [8, 9]]
    assert [call["weight"].tolist() for call in recorder.backwards] == [[2, 3]] * 4
    assert [call["training"] for call in recorder.backwards] == [True, False, True, True]
    assert [call["saved"] for call in recorder.backwards] == [
        "saved by call 1",
        None,
        "saved by call 4",
        "saved by call 1",
    ]


def test_without_a_fourth_value_nothing_is_saved(recorder: Recorder) -> None:
    backend: Any = kernel_backend(
        "recorder", recorder.training, recorder.inference, recorder.backward
    )
    layer = backend.layer(Config(2), None)
    layer.backward(layer.record(X, WRT)[1], X)
    assert recorder.backwards[0]["saved"] is None


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_without_tracking_a_backward_is_told_that_batch_statistics_normalise(
    recorder: Recorder, training: bool
) -> None:
    layer = recorder.differentiable.layer(Config(2, affine=False, track_running_stats=False), None)
    layer.train(training)
    layer.backward(layer.record(X, ("input",))[1], X)
    (call,) = recorder.backwards
    assert (call["training"], call["wrt"], call["saved"]) == (True, ("input",), "saved by call 1")
    assert call["weight"] is call["bias"] is call["running_mean"] is call["running_var"] is None


def test_a_forward_that_is_recorded_counts_and_moves_the_statistics_like_any_other(
    recorder: Recorder,
) -> None:
    layers = [recorder.differentiable.layer(Config(2), some_state()) for _ in range(2)]
    layers[0].forward(X)
    _, record = layers[1].record(X, WRT)
    layers[1].backward(record, X)
    assert_same_state(layers[1].state(), layers[0].state())


def test_a_backward_of_boxed_tensors_is_given_boxes_and_answers_in_boxes() -> None:
    def training(
        x: Boxed, running_mean: Boxed, running_var: Boxed, **_: Any
    ) -> tuple[Boxed, Boxed, Boxed]:
        return x, running_mean, running_var

    def backward(dy: Boxed, x: Boxed, weight: Boxed, **_: Any) -> tuple[Boxed, Boxed, None]:
        return Boxed(dy.array + x.array), weight, None

    backend: Any = kernel_backend(
        "boxed", training, None, backward, to_native=Boxed, to_numpy=unboxed
    )
    layer = backend.layer(Config(2), some_state())
    _, record = layer.record(backend.to_native(X), WRT)
    dx, dweight, dbias = layer.backward(record, backend.to_native(X))
    assert np.array_equal(backend.to_numpy(dx), 2 * X)
    assert np.array_equal(backend.to_numpy(dweight), [2, 3])
    assert dbias is None


def test_tensors_are_moved_in_and_out_by_the_functions_that_were_given() -> None:
    def training(
        x: Boxed, running_mean: Boxed, running_var: Boxed, **_: Any
    ) -> tuple[Boxed, Boxed, Boxed]:
        return x, running_mean, running_var

    backend = kernel_backend("boxed", training, to_native=Boxed, to_numpy=unboxed)
    layer = backend.layer(Config(2), some_state())
    layer.forward(backend.to_native(X))
    wanted = some_state()
    assert_same_state(
        layer.state(), State(**dict(wanted.items()) | {"num_batches_tracked": np.array(6)})
    )
