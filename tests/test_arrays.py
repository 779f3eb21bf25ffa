"""Arrays taken apart, put together and copied keep every stride and every bit."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.arrays import (
    FILLER,
    MARGIN,
    Fenced,
    Parts,
    gaps,
    interchangeable,
    private_copy,
    put_together,
    same_bits,
    take_apart,
)
from bn_spec.case.dtypes import Array
from tests.common import examples

DTYPES = st.sampled_from(("float32", "float64", "int64"))


@st.composite
def views(draw: st.DrawFn) -> Array:
    """Arrays of 0 to 5 dimensions, some empty: contiguous, sliced, permuted, or of stride 0."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    base = np.arange(prod(shape)).reshape(shape).astype(draw(DTYPES))
    steps = draw(st.tuples(*[st.tuples(st.integers(0, 1), st.integers(1, 3)) for _ in shape]))
    index: tuple[Any, ...] = (*(slice(start, None, step) for start, step in steps), ...)
    sliced = base[index]
    permuted = sliced.transpose(draw(st.permutations(range(len(shape)))))
    return (
        np.broadcast_to(permuted, (draw(st.integers(1, 3)), *permuted.shape))
        if draw(st.booleans())
        else permuted
    )


@examples(180)
@given(views())
def test_what_was_taken_apart_is_put_together_as_the_same_view_of_the_same_memory(
    view: Array,
) -> None:
    again = put_together(take_apart(view))
    assert same_bits(again, view)
    assert again.strides == view.strides
    assert np.shares_memory(again, view) == (view.size > 0)


@examples(180)
@given(views())
def test_the_flat_memory_reaches_exactly_from_the_first_element_to_the_last(view: Array) -> None:
    flat, shape, strides = take_apart(view)
    offsets = [int(np.dot(index, strides)) for index in np.ndindex(shape)] if view.size else []
    assert flat.size == (max(offsets) + 1 if offsets else 0)
    assert [flat[offset] for offset in offsets] == view.ravel().tolist()


@examples(180)
@given(views())
def test_a_private_copy_keeps_strides_and_gaps_and_shares_no_memory(view: Array) -> None:
    copy = private_copy(view)
    assert same_bits(copy, view)
    assert copy.strides == view.strides
    assert same_bits(take_apart(copy).flat, take_apart(view).flat)
    assert not np.may_share_memory(copy, view)


@st.composite
def with_odd_strides(draw: st.DrawFn) -> Array:
    """Arrays in C order with any stride on axes of length 1, where no address depends on it."""
    shape = tuple(draw(st.lists(st.integers(0, 3) | st.just(1), max_size=5)))
    flat, _, strides = take_apart(np.arange(prod(shape), dtype=np.float32).reshape(shape))
    odd = tuple(
        draw(st.integers(0, 9)) if length == 1 else step
        for length, step in zip(shape, strides, strict=True)
    )
    return put_together(Parts(flat, shape, odd))


@examples(120)
@given(with_odd_strides())
def test_odd_strides_of_axes_of_length_one_are_kept_and_reach_no_other_memory(view: Array) -> None:
    assert view.flags.c_contiguous
    flat, shape, strides = take_apart(view)
    assert flat.tolist() == list(range(view.size))
    assert np.shares_memory(flat, view) == (view.size > 0)
    assert tuple(stride * view.itemsize for stride in strides) == view.strides
    for copy in (put_together(Parts(flat, shape, strides)), private_copy(view), Fenced(view).array):
        assert interchangeable(copy, view)
    assert gaps(view).size == 0


def test_the_memory_of_a_broadcast_column_is_not_that_of_its_whole_shape() -> None:
    assert take_apart(np.broadcast_to(np.arange(3.0)[:, None], (3, 4))).flat.tolist() == [0, 1, 2]
    assert take_apart(np.broadcast_to(np.float32(7), (1, 1))).flat.tolist() == [7]


def test_writing_into_a_private_copy_leaves_the_original_as_it_was() -> None:
    original = np.arange(6.0).reshape(2, 3)[:, ::2]
    private_copy(original)[:] = 9
    assert original.tolist() == [[0, 2], [3, 5]]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(4.0)[::-1], id="negative"),
        pytest.param(np.zeros((2, 3))[:, ::-2], id="negative in one axis"),
        pytest.param(
            np.zeros(3, [("odd", "i1"), ("value", "f4")])["value"], id="a fraction of an element"
        ),
    ],
)
def test_strides_that_count_no_elements_are_refused(array: Array) -> None:
    with pytest.raises(
        ValueError, match=r"strides \(.*\) bytes; allowed: whole, non-negative multiples of \d"
    ):
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
def test_a_view_that_reaches_outside_its_memory_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"shape .* with strides .* does not fit into 6 elements"):
        put_together(Parts(np.zeros(6), shape, strides))


