"""Shapes, layouts and misused inputs: which ones are drawn, and what they are like."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config
from bn_spec.case.arrays import same_bits, take_apart
from bn_spec.case.dtypes import Array, format_named
from bn_spec.case.layouts import LAYOUTS, PLACED, USUAL_LAYOUTS
from bn_spec.case.steps import Eval, Forward
from bn_spec.oracle.bias import LIMIT
from bn_spec.oracle.expectation import refusal_of
from bn_spec.strategies import (
    LARGE,
    PARAMETERS,
    REGIONS,
    among,
    cases,
    chosen,
    misused,
    of_single_values,
    of_wrong_channels,
    of_wrong_rank,
    shapes,
)
from bn_spec.strategies.shapes import Shape, with_values
from tests.common import examples
from tests.draws import RAMP, drawn, layout_of, sample_of_shapes

# Every region is reached


@pytest.mark.parametrize("names", [("tiny",), ("spatial edge", "channel edge")])
def test_shapes_come_from_the_named_regions_alone(names: tuple[str, ...]) -> None:
    assert set(drawn(chosen(shapes(*names)), 100)) <= {
        shape for name in names for shape in REGIONS[name]
    }


@pytest.mark.parametrize("name", [*REGIONS, *LARGE])
def test_a_region_is_listed_from_the_smallest_shape_to_the_largest(name: str) -> None:
    listed = REGIONS.get(name) or LARGE[name]
    sizes = [prod(shape) for shape in listed]
    assert sizes == sorted(sizes)
    assert len(set(listed)) == len(listed)


def test_large_regions_are_drawn_where_they_are_asked_for_alone() -> None:
    large = {shape for name in LARGE for shape in LARGE[name]} - {
        s for name in REGIONS for s in REGIONS[name]
    }
    assert not large & set(sample_of_shapes())
    for name in LARGE:
        assert set(drawn(chosen(shapes(name)), 100)) <= set(LARGE[name])


def test_large_regions_are_as_large_as_they_are_for() -> None:
    values_per_channel = {
        name: [prod(shape) // shape[1] for shape in LARGE[name]] for name in LARGE
    }
    powers = values_per_channel["powers of two"]
    assert all(n & (n - 1) == 0 for n in powers)
    assert {2**k for k in range(1, 14)} <= set(powers)
    assert max(powers) > 4096  # a term in thousands weighs less than a rounding each
    assert min(values_per_channel["long"]) >= 1000
    assert min(values_per_channel["beyond half"]) > format_named("float16").largest
    assert min(shape[1] for shape in LARGE["many channels"]) > LIMIT**2
    assert set(values_per_channel["many channels of two values"]) == {2}


@pytest.mark.parametrize("axis", ["N", "C"])
def test_a_count_beyond_16_bits_is_drawn_on_an_axis_and_of_either_parity(axis: str) -> None:
    counts = {shape["NCHW".index(axis)] for shape in LARGE["beyond 16 bits"]}
    assert {2**16, 2**16 + 1} <= counts


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param((8, 64, 112, 112), id="the first of ResNet-50"),
        pytest.param((8, 2048, 7, 7), id="the last of ResNet-50"),
        pytest.param((4, 960, 7, 7), id="the widest depthwise of MobileNetV2"),
        pytest.param((4, 1152, 7, 7), id="the widest depthwise of EfficientNet-B0"),
        pytest.param((1, 1024, 28, 28), id="the bottom of U-Net"),
        pytest.param((4, 992, 7, 7), id="odd widths of DenseNet-121"),
    ],
)
def test_layers_of_networks_are_those_of_the_papers(layer: Shape) -> None:
    assert layer in LARGE["networks"]


@pytest.mark.parametrize("name", LARGE)
def test_the_largest_shape_of_a_region_fits_into_64_mebibytes_in_double_precision(
    name: str,
) -> None:
    assert 8 * max(map(prod, LARGE[name])) <= 2**26


# Shapes, layouts and misuse


@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(1, 9))
@examples(120)
def test_the_batch_is_raised_as_little_as_the_values_per_channel_need(
    shape: Shape, least: int
) -> None:
    n, c, h, w = with_values(shape, least)
    assert (c, h, w) == shape[1:]
    assert n * h * w >= least
    assert n == shape[0] or (n - 1) * h * w < least


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded"])
def test_a_layout_moves_values_and_changes_none(layout: str) -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    laid = PLACED[layout](x)
    strides = {
        "contiguous": (60, 20, 5, 1),
        "channels_last": (60, 1, 15, 3),
        "permuted": (1, 2, 6, 24),
        "sliced": (120, 40, 10, 2),
        "cropped": (144, 48, 8, 1),
        "split": (80, 20, 5, 1),
        "ambiguous": (60, 20, 5, 1),
    }
    assert same_bits(laid, x)
    assert tuple(stride // 4 for stride in laid.strides) == strides[layout]
    assert not np.shares_memory(laid, x)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((1, 3, 4, 5), (1, 20, 5, 1)),
        ((2, 1, 4, 5), (20, 1, 5, 1)),
        ((2, 3, 1, 5), (15, 5, 1, 1)),
        ((2, 3, 4, 1), (12, 4, 1, 1)),
        ((1, 3, 1, 5), (1, 5, 1, 1)),
        ((1, 1, 1, 1), (1, 1, 1, 1)),
    ],
    ids=str,
)
def test_an_ambiguous_layout_has_odd_strides_for_axes_of_length_1_alone(
    shape: Shape, strides: tuple[int, ...]
) -> None:
    x = np.arange(prod(shape), dtype=np.float32).reshape(shape)
    laid = PLACED["ambiguous"](x)
    assert same_bits(laid, x)
    assert take_apart(laid).strides == strides
    assert not np.shares_memory(laid, x)


@pytest.mark.parametrize("layout", PLACED)
def test_what_was_reversed_is_laid_out_as_anything_else(layout: str) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    for backwards in (x[::-1], x[:, :, ::-1, ::-1]):
        assert PLACED[layout](backwards).strides == PLACED[layout](backwards.copy()).strides


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((2, 3, 4, 5), (0, 20, 5, 1)), ((1, 3, 4, 5), (0, 4, 1, 0)), ((1, 1, 1, 5), (0, 0, 0, 0))],
    ids=str,
)
def test_an_expanded_layout_repeats_its_first_sample_or_else_its_first_column(
    shape: Shape, strides: tuple[int, ...]
) -> None:
    x = np.arange(prod(shape), dtype=np.float32).reshape(shape)
    laid = PLACED["expanded"](x)
    kept = x[:1] if len(x) > 1 else x[..., :1]
    assert same_bits(laid, np.broadcast_to(kept, shape))
    assert take_apart(laid).strides == strides
    assert not np.shares_memory(laid, x)


def test_layouts_about_memory_are_drawn_where_they_are_asked_for_alone() -> None:
    asked = {
        layout_of(x)
        for case in drawn(cases(layouts=tuple(PLACED), **LARGER), 200)
        for x in case.forwards()
    }
    assert asked == set(PLACED)
    assert {layout_of(x) for case in drawn(cases(**LARGER), 200) for x in case.forwards()} == set(
        USUAL_LAYOUTS
    )


LARGER: dict[str, Any] = {"shape": among([(1, 2, 3, 4)])}
"""Choices for inputs of which all layouts can be told apart."""


def test_every_layout_has_a_way_to_be_laid_out() -> None:
    assert tuple(PLACED) == LAYOUTS


@pytest.mark.parametrize("in_eval", [False, True])
@pytest.mark.parametrize("way", [of_single_values, of_wrong_rank, of_wrong_channels])
def test_every_misused_input_must_be_refused(
    way: Callable[[Array], list[Array]], in_eval: bool
) -> None:
    for case in drawn(cases(shape=shapes("tiny", "different"), parameters=tuple(PARAMETERS)), 50):
        wrong = misused(case, way, in_eval=in_eval)
        assert (wrong.config, wrong.state) == (case.config, case.state)
        bad = list(wrong.forwards())
        assert bad
        assert all(refusal_of(case.config, x, batch_statistics=True) for x in bad)


def test_misuse_in_eval_repeats_the_same_inputs_after_the_switch() -> None:
    case = Case(Config(1), None, (Forward(RAMP),))
    once, again = (
        misused(case, of_wrong_rank).steps,
        misused(case, of_wrong_rank, in_eval=True).steps,
    )
    assert [type(step) for step in again] == [Forward] * len(once) + [Eval] + [Forward] * len(once)
    assert again[: len(once)] == again[len(once) + 1 :]


def test_wrong_ranks_are_tried_below_and_above() -> None:
    assert {x.ndim for x in of_wrong_rank(RAMP)} == {2, 3, 5}


def test_a_single_value_is_the_first_of_each_channel() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    (alone,) = of_single_values(x)
    assert alone.shape == (1, 3, 1, 1)
    assert alone.ravel().tolist() == [0, 4, 8]


def test_wrong_channels_are_one_more_and_one_fewer_where_one_is_left() -> None:
    assert [x.shape[1] for x in of_wrong_channels(np.zeros((2, 3, 1, 1)))] == [4, 2]
    assert [x.shape[1] for x in of_wrong_channels(RAMP)] == [2]
