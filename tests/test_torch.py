"""What the adapter and the documents say about PyTorch's own BatchNorm2d on the CPU is so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, State
from bn_spec.bounds import Accuracy
from bn_spec.case import Eval, Forward
from bn_spec.dtypes import DTYPES, Array, format_named
from bn_spec.judge import Verdict, judge
from bn_spec.memory import same_bits
from bn_spec.play import play
from bn_spec.strategies import LAYOUT, Recipe

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from bn_spec.backends.torch import cpu  # noqa: E402 - it needs torch

CPU = cpu()
SHARP = replace(CPU.capabilities, statistics="accumulation", elementwise="accumulation")
"""What the adapter would claim if every step were taken in float32."""

OBSERVABLES = ("output", "running_mean", "running_var")
MIXED = ("mixed_float16", "mixed_bfloat16")
HALF = ("float16", "bfloat16")
STRIDED = tuple(name for name in LAYOUT if name not in ("contiguous", "channels_last"))

each_layout = pytest.mark.parametrize("layout", LAYOUT)


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


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 1)], ids=["a single value", "other channels"])
def test_a_refused_batch_is_counted(shape: tuple[int, ...]) -> None:
    layer = torch.nn.BatchNorm2d(1)
    with pytest.raises((ValueError, RuntimeError)):
        layer(torch.ones(shape))
    assert layer.num_batches_tracked == 1


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


def test_strided_inputs_of_an_all_float16_layer_overflow_in_a_difference_that_no_result_needs() -> None:
    x = batch(-6e4, 6e4, 6e4, 6e4, dtype=torch.float16)
    layer = torch.nn.BatchNorm2d(1, dtype=torch.float16)
    assert torch.isfinite(layer(x)).all()
    assert not torch.isfinite(layer(strided(x))).all()


# The precision of the steps ----------------------------------------------------------------------------


def gaussian_case(dtype: str, layout: str, seed: int) -> Case:
    row, rng = DTYPES[dtype], np.random.default_rng(seed)
    held = row.parameters.dtype
    x = LAYOUT[layout](Recipe("gaussian", 0, float(seed % 3), seed).make((3, 4, 3, 5), row))
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
    assert max(verdict.shares["output"] for verdict in found) > 0.9  # one rounding to half, at the end
    assert max(verdict.shares[name] for verdict in found for name in OBSERVABLES[1:]) < 0.5


@each_layout
@pytest.mark.parametrize("dtype", HALF)
def test_all_half_layers_keep_statistics_in_half_as_claimed(dtype: str, layout: str) -> None:
    assert not any(verdict.discrepancies for verdict in verdicts(dtype, layout, CPU.capabilities))
    beyond = {d.observable for verdict in verdicts(dtype, layout, SHARP) for d in verdict.discrepancies}
    assert "output" in beyond
    assert "running_mean" in beyond or (dtype, layout) in {("float16", "contiguous"), ("float16", "channels_last")}


@pytest.mark.parametrize("dtype", HALF)
def test_strided_inputs_of_an_all_half_layer_give_other_bits_all_alike(dtype: str) -> None:
    def answers(layout: str) -> list[Array]:
        answers = play(gaussian_case(dtype, layout, 1), CPU).answers
        assert all(isinstance(answer.output, np.ndarray) for answer in answers[::2])
        return [np.ascontiguousarray(answer.output) for answer in answers[::2]]

    def same(first: str, second: str) -> bool:
        return all(map(same_bits, answers(first), answers(second)))

    assert same("contiguous", "channels_last")
    assert not same("contiguous", "sliced")
    assert all(same("sliced", layout) for layout in STRIDED)


# Tensors in and out ------------------------------------------------------------------------------------


def every_half(name: str) -> Array:
    """Every number of 16 bits, NaNs of every payload included."""
    return np.arange(2**16, dtype=np.uint16).view(format_named(name).dtype).reshape(2, 8, 64, 64)


@each_layout
@pytest.mark.parametrize("name", HALF)
def test_half_precision_numbers_cross_bit_for_bit_with_their_strides(name: str, layout: str) -> None:
    there = LAYOUT[layout](every_half(name))
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


def test_an_empty_tensor_crosses_too() -> None:
    empty = np.zeros((0, 2, 3, 3), np.float32)
    assert same_bits(CPU.to_numpy(CPU.to_native(empty)), empty)
