"""Kernel functions become a layer: mode, counter, momentum and resets are kept for them."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Backend, Capabilities, Case, Config, ConfigError, State, check, kernel_backend
from bn_spec.backend.contract import Gradients
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import DIFFERENTIABLE, GRADIENTS, Forward
from bn_spec.judge.judging import judge as judged
from bn_spec.play.player import play
from bn_spec.strategies import ABSENT, RUNNING_STYLES, cases, shapes
from bn_spec.suite.cell import PROPERTIES, Cell, Violation
from bn_spec.suite.profiles import PROFILES

from .common import examples

for chapter in ("grd", "sta", "err"):
    import_module(f"conformance.test_{chapter}")  # declares its properties

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)


AXES = (0, 2, 3)


def over_channels(values: Array) -> Array:
    return values.reshape(1, -1, 1, 1)


def affine(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, eps: float
) -> Array:
    x_hat: Array = (x - over_channels(mean)) / np.sqrt(over_channels(var) + x.dtype.type(eps))
    return (
        x_hat
        if weight is None or bias is None
        else x_hat * over_channels(weight) + over_channels(bias)
    )


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
    mean, var = x.mean(axis=AXES), x.var(axis=AXES)
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
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    eps: float,
) -> Array:
    if x.ndim != 4:
        raise ValueError(f"cannot normalise shape {x.shape}")
    return affine(
        widened(x), weight, bias, widened(running_mean), widened(running_var), eps
    ).astype(x.dtype)


def widened(a: Array) -> Array:
    return a.astype(np.float64 if a.dtype == np.float64 else np.float32)


@np.errstate(all="ignore")
def backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    eps: float,
    training: bool,
    saved: object,
    wrt: tuple[str, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """A correct backward, that computes what it needs of the forward anew."""
    assert saved is None
    assert (weight is None) == (bias is None)
    g, data = widened(dy), widened(x)
    mean, var = (
        (data.mean(axis=AXES), data.var(axis=AXES))
        if training
        else map(widened, (running_mean, running_var))
    )
    s = 1 / np.sqrt(var + data.dtype.type(eps))
    x_hat = (data - over_channels(mean)) * over_channels(s)
    dweight, dbias = (g * x_hat).sum(axis=AXES), g.sum(axis=AXES)
    if training:
        n = g.dtype.type(g.size // g.shape[1])
        g = g - over_channels(dbias / n) - x_hat * over_channels(dweight / n)
    scale = s if weight is None else s * widened(weight)
    held = x.dtype if weight is None else weight.dtype
    dx = (g * over_channels(scale)).astype(x.dtype)
    return (
        dx if "input" in wrt else None,
        dweight.astype(held) if "weight" in wrt else None,
        dbias.astype(held) if "bias" in wrt else None,
    )


CORRECT = kernel_backend(
    "correct",
    forward_training,
    forward_inference,
    backward,
    capabilities=Capabilities(
        dtypes=tuple(DTYPES), gradients=True, checkpoints=True, live_attributes=True
    ),
)


class Recorder:
    """Kernels that answer with what they were given, moved one on, and keep the arguments of each call.

    Those of a backward are kept apart, as they were at its call.
    """

    def __init__(self, in_place: bool = False) -> None:
        self.in_place = in_place
        self.calls: list[dict[str, Any]] = []
        self.backwards: list[dict[str, Any]] = []
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

    def saving(
        self, x: Array, **arguments: Any
    ) -> tuple[Array, Array | None, Array | None, object]:
        """Give a fourth value, the number of the call, and update statistics as it was told to."""
        y, mean, var = self.training(x, **arguments)
        old_mean, old_var = arguments["running_mean"], arguments["running_var"]
        if self.in_place and old_mean is not None:
            old_mean[...], old_var[...] = mean, var
            mean, var = old_mean, old_var
        return y, mean, var, f"saved by call {len(self.calls)}"

    def backward(self, dy: Array, x: Array, **arguments: Any) -> tuple[Array, None, Array]:
        copied = {
            name: a.copy() if isinstance(a, np.ndarray) else a for name, a in arguments.items()
        }
        self.backwards.append({"dy": dy, "x": x, **copied})
        return dy, None, dy[0, :, 0, 0]

    @property
    def backend(self) -> Backend:
        return kernel_backend("recorder", self.training, self.inference)

    @property
    def differentiable(self) -> Any:
        return kernel_backend("recorder", self.saving, self.inference, self.backward)


class Boxed:
    """A tensor that is no array."""

    def __init__(self, array: Array) -> None:
        self.array = array


def unboxed(box: Boxed) -> Array:
    return box.array


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
    [
        ("forward",),
        ("eval", "forward"),
        ("forward", "forward", "eval", "forward", "reset", "train", "forward"),
        (
            "forward",
            "save",
            "load",
            "set eps",
            "forward",
            "restore some",
            "set momentum",
            "forward",
            "restore",
        ),
        (
            "set momentum",
            "forward",
            "save",
            "forward",
            "eval",
            "restore into a new layer",
            "forward",
            "save",
        ),
    ],
)
def test_a_correct_kernel_passes_every_check(dtype: str, history: tuple[str, ...]) -> None:
    @examples(25)
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "history",
    [
        ("record", "backward"),
        ("eval", "record", "backward"),
        (
            "record",
            "record",
            "backward",
            "train",
            "forward",
            "eval",
            "record",
            "backward of the first",
            "backward",
        ),
    ],
    ids=["training", "eval", "both"],
)
def test_a_correct_backward_gives_every_gradient_that_is_asked(
    dtype: str, history: tuple[str, ...]
) -> None:
    @examples(20)
    @given(
        cases(
            dtype=dtype,
            history=history,
            wrt=tuple(
                subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size)
            ),
            shape=shapes("tiny", "different", "small"),
            running=(*RUNNING_STYLES, ABSENT),
        )
    )
    def judge(case: Case) -> None:
        observables = (*GRADIENTS, "gradient_form", "handed", *STATE_FIELDS)
        assert (
            judged(case, play(case, CORRECT), observables, CORRECT.capabilities).discrepancies == []
        )

    judge()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "requirement", [f"GRD-{number:02}" for number in (1, 4, 6, 7, 8, 14, 15, 16)]
)
def test_a_correct_backward_conforms(requirement: str, dtype: str) -> None:
    cell = cell_of(requirement, CORRECT, dtype)
    assert cell.not_claimed == ""
    cell.examine()
    assert cell.judged > 0


@pytest.mark.parametrize(
    "requirement", [*(f"STA-{number:02}" for number in range(1, 12)), "ERR-05", "ERR-06"]
)
def test_a_layer_of_correct_kernels_conforms_in_what_is_done_to_its_state(requirement: str) -> None:
    cell = cell_of(requirement, CORRECT)
    assert cell.not_claimed == ""
    cell.examine()
    assert cell.judged > 0


def test_statistics_that_are_updated_in_place_are_those_of_the_forward_in_its_backward() -> None:
    def in_place(
        x: Array, running_mean: Array, running_var: Array, **arguments: Any
    ) -> tuple[Array, Array, Array]:
        y, mean, var = forward_training(
            x, running_mean=running_mean, running_var=running_var, **arguments
        )
        running_mean[...], running_var[...] = mean, var
        return y, running_mean, running_var

    cell_of("GRD-15", kernel_backend("in-place", in_place, forward_inference, backward)).examine()


@pytest.mark.parametrize(
    ("requirement", "wrong"),
    [
        ("GRD-04", {"training": True}),
        ("GRD-08", {"wrt": DIFFERENTIABLE}),
        ("GRD-15", {"running_mean": np.float32(0)}),
    ],
)
def test_a_backward_that_disregards_what_it_is_told_does_not(
    requirement: str, wrong: dict[str, Any]
) -> None:
    def disregarding(dy: Array, **arguments: Any) -> tuple[Array | None, ...]:
        if "running_mean" in wrong:
            arguments["running_mean"] = np.zeros_like(arguments["running_mean"])
            return backward(dy, **arguments)
        return backward(dy, **arguments | wrong)

    wrongly: Any = disregarding
    with pytest.raises(Violation) as found:
        cell_of(
            requirement, kernel_backend("wrong", forward_training, forward_inference, wrongly)
        ).examine()
    assert found.value.finding.discrepancy.observable in GRADIENTS


def cell_of(requirement: str, backend: Backend, dtype: str = "float32") -> Cell:
    (prop,) = PROPERTIES[requirement]
    return Cell(prop, backend, dtype, PROFILES["smoke"].settings())


def test_a_wrong_kernel_does_not() -> None:
    def shifted(x: Array, **arguments: Any) -> tuple[Array, Array, Array]:
        y, mean, var = forward_training(x, **arguments)
        assert mean is not None
        assert var is not None
        return y, mean + np.float32(1e-3), var

    found = check(
        Case(Config(2), None, (Forward(X),)), kernel_backend("shifted", shifted, forward_inference)
    )
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


# What the helper keeps for a backward ------------------------------------------------------------------

WRT = ("weight", "input")


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


# Checkpoints and attributes ----------------------------------------------------------------------------


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


# What is claimed ---------------------------------------------------------------------------------------


def test_the_backend_has_the_name_and_description_that_were_given() -> None:
    backend = kernel_backend("mine", forward_training, description="a kernel of my own")
    assert (backend.name, backend.description) == ("mine", "a kernel of my own")


STORED = Capabilities(checkpoints=True, live_attributes=True)
"""What the helper claims for any kernels: it keeps their tensors and their attributes."""


@pytest.mark.parametrize(("inference", "claimed"), [(None, False), (forward_inference, True)])
def test_inference_is_claimed_just_when_there_is_a_kernel_for_it(
    inference: Callable[..., Array] | None, claimed: bool
) -> None:
    backend = kernel_backend("mine", forward_training, inference)
    assert backend.capabilities == replace(STORED, inference=claimed)


def test_without_forward_inference_an_eval_forward_says_so() -> None:
    layer = kernel_backend("mine", forward_training).layer(Config(2), None)
    layer.train(False)
    with pytest.raises(NotImplementedError, match="mine has no forward_inference"):
        layer.forward(X)


@pytest.mark.parametrize("given_backward", [None, backward])
def test_gradients_are_claimed_just_when_there_is_a_kernel_for_them(
    given_backward: Callable[..., Any] | None,
) -> None:
    backend = kernel_backend("mine", forward_training, forward_inference, given_backward)
    assert backend.capabilities == replace(STORED, gradients=given_backward is not None)


def test_without_a_backward_the_layer_says_so() -> None:
    layer: Any = kernel_backend("mine", forward_training).layer(Config(2), None)
    _, record = layer.record(X, WRT)
    with pytest.raises(NotImplementedError, match="mine has no backward"):
        layer.backward(record, X)


def test_what_a_kernel_does_not_claim_of_gradients_is_not_asked() -> None:
    silent = replace(Capabilities(), inference=False)
    backend = kernel_backend("mine", forward_training, capabilities=silent)
    assert cell_of("GRD-01", backend).not_claimed == "mine does not claim gradients"
    differentiable = kernel_backend("mine", forward_training, None, backward)
    assert cell_of("GRD-01", differentiable).not_claimed == ""
    assert cell_of("GRD-04", differentiable).not_claimed == "mine does not claim inference"
    assert cell_of("GRD-22", differentiable).not_claimed == "mine does not claim gradient_layout"
    assert cell_of("GRD-23", differentiable).not_claimed == "mine does not claim double_backward"


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"gradients": True}, "mine claims gradients but has no backward; give one, or claim less"),
        (
            {"double_backward": ("float32",)},
            "mine claims a double backward, which takes a layer of its own; claim less, or write one",
        ),
    ],
)
def test_a_claim_of_gradients_without_a_kernel_for_them_is_refused(
    claims: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        kernel_backend(
            "mine", forward_training, forward_inference, capabilities=Capabilities(**claims)
        )
    assert str(refused.value) == sentence


@pytest.mark.parametrize("given", [None, Capabilities(inference=False)])
def test_checkpoints_and_attributes_are_claimed_since_the_helper_keeps_them(
    given: Capabilities | None,
) -> None:
    backend = kernel_backend("mine", forward_training, capabilities=given)
    assert {
        cell_of(requirement, backend).not_claimed for requirement in ("STA-01", "STA-07", "ERR-05")
    } == {""}


def test_claims_that_were_given_are_kept() -> None:
    claims = Capabilities(dtypes=("float64",), grade="textbook", inference=False, threads=True)
    backend = kernel_backend("mine", forward_training, capabilities=claims)
    assert backend.capabilities == replace(claims, checkpoints=True, live_attributes=True)


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
        (
            {"double_backward": ("float64",)},
            "dtype with a double backward 'float64' is not known; known: float32; did you mean 'float32'?",
        ),
        (
            {"layouts": ("channel_last",)},
            "layout 'channel_last' is not known; known: ambiguous, channels_last,",
        ),
        (
            {"grade": "two pass"},
            "grade 'two pass' is not known; known: textbook, two-pass, welford; did you mean",
        ),
    ],
)
def test_a_claim_that_is_not_known_is_refused_with_the_nearest(
    claim: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Capabilities(**claim)
    assert str(refused.value).startswith(sentence)


def test_a_function_of_other_arguments_is_refused_before_it_is_called() -> None:
    def forward_training(
        x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
    ) -> Any: ...

    with pytest.raises(ConfigError) as refused:
        kernel_backend("mine", forward_training)
    said = str(refused.value)
    assert "mine: forward_training takes (x: Any, weight: Any, bias: Any, mean: Any" in said
    assert (
        "it is called with x, and by name with weight, bias, running_mean, running_var, momentum, eps"
        in said
    )


def test_a_function_may_take_whatever_it_is_given_or_have_no_signature() -> None:
    kernel_backend("mine", lambda x, **_: x)
    kernel_backend("mine", min)
