"""Arrays become tensors of PyTorch and come back, bit for bit and with their strides."""

from __future__ import annotations

import numpy as np
import pytest

from bn_spec import Config, State
from bn_spec.case.arrays import same_bits, take_apart
from bn_spec.case.dtypes import DTYPES, Array, format_named
from bn_spec.case.layouts import PLACED

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_layers import CPU, HALF  # noqa: E402 - it needs torch

each_layout = pytest.mark.parametrize("layout", PLACED)


def every_half(name: str) -> Array:
    """Return every number of 16 bits, NaNs of every payload included."""
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
    loaded = CPU.layer(Config(2**14, dtype=name), state).state()
    for (field, wanted), (_, got) in zip(state.items(), loaded.items(), strict=True):
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
