"""Kernel functions become a layer: mode, counter, momentum and resets are kept for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Backend, Capabilities, Case, Config, ConfigError, State, check, kernel_backend
from bn_spec.case import Forward
from bn_spec.config import initial_state
from bn_spec.dtypes import DTYPES, Array
from bn_spec.memory import same_bits
from bn_spec.strategies import ABSENT, RUNNING_STYLES, cases, shapes

from .common import examples

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)


def affine(x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, eps: float) -> Array:
    def over_channels(values: Array) -> Array:
        return values.reshape(1, -1, 1, 1)

    x_hat: Array = (x - over_channels(mean)) / np.sqrt(over_channels(var) + x.dtype.type(eps))
    return x_hat if weight is None or bias is None else x_hat * over_channels(weight) + over_channels(bias)


@np.errstate(all="ignore")
def forward_training(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
    eps: float,
) -> tuple[Array, Array | None, Array | None]:
    """A correct kernel in the arithmetic of its input, or in float32 if that is wider."""
    n = x.size // x.shape[1]
    if x.ndim != 4 or n < 2:
        raise ValueError(f"cannot normalise shape {x.shape}")
    data, x = x, widened(x)
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    y = affine(x, weight, bias, mean, var, eps).astype(data.dtype)
    if running_mean is None or running_var is None:
        return y, None, None
    m, held = x.dtype.type(momentum), running_mean.dtype
    unbiased = var * x.dtype.type(n / (n - 1))
    return (
        y,
        ((1 - m) * running_mean + m * mean).astype(held),
        ((1 - m) * running_var + m * unbiased).astype(held),
    )


@np.errstate(all="ignore")
def forward_inference(
    x: Array, weight: Array | None, bias: Array | None, running_mean: Array, running_var: Array, eps: float
) -> Array:
    if x.ndim != 4:
        raise ValueError(f"cannot normalise shape {x.shape}")
    return affine(widened(x), weight, bias, widened(running_mean), widened(running_var), eps).astype(x.dtype)


def widened(a: Array) -> Array:
    return a.astype(np.float64 if a.dtype == np.float64 else np.float32)


CORRECT = kernel_backend(
    "correct", forward_training, forward_inference, capabilities=Capabilities(dtypes=tuple(DTYPES))
)


class Recorder:
    """Kernels that answer with what they were given, moved one on, and keep the arguments of each call."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.failing = False

    def training(self, x: Array, **arguments: Any) -> tuple[Array, Array | None, Array | None]:
        self.calls.append(arguments)
        if self.failing:
            raise RuntimeError("launch failed")
        mean, var = arguments["running_mean"], arguments["running_var"]
        return x, None if mean is None else mean + 1, None if var is None else var + 1

    def inference(self, x: Array, **arguments: Any) -> Array:
        self.calls.append(arguments)
        if self.failing:
            raise RuntimeError("launch failed")
        return -x

    @property
    def backend(self) -> Backend:
        return kernel_backend("recorder", self.training, self.inference)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def assert_same_state(got: State, wanted: State) -> None:
    for (name, a), (_, b) in zip(got.items(), wanted.items(), strict=True):
        assert a is b if a is None or b is None else same_bits(a, b), name


def some_state() -> State:
    weight, bias, mean, var = np.arange(8, dtype=np.float32).reshape(4, 2) + 2
    return State(weight, bias, mean, var, np.array(5))


def overwrite(state: State) -> None:
    for name, tensor in state.items():
        assert tensor is not None, name
        tensor[...] = 77


# A correct kernel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "history",
    [("forward",), ("eval", "forward"), ("forward", "forward", "eval", "forward", "reset", "train", "forward")],
)
def test_a_correct_kernel_passes_every_check(dtype: str, history: tuple[str, ...]) -> None:
    @examples(40)
    @given(
        cases(
            dtype=dtype,
            history=history,
            shape=shapes("tiny", "different", "small"),
            running=(*RUNNING_STYLES, ABSENT),
        )
    )
    def judge(case: Case) -> None:
        assert check(case, CORRECT) == []

    judge()


