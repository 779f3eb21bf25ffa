"""The adapter distinguishes memory formats as ATen does, and predicts the gradients it misreads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config
from bn_spec.backend.adapters import memory_formats as ours
from bn_spec.backend.adapters.torch_known import is_misread, is_read_by_strides
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import Backward, Eval, Forward
from bn_spec.judge.judging import judge
from bn_spec.play.player import play
from tests.common import examples

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from torch._prims_common import suggest_memory_format  # noqa: E402

from tests.torch_layers import CPU  # noqa: E402 - it needs torch

SIZES = st.tuples(*[st.sampled_from((1, 1, 1, 2, 3))] * 4)
ORDERS = (*PLACED, "expanded")
FIRST_STRIDES = st.sampled_from((None, None, 1, 2, 3, 6, 100))


def laid(shape: tuple[int, ...], order: str, first_stride: int | None) -> Array:
    """Return different numbers in an order.

    The axis of a single sample may have any stride.
    """
    numbers = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    if order == "expanded":
        a = np.broadcast_to(numbers[:1, :1, :1, :1], shape)
    else:
        a = PLACED[order](numbers)
    if shape[0] > 1 or first_stride is None:
        return a
    return np.lib.stride_tricks.as_strided(a, shape, (first_stride * a.itemsize, *a.strides[1:]))


def inputs() -> st.SearchStrategy[tuple[Array, Array]]:
    """Draw an input, and a gradient of its shape, each laid out in a way of its own."""
    ways = st.tuples(SIZES, *[st.sampled_from(ORDERS), FIRST_STRIDES] * 2)
    return ways.map(lambda drawn: (laid(drawn[0], *drawn[1:3]), laid(drawn[0], *drawn[3:5])))


def of_the_same_strides(a: Array) -> Any:
    """Return a tensor without memory, with the strides of an array."""
    strides = tuple(stride // a.itemsize for stride in a.strides)
    return torch.empty_strided(a.shape, strides, device="meta")


def is_dense(tensor: Any) -> bool:
    return bool(tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last))


@examples(600)
@given(inputs())
def test_the_predicates_of_the_adapter_agree_with_torch(pair: tuple[Array, Array]) -> None:
    x, dy = (of_the_same_strides(a) for a in pair)
    for a, tensor in zip(pair, (x, dy), strict=True):
        assert ours.is_dense(a) == is_dense(tensor)
        assert ours.suggests_channels_last(a) == (
            suggest_memory_format(tensor) == torch.channels_last
        )
        assert ours.orders(a) == (
            tensor.is_contiguous(),
            tensor.is_contiguous(memory_format=torch.channels_last),
        )
    same_format = suggest_memory_format(x) == suggest_memory_format(dy)
    assert ours.are_read_directly(*pair) == (is_dense(x) and is_dense(dy) and same_format)


def test_the_predicates_have_every_possible_combination_of_answers() -> None:
    met = set()

    @examples(600)
    @given(inputs())
    def collect(pair: tuple[Array, Array]) -> None:
        case = of_gradient(*pair)
        met.add((ours.are_read_directly(*pair), is_misread(case), is_read_by_strides(case)))

    collect()
    assert met == {(False, False, True), (True, False, False), (True, True, False)}


def of_gradient(x: Array, dy: Array) -> Case:
    """Return a case of an eval forward and its backward."""
    steps = (Eval(), Forward(x, ("input",)), Backward(dy))
    return Case(Config(x.shape[1], affine=False), None, steps)


@examples(300)
@given(inputs())
def test_a_gradient_is_wrong_exactly_where_dy_is_misread(pair: tuple[Array, Array]) -> None:
    case = of_gradient(*pair)
    found = judge(case, play(case, CPU), ["grad_input"], CPU.capabilities).discrepancies
    assert bool(found) == is_misread(case)
