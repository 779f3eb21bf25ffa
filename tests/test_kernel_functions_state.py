"""The layer keeps the mode, counter, momentum and resets for the kernel functions."""

import numpy as np
import pytest

from bn_spec import Config, State
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import initial_state
from tests.kernels import Recorder, X, assert_same_state, overwrite, some_state


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_new_layer_holds_what_every_new_layer_holds(recorder: Recorder) -> None:
    for config in (Config(2), Config(2, affine=False), Config(2, track_running_stats=False)):
        assert_same_state(recorder.backend.layer(config, None).state(), initial_state(config))


def test_a_given_state_is_held_as_a_copy(recorder: Recorder) -> None:
    given_state = some_state()
    layer = recorder.backend.layer(Config(2), given_state)
    assert_same_state(layer.state(), some_state())
    overwrite(given_state)
    assert_same_state(layer.state(), some_state())


def test_the_state_that_is_reported_is_a_copy(recorder: Recorder) -> None:
    layer = recorder.backend.layer(Config(2), some_state())
    overwrite(layer.state())
    assert_same_state(layer.state(), some_state())


def test_training_calls_forward_training_with_all_that_it_needs(recorder: Recorder) -> None:
    state = some_state()
    layer = recorder.backend.layer(Config(2, eps=0.5, momentum=0.25), state)
    assert layer.forward(X) is X
    (call,) = recorder.calls
    assert call.keys() == {"weight", "bias", "running_mean", "running_var", "momentum", "eps"}
    assert (call["momentum"], call["eps"]) == (0.25, 0.5)
    for name, tensor in state.items()[:4]:
        assert tensor is not None
        assert same_bits(call[name], tensor), name
    wanted = State(
        state.weight,
        state.bias,
        np.array([7, 8], np.float32),
        np.array([9, 10], np.float32),
        np.array(6),
    )
    assert_same_state(layer.state(), wanted)


def test_eval_calls_forward_inference_and_changes_nothing(recorder: Recorder) -> None:
    layer = recorder.backend.layer(Config(2, eps=0.5), some_state())
    layer.train(False)
    assert np.array_equal(layer.forward(X), -X)
    (call,) = recorder.calls
    assert call.keys() == {"weight", "bias", "running_mean", "running_var", "eps"}
    assert_same_state(layer.state(), some_state())
    layer.train(True)
    assert layer.forward(X) is X


def test_the_counter_counts_training_forwards_from_the_count_that_was_given(
    recorder: Recorder,
) -> None:
    layer = recorder.backend.layer(Config(2), some_state())
    for mode in (True, True, False, True):
        layer.train(mode)
        layer.forward(X)
    counter = layer.state().num_batches_tracked
    assert counter is not None
    assert same_bits(counter, np.array(8, np.int64))


@pytest.mark.parametrize(
    ("config", "factors"),
    [
        (Config(2, momentum=None), [1, 1 / 2, 1 / 3]),
        (Config(2, momentum=0.0), [0, 0, 0]),
        (Config(2), [0.1, 0.1, 0.1]),
        (Config(2, momentum=None, track_running_stats=False), [1, 1, 1]),
    ],
)
def test_the_kernel_is_told_the_weight_of_the_new_value(
    config: Config, factors: list[float], recorder: Recorder
) -> None:
    layer = recorder.backend.layer(config, None)
    for _ in factors:
        layer.forward(X)
    assert [call["momentum"] for call in recorder.calls] == factors


def test_a_reset_of_the_statistics_begins_the_cumulative_mean_anew_and_keeps_the_parameters(
    recorder: Recorder,
) -> None:
    config, state = Config(2, momentum=None), some_state()
    layer = recorder.backend.layer(config, state)
    layer.reset_running_stats()
    fresh = initial_state(config)
    wanted = State(
        state.weight, state.bias, fresh.running_mean, fresh.running_var, fresh.num_batches_tracked
    )
    assert_same_state(layer.state(), wanted)
    layer.forward(X)
    assert recorder.calls[0]["momentum"] == 1


def test_a_reset_of_the_parameters_resets_the_whole_state(recorder: Recorder) -> None:
    layer = recorder.backend.layer(Config(2), some_state())
    layer.reset_parameters()
    assert_same_state(layer.state(), initial_state(Config(2)))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_a_kernel_that_raises_leaves_the_state_as_it_was(
    recorder: Recorder, training: bool
) -> None:
    layer = recorder.backend.layer(Config(2), some_state())
    layer.train(training)
    recorder.failing = True
    with pytest.raises(RuntimeError, match="launch failed"):
        layer.forward(X)
    assert_same_state(layer.state(), some_state())


def test_without_affine_the_kernel_is_given_none(recorder: Recorder) -> None:
    layer = recorder.backend.layer(Config(2, affine=False), None)
    layer.forward(X)
    (call,) = recorder.calls
    assert call["weight"] is call["bias"] is None
    assert layer.state().weight is layer.state().bias is None


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_without_tracking_forward_training_is_called_in_both_modes_and_nothing_kept(
    recorder: Recorder, training: bool
) -> None:
    config = Config(2, track_running_stats=False)
    layer = recorder.backend.layer(config, None)
    layer.train(training)
    assert layer.forward(X) is X
    (call,) = recorder.calls
    assert call["running_mean"] is call["running_var"] is None
    assert_same_state(layer.state(), initial_state(config))