def test_a_wrong_kernel_does_not() -> None:
    def shifted(x: Array, **arguments: Any) -> tuple[Array, Array, Array]:
        y, mean, var = forward_training(x, **arguments)
        assert mean is not None
        assert var is not None
        return y, mean + np.float32(1e-3), var

    found = check(Case(Config(2), None, (Forward(X),)), kernel_backend("shifted", shifted, forward_inference))
    assert [d.observable for d in found] == ["running_mean"]


# What the helper keeps for the kernels -----------------------------------------------------------------


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
    wanted = State(state.weight, state.bias, np.array([7, 8], np.float32), np.array([9, 10], np.float32), np.array(6))
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


def test_the_counter_counts_training_forwards_from_the_count_that_was_given(recorder: Recorder) -> None:
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
    wanted = State(state.weight, state.bias, fresh.running_mean, fresh.running_var, fresh.num_batches_tracked)
    assert_same_state(layer.state(), wanted)
    layer.forward(X)
    assert recorder.calls[0]["momentum"] == 1


def test_a_reset_of_the_parameters_resets_the_whole_state(recorder: Recorder) -> None:
    layer = recorder.backend.layer(Config(2), some_state())
    layer.reset_parameters()
    assert_same_state(layer.state(), initial_state(Config(2)))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_a_kernel_that_raises_leaves_the_state_as_it_was(recorder: Recorder, training: bool) -> None:
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


def test_tensors_are_moved_in_and_out_by_the_functions_that_were_given() -> None:
    class Boxed:
        def __init__(self, array: Array) -> None:
            self.array = array

    def training(x: Boxed, running_mean: Boxed, running_var: Boxed, **_: Any) -> tuple[Boxed, Boxed, Boxed]:
        return x, running_mean, running_var

    def unboxed(box: Boxed) -> Array:
        return box.array

    backend = kernel_backend("boxed", training, to_native=Boxed, to_numpy=unboxed)
    layer = backend.layer(Config(2), some_state())
    layer.forward(backend.to_native(X))
    wanted = some_state()
    assert_same_state(layer.state(), State(**dict(wanted.items()) | {"num_batches_tracked": np.array(6)}))


# What is claimed ---------------------------------------------------------------------------------------


def test_the_backend_has_the_name_and_description_that_were_given() -> None:
    backend = kernel_backend("mine", forward_training, description="a kernel of my own")
    assert (backend.name, backend.description) == ("mine", "a kernel of my own")


@pytest.mark.parametrize(("inference", "claimed"), [(None, False), (forward_inference, True)])
def test_inference_is_claimed_just_when_there_is_a_kernel_for_it(
    inference: Callable[..., Array] | None, claimed: bool
) -> None:
    backend = kernel_backend("mine", forward_training, inference)
    assert backend.capabilities == Capabilities(inference=claimed)


def test_without_forward_inference_an_eval_forward_says_so() -> None:
    layer = kernel_backend("mine", forward_training).layer(Config(2), None)
    layer.train(False)
    with pytest.raises(NotImplementedError, match="mine has no forward_inference"):
        layer.forward(X)


def test_claims_that_were_given_are_kept() -> None:
    claims = Capabilities(dtypes=("float64",), grade="textbook", inference=False)
    assert kernel_backend("mine", forward_training, capabilities=claims).capabilities is claims


def test_a_claim_of_inference_without_a_kernel_for_it_is_refused() -> None:
    sentence = "mine claims inference but has no forward_inference; give one, or claim less"
    with pytest.raises(ConfigError, match=sentence):
        kernel_backend("mine", forward_training, capabilities=Capabilities())


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        (
            {"dtypes": ("float23",)},
            "dtype 'float23' is not known; known: bfloat16, float16, float32, float64, mixed_bfloat16, mixed_float16;"
            " did you mean 'float32'?",
        ),
        ({"layouts": ("channel_last",)}, "layout 'channel_last' is not known; known: channels_last, "),
        ({"grade": "two pass"}, "grade 'two pass' is not known; known: textbook, two-pass, welford; did you mean"),
    ],
)
def test_a_claim_that_is_not_known_is_refused_with_the_nearest(claim: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Capabilities(**claim)
    assert str(refused.value).startswith(sentence)