@pytest.mark.parametrize(
    ("shape", "strides"), [((6,), (1,)), ((2, 3), (3, 1)), ((2, 2), (3, 2)), ((9,), (0,))]
)
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
        pytest.param(
            np.eye(3)[::2],
            np.array(np.eye(3)[::2], order="F"),
            True,
            id="the layout does not matter",
        ),
    ],
)
def test_bits_are_compared_one_by_one(a: Any, b: Any, same: bool) -> None:
    assert same_bits(a, b) is same
    assert same_bits(b, a) is same


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        pytest.param(np.zeros(2), np.zeros(2), True, id="equal arrays"),
        pytest.param(NAN, NAN.copy(), True, id="NaN"),
        pytest.param(NAN, NAN, True, id="itself"),
        pytest.param(np.zeros(1), -np.zeros(1), False, id="the sign of zero"),
        pytest.param(np.zeros((2, 2)), np.zeros((2, 2), order="F"), False, id="the strides"),
    ],
)
def test_arrays_are_interchangeable_when_bits_and_strides_agree(
    a: Array, b: Array, same: bool
) -> None:
    assert interchangeable(a, b) is same
    assert interchangeable(b, a) is same


# Fences -------------------------------------------------------------------------------------------


@examples(180)
@given(views())
def test_the_gaps_of_a_view_are_the_places_in_its_memory_that_no_index_leads_to(
    view: Array,
) -> None:
    flat, shape, strides = take_apart(view)
    reached = {int(np.dot(index, strides)) for index in np.ndindex(shape)} if view.size else set()
    assert gaps(view).tolist() == sorted(set(range(flat.size)) - reached)


@pytest.mark.parametrize(
    ("view", "places"),
    [
        pytest.param(np.zeros(7)[::3], [1, 2, 4, 5], id="every third element"),
        pytest.param(np.zeros((3, 4))[:, 1:3], [2, 3, 6, 7], id="two columns of four"),
        pytest.param(np.zeros((3, 4)).T, [], id="a transposed matrix"),
        pytest.param(np.broadcast_to(np.zeros(1), (5,)), [], id="one element for all"),
        pytest.param(
            np.broadcast_to(np.zeros(5)[::2], (2, 3)), [1, 3], id="every second element, twice"
        ),
        pytest.param(
            np.broadcast_to(np.zeros(5)[::2, None], (3, 2)),
            [1, 3],
            id="every second element, beside itself",
        ),
        pytest.param(np.zeros((0, 3)), [], id="nothing"),
        pytest.param(np.array(1.0), [], id="a number"),
    ],
)
def test_the_gaps_of_some_views_are_these(view: Array, places: list[int]) -> None:
    assert gaps(view).tolist() == places


@examples(180)
@given(views())
def test_a_fenced_copy_is_a_private_copy(view: Array) -> None:
    fenced = Fenced(view)
    assert interchangeable(fenced.array, view)
    assert same_bits(take_apart(fenced.array).flat, take_apart(view).flat)
    assert not np.may_share_memory(fenced.array, view)
    assert not fenced.overrun()


@examples(180)
@given(views(), st.integers(-5, 5))
def test_a_fence_stands_whatever_is_written_into_the_elements_of_its_copy(
    view: Array, number: int
) -> None:
    fenced = Fenced(view)
    fenced.array[...] = number
    assert not fenced.overrun()


@examples(180)
@given(views(), st.data())
def test_one_number_written_anywhere_but_into_the_elements_is_an_overrun(
    view: Array, data: st.DataObject
) -> None:
    fenced = Fenced(view)
    size = len(fenced.memory) - 2 * MARGIN
    outside = [*range(MARGIN), *(MARGIN + gaps(view)), *range(MARGIN + size, len(fenced.memory))]
    place = data.draw(st.sampled_from(outside))
    before = fenced.memory[place].copy()
    fenced.memory[place] += 1
    assert fenced.overrun()
    fenced.memory[place] = before
    assert not fenced.overrun()


@examples(60)
@given(views())
def test_a_fence_stands_on_both_sides_of_the_first_and_the_last_element(view: Array) -> None:
    fenced = Fenced(view)
    flat = take_apart(view).flat
    assert (fenced.memory[:MARGIN] == FILLER).all()
    assert (fenced.memory[-MARGIN:] == FILLER).all()
    assert same_bits(fenced.memory[MARGIN:-MARGIN], flat)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_a_copy_of_any_dtype_is_fenced_by_numbers_that_its_data_seldom_are(dtype: str) -> None:
    fenced = Fenced(np.ones(3, dtype))
    filler = fenced.memory[0]
    assert np.isfinite(filler)
    assert abs(float(filler) - FILLER) <= FILLER * 2**-8
    fenced.memory[0] = np.nan if dtype != "int64" else 0
    assert fenced.overrun()
    fenced.memory[0] = filler
    assert not fenced.overrun()
