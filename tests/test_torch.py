"""What the adapters and the documents say about PyTorch's own BatchNorm2d is so, as far as a CPU can tell."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, State, check
from bn_spec.case.arrays import same_bits, take_apart
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import DTYPES, Array, format_named
from bn_spec.case.layouts import PLACED, spread
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Eval,
    Forward,
)
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.observation import Raised
from bn_spec.play.player import play
from bn_spec.strategies import Recipe, cases, histories, shapes
from bn_spec.suite.cell import Cell
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

from .common import examples

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from torch._prims_common import suggest_memory_format  # noqa: E402

from bn_spec.backend.adapters import torch_known as known  # noqa: E402
from bn_spec.backend.adapters.torch import cpu  # noqa: E402 - it needs torch

CPU = cpu()
SHARP = replace(CPU.capabilities, statistics="accumulation", elementwise="accumulation")
"""What the adapter would claim if every step were taken in float32."""

OBSERVABLES = ("output", "running_mean", "running_var")
MIXED = ("mixed_float16", "mixed_bfloat16")
HALF = ("float16", "bfloat16")
DENSE = ("contiguous", "channels_last", "ambiguous")
"""Layouts that are NCHW or NHWC order, for batches without axes of length 1."""

STRIDED = tuple(name for name in PLACED if name not in (*DENSE, "expanded"))

each_layout = pytest.mark.parametrize("layout", PLACED)


def batch(*numbers: float, dtype: Any = torch.float32) -> Any:
    """One channel of these numbers, a sample each."""
    return torch.tensor(numbers, dtype=dtype).reshape(-1, 1, 1, 1)


def strided(x: Any) -> Any:
    """The same tensor as every second element of a row."""
    n, c, h, w = x.shape
    return torch.zeros(n, c, h, 2 * w, dtype=x.dtype)[..., ::2].copy_(x)


# Arguments and refusals --------------------------------------------------------------------------------


def test_an_empty_batch_is_answered_with_an_empty_output_and_counted() -> None:
    layer = torch.nn.BatchNorm2d(2)
    layer.running_mean.fill_(3)
    assert layer(torch.zeros(0, 2, 3, 3)).shape == (0, 2, 3, 3)
    assert layer.running_mean.tolist() == [3, 3]
    assert layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked == 1


def test_an_eps_of_zero_is_refused_in_training_after_the_batch_was_counted() -> None:
    layer = torch.nn.BatchNorm2d(1, eps=0.0)
    with pytest.raises(ValueError, match="eps must be positive"):
        layer(batch(1, 2))
    assert layer.num_batches_tracked == 1
    assert layer.running_mean.tolist() == [0]
    assert layer.eval()(batch(1, 2)).ravel().tolist() == [1, 2]


# Ranges ------------------------------------------------------------------------------------------------


def test_where_squares_overflow_the_variance_is_infinite_and_the_output_the_bias() -> None:
    layer = torch.nn.BatchNorm2d(1, momentum=1.0)
    torch.nn.init.constant_(layer.bias, 3.0)
    x = batch(1e20, -1e20, 3e19, 0)
    assert layer(x).ravel().tolist() == [3, 3, 3, 3]
    assert layer.running_mean.item() == pytest.approx(7.5e18, rel=1e-6)
    assert layer.running_var.tolist() == [np.inf]
    # Strided inputs are computed in double precision.
    assert torch.isfinite(layer(strided(x))).all()
    assert layer(strided(x)).ravel().tolist() != [3, 3, 3, 3]


def test_an_all_float16_layer_gives_nan_for_a_constant_channel_and_a_minute_eps() -> None:
    def output(eps: float) -> list[float]:
        layer = torch.nn.BatchNorm2d(1, eps=eps, dtype=torch.float16)
        numbers: list[float] = layer(batch(2, 2, 2, dtype=torch.float16)).ravel().tolist()
        return numbers

    assert np.isnan(output(1e-12)).all()
    assert np.isnan(output(0.99 * 65504.0**-2)).all()
    assert output(1e-9) == [0, 0, 0]


def test_strided_inputs_of_an_all_float16_layer_overflow_in_a_difference_that_no_result_needs() -> (
    None
):
    x = batch(-6e4, 6e4, 6e4, 6e4, dtype=torch.float16)
    layer = torch.nn.BatchNorm2d(1, dtype=torch.float16)
    assert torch.isfinite(layer(x)).all()
    assert not torch.isfinite(layer(strided(x))).all()


# The precision of the steps ----------------------------------------------------------------------------


def gaussian_case(dtype: str, layout: str, seed: int) -> Case:
    row, rng = DTYPES[dtype], np.random.default_rng(seed)
    held = row.parameters.dtype
    x = PLACED[layout](Recipe("gaussian", 0, float(seed % 3), seed).make((3, 4, 3, 5), row))
    weight, bias, mean = rng.normal(size=(3, 4)).astype(held)
    var = np.exp(rng.normal(size=4)).astype(held)
    state = State(weight, bias, mean, var, np.array(3))
    return Case(Config(4, momentum=0.3, dtype=dtype), state, (Forward(x), Eval(), Forward(x)))


def verdicts(dtype: str, layout: str, claims: Accuracy) -> list[Verdict]:
    drawn = [gaussian_case(dtype, layout, seed) for seed in range(12)]
    return [judge(case, play(case, CPU), OBSERVABLES, claims) for case in drawn]


@each_layout
@pytest.mark.parametrize("dtype", MIXED)
def test_mixed_layers_take_every_step_in_float32(dtype: str, layout: str) -> None:
    found = verdicts(dtype, layout, SHARP)
    assert not any(verdict.discrepancies for verdict in found)
    assert (
        max(verdict.shares["output"] for verdict in found) > 0.9
    )  # one rounding to half, at the end
    assert max(verdict.shares[name] for verdict in found for name in OBSERVABLES[1:]) < 0.5


@each_layout
@pytest.mark.parametrize("dtype", HALF)
def test_all_half_layers_keep_statistics_in_half_as_claimed(dtype: str, layout: str) -> None:
    assert not any(verdict.discrepancies for verdict in verdicts(dtype, layout, CPU.capabilities))
    beyond = {
        d.observable for verdict in verdicts(dtype, layout, SHARP) for d in verdict.discrepancies
    }
    assert "output" in beyond
    assert "running_mean" in beyond or (dtype == "float16" and layout in DENSE)


@pytest.mark.parametrize("dtype", HALF)
def test_strided_inputs_of_an_all_half_layer_give_other_bits_all_alike(dtype: str) -> None:
    def same(first: str, second: str) -> bool:
        return all(
            map(
                same_bits, *(outputs(gaussian_case(dtype, layout, 1)) for layout in (first, second))
            )
        )

    assert all(same("contiguous", layout) for layout in DENSE)
    assert not same("contiguous", "sliced")
    assert all(same("sliced", layout) for layout in STRIDED)


@pytest.mark.parametrize("dtype", HALF)
def test_an_expanded_input_of_an_all_half_layer_is_one_of_other_strides(dtype: str) -> None:
    expanded = gaussian_case(dtype, "expanded", 1)

    def written_out(layout: str) -> Case:
        steps = (
            replace(s, x=PLACED[layout](s.x)) if isinstance(s, Forward) else s
            for s in expanded.steps
        )
        return replace(expanded, steps=tuple(steps))

    assert all(map(same_bits, outputs(expanded), outputs(written_out("sliced"))))
    assert not all(map(same_bits, outputs(expanded), outputs(written_out("contiguous"))))


def outputs(case: Case) -> list[Array]:
    answers = play(case, CPU).answers[::2]
    assert all(isinstance(answer.output, np.ndarray) for answer in answers)
    return [np.ascontiguousarray(answer.output) for answer in answers]


# Tensors in and out ------------------------------------------------------------------------------------


def every_half(name: str) -> Array:
    """Every number of 16 bits, NaNs of every payload included."""
    return np.arange(2**16, dtype=np.uint16).view(format_named(name).dtype).reshape(2, 8, 64, 64)


@each_layout
@pytest.mark.parametrize("name", HALF)
def test_half_precision_numbers_cross_bit_for_bit_with_their_strides(
    name: str, layout: str
) -> None:
    there = PLACED[layout](every_half(name))
    tensor = CPU.to_native(there)
    assert tensor.dtype == getattr(torch, name)
    assert tensor.stride() == tuple(stride // 2 for stride in there.strides)
    back = CPU.to_numpy(tensor)
    assert same_bits(back.view(np.uint16), there.view(np.uint16))
    assert back.dtype == there.dtype
    assert back.strides == there.strides


def test_the_bits_of_a_bfloat16_mean_the_same_number_on_both_sides() -> None:
    numbers = [1.0, -0.0, 2.0**-133, 3.3895313892515355e38, -np.inf, 257.0]
    tensor = CPU.to_native(np.array(numbers, format_named("bfloat16").dtype).reshape(-1, 1, 1, 1))
    assert tensor.ravel().tolist() == [*numbers[:-1], 256.0]
    assert np.signbit(tensor.ravel().tolist()[1])


@pytest.mark.parametrize("name", HALF)
def test_a_state_of_half_precision_is_loaded_and_read_bit_for_bit(name: str) -> None:
    weight, bias, mean, var = every_half(name).reshape(4, -1)
    state = State(weight, bias, mean, var, np.array(7))
    held = CPU.layer(Config(2**14, dtype=name), state).state()
    for (field, wanted), (_, got) in zip(state.items(), held.items(), strict=True):
        assert wanted is not None
        assert got is not None
        assert same_bits(got, wanted), field


@pytest.mark.parametrize("shape", [(1, 3, 1, 5), (2, 1, 4, 1), (1, 1, 1, 1), (3, 2, 4, 5)], ids=str)
@each_layout
@pytest.mark.parametrize("name", DTYPES)
def test_a_tensor_crosses_bit_for_bit_with_its_strides_and_its_gaps(
    name: str, layout: str, shape: tuple[int, ...]
) -> None:
    row = DTYPES[name].data
    there = PLACED[layout](np.arange(np.prod(shape)).astype(row.dtype).reshape(shape))
    tensor = CPU.to_native(there)
    back = CPU.to_numpy(tensor)
    assert tensor.stride() == tuple(stride // there.itemsize for stride in there.strides)
    assert (back.dtype, back.shape, back.strides) == (there.dtype, there.shape, there.strides)
    assert same_bits(take_apart(back).flat, take_apart(there).flat)


def test_an_empty_tensor_crosses_too() -> None:
    empty = np.zeros((0, 2, 3, 3), np.float32)
    assert same_bits(CPU.to_numpy(CPU.to_native(empty)), empty)


# State -------------------------------------------------------------------------------------------------

STATE = State(
    weight=np.array([1.5, -2, 0.5], np.float32),
    bias=np.array([1, 2, 3], np.float32),
    running_mean=np.array([3, -1, 0], np.float32),
    running_var=np.array([2, 1, 0.5], np.float32),
    num_batches_tracked=np.array(7),
)
INPUT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def layer_of(state: State | None = STATE, **config: Any) -> Any:
    return CPU.layer(Config(3, **config), state)


def numbers(tensors: Any) -> dict[str, Any]:
    """What is in tensors that have names."""
    items = tensors.items() if hasattr(tensors, "items") else tensors
    return {name: None if tensor is None else tensor.tolist() for name, tensor in items}


def test_a_checkpoint_is_that_of_torch_and_no_later_step_changes_it() -> None:
    layer = layer_of()
    saved = layer.save()
    before = numbers(saved)
    assert before == numbers(layer.module.state_dict()) == numbers(STATE)
    layer.forward(*tensors(INPUT))
    layer.reset_parameters()
    assert numbers(saved) == before != numbers(layer.module.state_dict())
    saved["weight"].fill_(9)
    assert layer.state().weight.tolist() == [1, 1, 1]


def test_loading_copies_what_is_handed_over() -> None:
    layer = layer_of(None)
    given_tensors = dict(zip(STATE_FIELDS, tensors(*STATE.tensors().values()), strict=True))
    layer.load(given_tensors, strict=True)
    assert numbers(layer.state()) == numbers(STATE)
    layer.forward(*tensors(INPUT))
    layer.reset_parameters()
    assert numbers(given_tensors) == numbers(STATE)


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        pytest.param({}, {"bias": None}, "Missing key", id="a tensor that is missing"),
        pytest.param(
            {"affine": False}, {}, "Unexpected key", id="tensors that the layer does not have"
        ),
    ],
)
def test_a_strict_load_wants_all_tensors_and_no_other_and_one_that_is_not_takes_what_there_is(
    config: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    layer = layer_of(None, **config)
    before, native = (
        numbers(layer.state()),
        dict(zip(STATE_FIELDS, tensors(*STATE.tensors().values()), strict=True)),
    )
    some = {name: tensor for name, tensor in (native | changes).items() if tensor is not None}
    with pytest.raises(RuntimeError, match=reason):
        layer.load(some, strict=True)
    layer.load(some, strict=False)
    held = {name: tensor for name, tensor in before.items() if tensor is not None}
    wanted = held | {name: tensor for name, tensor in numbers(some).items() if name in held}
    assert {
        name: tensor for name, tensor in numbers(layer.state()).items() if tensor is not None
    } == wanted


@pytest.mark.parametrize("shape", [(4,), (3, 1), (1, 3), ()], ids=str)
@pytest.mark.parametrize("strict", [True, False])
def test_a_tensor_of_another_shape_is_refused_in_either_way(
    strict: bool, shape: tuple[int, ...]
) -> None:
    layer = layer_of()
    with pytest.raises(RuntimeError, match="size mismatch for running_var"):
        layer.load(layer.save() | {"running_var": torch.ones(shape)}, strict=strict)
    assert numbers(layer.state()) == numbers(STATE)


def test_what_is_configured_is_an_attribute_of_the_module_and_counts_from_the_next_forward() -> (
    None
):
    layer = layer_of(None)
    (x,) = tensors(INPUT)
    layer.configure("momentum", 1.0)
    layer.forward(x)
    assert torch.equal(layer.module.running_mean, x.mean((0, 2, 3)))
    layer.configure("momentum", None)
    layer.configure("eps", 3.0)
    assert (layer.module.momentum, layer.module.eps) == (None, 3.0)
    layer.train(False)
    torch.nn.init.zeros_(layer.module.running_mean)
    torch.nn.init.ones_(layer.module.running_var)
    assert torch.equal(layer.forward(x), x / 2)


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)], ids=str)
def test_folding_is_what_torch_fuses_and_the_convolution_does_what_both_did(
    kernel: tuple[int, int], biased: bool, affine: bool
) -> None:
    torch.manual_seed(0)
    state = STATE if affine else replace(STATE, weight=None, bias=None)
    layer = layer_of(state, affine=affine)
    layer.train(False)
    convolution = torch.nn.Conv2d(2, 3, kernel, bias=biased).eval()
    fused = torch.nn.utils.fuse_conv_bn_eval(convolution, layer.module)
    before = numbers(layer.module.state_dict()), numbers(convolution.state_dict())
    weight, bias = layer.fold(
        convolution.weight.detach(), convolution.bias.detach() if biased else None
    )
    assert torch.equal(weight, fused.weight)
    assert torch.equal(bias, fused.bias)
    assert before == (numbers(layer.module.state_dict()), numbers(convolution.state_dict()))
    x = torch.randn(2, 2, 5, 4)
    torch.testing.assert_close(fused(x), layer.module(convolution(x)))


def spread_out(a: Array) -> Array:
    return spread(a, 3) if a.ndim else a.copy()


def test_a_state_with_gaps_is_held_as_it_lies_in_memory_and_one_without_is_copied() -> None:
    for state, step, shared in ((STATE.map(spread_out), 3, True), (STATE.map(np.copy), 1, False)):
        layer = layer_of(state)
        module = layer.module
        assert set(module.state_dict()) == set(STATE_FIELDS)
        assert {name for name, _ in module.named_parameters()} == {"weight", "bias"}
        assert {getattr(module, name).stride() for name in STATE_FIELDS[:4]} == {(step,)}
        assert numbers(layer.state()) == numbers(STATE)
        layer.forward(*tensors(INPUT))
        moved = layer.state()
        assert numbers(moved) == numbers(layer_of_after_a_forward())
        assert (state.running_mean.tolist() == moved.running_mean.tolist()) is shared  # type: ignore[union-attr]


def layer_of_after_a_forward() -> State:
    layer = layer_of()
    layer.forward(*tensors(INPUT))
    state: State = layer.state()
    return state


def test_no_gradient_is_asked_that_torch_refuses_since_a_tensor_has_moved() -> None:
    words = histories(
        *(
            "forward with gradients",
            "backward if possible",
            "eval",
            "train",
            "forward",
            "load",
            "reset running statistics",
            "reset parameters",
            "save",
        ),
        *(
            "restore",
            "restore some tensors",
            "restore into a new layer",
            "load another size",
            "set eps",
            "empty forward",
        ),
        *("forward of single values", "forward with gradients", "backward if possible"),
        least=4,
        most=12,
    )
    met = []

    @examples(300)
    @given(cases(history=words, claims=CPU.capabilities, shape=shapes("tiny")))
    def never_refused(case: Case) -> None:
        answers = [a for a in play(case, CPU, ()).answers if isinstance(a.step, Backward)]
        met.extend(answers)
        assert not [a.output for a in answers if isinstance(a.output, Raised)]

    never_refused()
    assert len(met) > 50


# Gradients ---------------------------------------------------------------------------------------------

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size)]
X = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
DY = np.sin(X)

in_either_mode = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])


def tensors(*arrays: Array) -> list[Any]:
    return [CPU.to_native(array.copy()) for array in arrays]


def by_autograd(config: Config, training: bool) -> dict[str, Any]:
    """The gradients of a new module as its users get them."""
    module = torch.nn.BatchNorm2d(config.num_features, affine=config.affine).train(training)
    x, dy = tensors(X, DY)
    x.requires_grad_()
    module(x).backward(dy)
    return {"input": x.grad} | {
        name: parameter.grad for name, parameter in module.named_parameters()
    }


@in_either_mode
@pytest.mark.parametrize("wrt", SUBSETS, ids="+".join)
def test_any_subset_of_gradients_is_that_of_autograd_and_nothing_else(
    wrt: tuple[str, ...], training: bool
) -> None:
    layer: Any = CPU.layer(Config(3), None)
    layer.train(training)
    x, dy = tensors(X, DY)
    y, record = layer.record(x, wrt)
    wanted = by_autograd(Config(3), training)
    for _ in range(2):  # any record may be asked again, and nothing is added up
        found = layer.backward(record, dy)._asdict()
        assert {name for name, gradient in found.items() if gradient is not None} == set(wrt)
        assert all(torch.equal(found[name], wanted[name]) for name in wrt)
    assert layer.module.weight.grad is layer.module.bias.grad is x.grad is None
    assert y.requires_grad


@in_either_mode
def test_without_affine_the_gradient_of_the_input_is_that_of_autograd(training: bool) -> None:
    config = Config(3, affine=False)
    layer: Any = CPU.layer(config, None)
    layer.train(training)
    x, dy = tensors(X, DY)
    dx, dweight, dbias = layer.backward(layer.record(x, ("input",))[1], dy)
    assert torch.equal(dx, by_autograd(config, training)["input"])
    assert dweight is dbias is None


def test_a_forward_that_is_not_recorded_leaves_no_graph() -> None:
    layer: Any = CPU.layer(Config(3), None)
    assert not layer.forward(*tensors(X)).requires_grad


def test_a_parameter_that_was_frozen_for_one_forward_is_not_frozen_afterwards() -> None:
    layer: Any = CPU.layer(Config(3), None)
    x, dy = tensors(X, DY)
    _, of_weight = layer.record(x, ("weight",))
    _, of_input = layer.record(x, ("input",))
    assert all(tensor.requires_grad for tensor in (layer.module.weight, layer.module.bias))
    _, of_bias = layer.record(x, ("bias",))
    wanted = by_autograd(Config(3), True)
    for name, record in (("weight", of_weight), ("input", of_input), ("bias", of_bias)):
        found = layer.backward(record, dy)._asdict()
        assert torch.equal(found.pop(name), wanted[name])
        assert set(found.values()) == {None}


def test_a_parameter_that_was_frozen_for_a_forward_that_is_refused_is_not_frozen_afterwards() -> (
    None
):
    layer: Any = CPU.layer(Config(3), None)
    with pytest.raises(RuntimeError):
        layer.record(*tensors(X[:, :2]), ("input",))
    assert all(tensor.requires_grad for tensor in (layer.module.weight, layer.module.bias))
    _, record = layer.record(*tensors(X), ("weight",))
    assert layer.backward(record, *tensors(DY)).weight is not None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@in_either_mode
def test_second_derivatives_are_within_their_bounds(
    training: bool, affine: bool, dtype: str
) -> None:
    x, dy, v = (a.astype(dtype) for a in (X, DY, np.cos(X)))
    of_parameters = (DY[0, :, 0, 0].astype(dtype), v[0, :, 0, 0]) if affine else ()
    wrt = DIFFERENTIABLE if affine else ("input",)
    mode = () if training else (Eval(),)
    steps = (*mode, Forward(x, wrt), DoubleBackward(dy, v, *of_parameters), Backward(dy))
    case = Case(Config(3, affine=affine, dtype=dtype), None, steps)
    observation = play(case, CPU)
    verdict = judge(case, observation, (*DOUBLE_GRADIENTS, *GRADIENTS, "handed"), CPU.capabilities)
    assert not verdict.discrepancies
    assert verdict.judged >= 3 * x.size
    assert (observation.answers[-2].results["double_weight"] is None) is not affine


@in_either_mode
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)], ids=str)
def test_gradients_of_an_empty_batch_are_empty_or_zero(
    shape: tuple[int, ...], training: bool
) -> None:
    nothing = np.zeros(shape, np.float32)
    of_parameters = (DY[0, :, 0, 0], DY[1, :, 0, 0])
    asked = (
        Forward(nothing, DIFFERENTIABLE),
        Backward(nothing),
        DoubleBackward(nothing, nothing, *of_parameters),
    )
    case = Case(Config(3), None, asked if training else (Eval(), *asked))
    assert check(case, CPU) == []
    results: Any = play(case, CPU).answers[-2].results
    assert {name: np.shape(a) for name, a in results.items()} == dict(
        zip(GRADIENTS, (shape, (3,), (3,)), strict=True)
    )
    assert not np.any(results["grad_weight"])


# Known failures: once torch mends one, the test says so ------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 1)], ids=["a single value", "other channels"]
)
def test_a_refused_batch_is_counted_and_has_a_weight_in_the_cumulative_mean(
    shape: tuple[int, ...],
) -> None:
    layer = torch.nn.BatchNorm2d(1, momentum=None)
    layer(batch(1, 1))
    with pytest.raises((ValueError, RuntimeError)):
        layer(torch.ones(shape))
    assert layer.num_batches_tracked == 2, "torch has mended it: remove the known failure"
    assert layer.running_mean.tolist() == [1]
    layer(batch(4, 4))
    assert layer.running_mean.tolist() == [2]  # 1 + (4 - 1) / 3; the mean of both batches is 2.5


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"running_mean": torch.ones(3)}, id="another size"),
        pytest.param({"running_mean": torch.ones(2, 2)}, id="another rank"),
        pytest.param({"running_mean": None}, id="one too few"),
    ],
)
def test_of_tensors_that_are_refused_those_that_fit_are_loaded(changes: dict[str, Any]) -> None:
    layer = torch.nn.BatchNorm2d(2)
    tensors = (
        layer.state_dict()
        | {"bias": torch.ones(2), "num_batches_tracked": torch.tensor(5)}
        | changes
    )
    with pytest.raises(RuntimeError, match="running_mean"):
        layer.load_state_dict(
            {name: tensor for name, tensor in tensors.items() if tensor is not None}
        )
    assert layer.running_mean.tolist() == [0, 0]
    found = layer.bias.tolist(), layer.num_batches_tracked.item()
    assert found == ([1, 1], 5), "torch has mended it: remove the known failure"


@pytest.mark.parametrize("requirement", ["ERR-04", "ERR-06", "STA-09"])
def test_the_failures_of_the_state_that_are_known_are_seen_by_their_properties(
    requirement: str,
) -> None:
    import_module(f"conformance.test_{requirement[:3].lower()}")
    prop = PROPERTIES[requirement]
    cell = Search(Cell(prop, CPU, "float32"), PROFILES["ci"].settings(40))
    cell.examine()
    assert [failure for failure in cell.tally.known if failure.requirement == requirement]


def test_a_dy_in_another_order_whose_first_stride_is_1_is_misread() -> None:
    def gradient(first_stride: int) -> list[float]:
        x = torch.zeros(1, 2, 1, 3, requires_grad=True)
        dy = torch.tensor([1.0, 10, 2, 20, 3, 30]).as_strided((1, 2, 1, 3), (first_stride, 1, 6, 2))
        assert dy.ravel().tolist() == [1, 2, 3, 10, 20, 30]
        (dx,) = torch.autograd.grad(torch.nn.BatchNorm2d(2, eps=1e-12).eval()(x), x, dy)
        numbers: list[float] = dx.ravel().tolist()
        return numbers

    assert gradient(6) == [1, 2, 3, 10, 20, 30]
    assert gradient(1) == [1, 10, 2, 20, 3, 30], "torch has mended it: remove the known failure"


@pytest.mark.parametrize("changes", ["forward", "reset_running_stats"])
def test_running_statistics_that_change_after_an_eval_forward_change_its_gradients(
    changes: str,
) -> None:
    layer = torch.nn.BatchNorm2d(1, eps=1e-12, momentum=1.0).eval()
    torch.nn.init.constant_(layer.running_var, 4.0)
    x = batch(1, 2, 3).requires_grad_()
    y = layer(x)
    (before,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert before.ravel().tolist() == [0.5, 0.5, 0.5]
    if changes == "forward":
        layer.train()(batch(0, 2**0.5))
        (after,) = torch.autograd.grad(y.sum(), x)
        assert after.ravel().tolist() == pytest.approx([1, 1, 1]), (
            "torch has mended it: remove the known failure"
        )
    else:
        layer.reset_running_stats()  # is seen
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y.sum(), x)


def test_the_sum_of_a_strided_dy_of_bfloat16_is_rounded_to_it() -> None:
    ones = torch.ones(257, 1, 1, 1, dtype=torch.bfloat16)
    layer, x = (
        torch.nn.BatchNorm2d(1),
        torch.arange(257).remainder(7).reshape(-1, 1, 1, 1).bfloat16(),
    )
    sums = [torch.autograd.grad(layer(x), layer.bias, dy)[0].item() for dy in (ones, strided(ones))]
    assert sums == [257, 256], "torch has mended it: remove the known failure"


def test_a_strided_dy_of_float16_overflows_in_a_product_that_no_result_needs() -> None:
    x, dy = (
        batch(0, 1, 2, 3, dtype=torch.float16).requires_grad_(),
        batch(4e4, 4e4, 0, 0, dtype=torch.float16),
    )
    y = torch.nn.BatchNorm2d(1)(x)
    (dense,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    assert torch.isfinite(dense).all()
    (apart,) = torch.autograd.grad(y, x, strided(dy))
    assert not torch.isfinite(apart).any(), "torch has mended it: remove the known failure"


# On which cases they are expected ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param((1, 3, 1, 1), True, id="a single value per channel"),
        pytest.param((2, 4, 1, 1), True, id="a channel too many"),
        pytest.param((2, 2, 3, 1), True, id="a channel too few"),
        pytest.param((2, 3, 1, 1), False, id="two values per channel"),
        pytest.param((0, 3, 2, 2), False, id="no samples"),
        pytest.param((3, 1, 1), False, id="another rank"),
        pytest.param((3,), False, id="as many values as channels, of another rank"),
    ],
)
def test_a_refused_batch_is_expected_to_be_counted_where_its_rank_is_right(
    shape: tuple[int, ...], expected: bool
) -> None:
    case = Case(Config(3), None, (Forward(X), Forward(np.ones(shape, np.float32))))
    for requirement in ("ERR-04", "STA-09"):
        (failure,) = [
            failure for failure in CPU.known_failures if failure.requirement == requirement
        ]
        assert failure.covers("num_batches_tracked", case) is expected
        assert not failure.covers("running_mean", case)
    before, answer = play(case, CPU).answers
    counted = before.after.num_batches_tracked != answer.after.num_batches_tracked  # type: ignore[union-attr]
    assert bool(isinstance(answer.output, Raised) and counted) is expected


SIZES = st.tuples(*[st.sampled_from((1, 1, 1, 2, 3))] * 4)
ORDERS = (*PLACED, "expanded")
FIRST_STRIDES = st.sampled_from((None, None, 1, 2, 3, 6, 100))


def laid(shape: tuple[int, ...], order: str, first_stride: int | None) -> Array:
    """Different numbers in an order; an axis of a single sample may have any stride."""
    numbers = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    a = (
        np.broadcast_to(numbers[:1, :1, :1, :1], shape)
        if order == "expanded"
        else PLACED[order](numbers)
    )
    if shape[0] > 1 or first_stride is None:
        return a
    return np.lib.stride_tricks.as_strided(a, shape, (first_stride * a.itemsize, *a.strides[1:]))


def inputs() -> st.SearchStrategy[tuple[Array, Array]]:
    """An input, and a gradient of its shape, each laid out in a way of its own."""
    ways = st.tuples(SIZES, *[st.sampled_from(ORDERS), FIRST_STRIDES] * 2)
    return ways.map(lambda drawn: (laid(drawn[0], *drawn[1:3]), laid(drawn[0], *drawn[3:5])))


def is_dense(tensor: Any) -> bool:
    return bool(tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last))


@examples(600)
@given(inputs())
def test_the_predicates_of_the_adapter_agree_with_torch(pair: tuple[Array, Array]) -> None:
    x, dy = (
        torch.empty_strided(
            a.shape, tuple(stride // a.itemsize for stride in a.strides), device="meta"
        )
        for a in pair
    )
    for a, tensor in zip(pair, (x, dy), strict=True):
        assert known._is_dense(a) == is_dense(tensor)
        assert known._suggests_channels_last(a) == (
            suggest_memory_format(tensor) == torch.channels_last
        )
        assert known._direct_order(a) == (
            tensor.is_contiguous(),
            tensor.is_contiguous(memory_format=torch.channels_last),
        )
    same_format = suggest_memory_format(x) == suggest_memory_format(dy)
    assert known._is_fast(*pair) == (is_dense(x) and is_dense(dy) and same_format)


def test_the_predicates_tell_all_that_they_are_to_tell_apart() -> None:
    met = set()

    @examples(600)
    @given(inputs())
    def collect(pair: tuple[Array, Array]) -> None:
        case = of_gradient(*pair)
        met.add((known._is_fast(*pair), known._is_misread(case), known._is_slow(case)))

    collect()
    assert met == {(False, False, True), (True, False, False), (True, True, False)}


def of_gradient(x: Array, dy: Array) -> Case:
    steps = (Eval(), Forward(x, ("input",)), Backward(dy))
    return Case(Config(x.shape[1], affine=False), None, steps)


@examples(300)
@given(inputs())
def test_a_gradient_is_wrong_just_where_it_is_said_to_be_misread(pair: tuple[Array, Array]) -> None:
    case = of_gradient(*pair)
    found = judge(case, play(case, CPU), ["grad_input"], CPU.capabilities).discrepancies
    assert bool(found) == known._is_misread(case)
