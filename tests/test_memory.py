"""Arrays taken apart, put together and copied keep every stride and every bit."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.dtypes import Array
from bn_spec.memory import Parts, private_copy, put_together, same_bits, take_apart

from .common import examples

DTYPES = st.sampled_from(("float32", "float64", "int64"))


@st.composite
def views(draw: st.DrawFn) -> Array:
    """Arrays of 0 to 5 dimensions, some of size 0: contiguous, sliced, permuted and expanded with stride 0."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    base = np.arange(prod(shape)).reshape(shape).astype(draw(DTYPES))
    steps = draw(st.tuples(*[st.tuples(st.integers(0, 1), st.integers(1, 3)) for _ in shape]))
    index: tuple[Any, ...] = (*(slice(start, None, step) for start, step in steps), ...)
    sliced = base[index]
    permuted = sliced.transpose(draw(st.permutations(range(len(shape)))))
    return np.broadcast_to(permuted, (draw(st.integers(1, 3)), *permuted.shape)) if draw(st.booleans()) else permuted


@examples(300)
@given(views())
def test_what_was_taken_apart_is_put_together_as_the_same_view_of_the_same_memory(view: Array) -> None:
    again = put_together(take_apart(view))
    assert same_bits(again, view)
    assert again.strides == view.strides
    assert np.shares_memory(again, view) == (view.size > 0)


@examples(300)
@given(views())
def test_the_flat_memory_reaches_exactly_from_the_first_element_to_the_last(view: Array) -> None:
    flat, shape, strides = take_apart(view)
    offsets = [int(np.dot(index, strides)) for index in np.ndindex(shape)] if view.size else []
    assert flat.size == (max(offsets) + 1 if offsets else 0)
    assert [flat[offset] for offset in offsets] == view.ravel().tolist()


@examples(300)
@given(views())
def test_a_private_copy_keeps_strides_and_gaps_and_shares_no_memory(view: Array) -> None:
    copy = private_copy(view)
    assert same_bits(copy, view)
    assert copy.strides == view.strides
    assert same_bits(take_apart(copy).flat, take_apart(view).flat)
    assert not np.may_share_memory(copy, view)


def test_writing_into_a_private_copy_leaves_the_original_as_it_was() -> None:
    original = np.arange(6.0).reshape(2, 3)[:, ::2]
    private_copy(original)[:] = 9
    assert original.tolist() == [[0, 2], [3, 5]]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(4.0)[::-1], id="negative"),
        pytest.param(np.zeros((2, 3))[:, ::-2], id="negative in one axis"),
        pytest.param(np.zeros(3, [("odd", "i1"), ("value", "f4")])["value"], id="a fraction of an element"),
    ],
)
def test_strides_that_count_no_elements_are_refused(array: Array) -> None:
    with pytest.raises(ValueError, match=r"strides \(.*\) bytes; allowed: whole, non-negative multiples of \d"):
        take_apart(array)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((7,), (1,)),
        ((2, 3), (4, 1)),
        ((2,), (6,)),
        ((2,), (-1,)),
        ((-1,), (1,)),
        ((-1, -7), (1, 1)),
    ],
)
def test_a_view_that_reaches_outside_its_memory_is_refused(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape .* with strides .* does not fit into 6 elements"):
        put_together(Parts(np.zeros(6), shape, strides))


@pytest.mark.parametrize(("shape", "strides"), [((6,), (1,)), ((2, 3), (3, 1)), ((2, 2), (3, 2)), ((9,), (0,))])
def test_a_view_that_just_fits_is_made(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    assert put_together(Parts(np.zeros(6), shape, strides)).shape == shape


def other_nan() -> Array:
    """A NaN with another payload."""
    return np.array([0x7FC00001], np.uint32).view(np.float32)


NAN = np.array([np.nan], np.float32)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        pytest.param(NAN, NAN.copy(), True, id="NaN equals itself"),
        pytest.param(NAN, other_nan(), False, id="NaN of another payload"),
        pytest.param(np.zeros(1), -np.zeros(1), False, id="the sign of zero"),
        pytest.param(np.zeros(1, np.float32), np.zeros(1), False, id="the dtype"),
        pytest.param(np.zeros(1), np.zeros((1, 1)), False, id="the shape"),
        pytest.param(np.zeros(0), np.zeros(0), True, id="nothing equals nothing"),
        pytest.param(np.eye(3)[::2], np.array(np.eye(3)[::2], order="F"), True, id="the layout does not matter"),
    ],
)
def test_bits_are_compared_one_by_one(a: Any, b: Any, same: bool) -> None:
    assert same_bits(a, b) is same
    assert same_bits(b, a) is same
