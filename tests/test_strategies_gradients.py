"""Words that add gradients: recorded forwards, backwards and double backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bn_spec import Case
from bn_spec.case.arrays import same_bits
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.layouts import USUAL_LAYOUTS
from bn_spec.case.steps import DIFFERENTIABLE, Backward, DoubleBackward, Forward
from bn_spec.strategies import (
    ABSENT,
    FAMILIES,
    MIXED,
    RUNNING_STYLES,
    cases,
    chosen,
    gradients,
    shapes,
)
from tests.draws import cases_of_history, drawn, each_dtype, last_two, layout_of


def gradient_cases(*history: str, **choices: Any) -> list[Case]:
    return drawn(
        cases(
            history=("forward with gradients", *history),
            running=(*RUNNING_STYLES, ABSENT),
            **choices,
        ),
        60,
    )


def test_a_recorded_forward_asks_for_a_choice_of_the_gradients_that_its_layer_has() -> None:
    choices = (("input",), ("bias", "weight"), DIFFERENTIABLE)
    met = {
        (case.config.affine, step.wrt)
        for case in gradient_cases(wrt=choices)
        for step in case.steps
        if isinstance(step, Forward)
    }
    assert met == {*((True, wrt) for wrt in choices), (False, ("input",))}


def test_all_gradients_are_asked_unless_it_is_said_which() -> None:
    for case in gradient_cases():
        (step,) = case.steps
        assert isinstance(step, Forward)
        assert step.wrt == (DIFFERENTIABLE if case.config.affine else ("input",))


@each_dtype
def test_a_backward_is_handed_a_gradient_for_the_last_forward(dtype: str) -> None:
    for case in gradient_cases("forward with gradients", "backward", dtype=dtype):
        forward, step = last_two(case)
        assert (step.of, step.dy.shape, step.dy.dtype) == (
            -1,
            forward.x.shape,
            DTYPES[dtype].data.dtype,
        )
        assert np.isfinite(step.dy.astype(np.float64)).all()


def test_a_backward_of_the_first_is_handed_a_gradient_for_the_first_forward() -> None:
    met = gradient_cases("forward with gradients", "backward of the first")
    for case in met:
        first, _, step = case.steps
        assert isinstance(first, Forward)
        assert isinstance(step, Backward)
        assert (step.of, step.dy.shape) == (0, first.x.shape)
    assert any(len({x.shape for x in case.forwards()}) > 1 for case in met)


@pytest.mark.parametrize(
    ("past", "of"),
    [
        pytest.param(("forward",), None, id="nothing was recorded"),
        pytest.param(("forward with gradients",), 0, id="the last"),
        pytest.param(
            ("forward with gradients", "forward", "eval", "forward"), 0, id="one before others"
        ),
        pytest.param(
            ("forward with gradients", "forward", "forward with gradients", "forward"),
            2,
            id="the last of two",
        ),
        pytest.param(
            ("forward with gradients", "set eps", "set momentum", "save"),
            0,
            id="attributes are no tensors",
        ),
        pytest.param(
            ("forward with gradients", "forward of single values"),
            0,
            id="one before what was refused",
        ),
        pytest.param(("forward with gradients", "load"), None, id="parameters were loaded"),
        pytest.param(
            ("forward with gradients", "load without one tensor"),
            None,
            id="parameters may have been loaded in part",
        ),
        pytest.param(
            ("save", "forward with gradients", "restore some tensors"),
            None,
            id="parameters were restored",
        ),
        pytest.param(
            ("forward with gradients", "reset parameters"), None, id="parameters were reset"
        ),
        pytest.param(
            ("eval", "forward with gradients", "reset running statistics"),
            None,
            id="statistics were reset",
        ),
        pytest.param(
            ("eval", "forward with gradients", "train", "forward"),
            None,
            id="statistics moved after an eval forward",
        ),
        pytest.param(
            ("eval", "forward with gradients", "forward", "train"),
            0,
            id="no statistics moved after an eval forward",
        ),
        pytest.param(
            ("forward with gradients", "load", "forward with gradients"),
            1,
            id="one since parameters were loaded",
        ),
    ],
)
def test_a_backward_if_recorded_needs_a_record_whose_tensors_have_not_moved(
    past: tuple[str, ...], of: int | None
) -> None:
    for case in cases_of_history(*past, "backward if possible"):
        assert [step.of for step in case.steps if isinstance(step, Backward)] == (
            [] if of is None else [of]
        )


def test_recording_again_hands_the_same_input_over_and_asks_anew() -> None:
    asked = []
    for case in gradient_cases("eval", "same input with gradients", wrt=(("input",), ("weight",))):
        first, _, second = case.steps
        assert isinstance(first, Forward)
        assert isinstance(second, Forward)
        assert second.x is first.x
        asked.append((first.wrt, second.wrt))
    assert len(set(asked)) == 4


def test_a_gradient_of_zeros_is_one_and_an_expanded_one_is_a_single_number_in_memory() -> None:
    for case in gradient_cases("backward of zeros"):
        forward, step = last_two(case)
        assert same_bits(step.dy, np.zeros_like(forward.x, order="C"))
    numbers = set()
    for case in gradient_cases("backward with stride 0"):
        forward, step = last_two(case)
        assert (step.dy.shape, step.dy.dtype) == (forward.x.shape, forward.x.dtype)
        assert step.dy.strides == (0, 0, 0, 0)
        numbers.add(step.dy.ravel()[0].item())
    assert len(numbers) > 10


def test_a_gradient_of_another_shape_has_more_samples_than_the_output() -> None:
    more = set()
    for case in gradient_cases("backward of another shape"):
        forward, step = last_two(case)
        assert step.dy.shape[1:] == forward.x.shape[1:]
        more.add((len(step.dy) - len(forward.x), len(step.dy) / len(forward.x)))
    assert any(extra == 1 for extra, _ in more)
    assert any(extra > 1 and factor == 2 for extra, factor in more)
    assert all(extra == 1 or factor == 2 for extra, factor in more)


@each_dtype
def test_a_gradient_that_is_the_sum_of_the_last_two_is_rounded_once(dtype: str) -> None:
    for case in gradient_cases("backward", "backward", "backward of the sum", dtype=dtype):
        _, first, second, third = case.steps
        assert isinstance(first, Backward)
        assert isinstance(second, Backward)
        assert isinstance(third, Backward)
        wanted = (first.dy.astype(np.float64) + second.dy.astype(np.float64)).astype(third.dy.dtype)
        assert third.dy.dtype == first.dy.dtype
        assert np.array_equal(third.dy, wanted, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float16"])
def test_a_double_backward_is_handed_cotangents_of_all_that_the_layer_has(dtype: str) -> None:
    for case in gradient_cases("double backward", dtype=dtype):
        forward, step = last_two(case)
        row = DTYPES[dtype]
        for tensor in (step.dy, step.input):
            assert (tensor.shape, tensor.dtype) == (forward.x.shape, row.data.dtype)
        for cotangent in (step.weight, step.bias):
            assert (cotangent is not None) == case.config.affine
            assert cotangent is None or cotangent.dtype == row.parameters.dtype


def test_a_gradient_is_laid_out_apart_from_its_input() -> None:
    met = set()
    for case in drawn(
        cases(history=("forward with gradients", "backward"), shape=shapes("different")), 300
    ):
        forward, step = last_two(case)
        met.add((layout_of(forward.x), layout_of(step.dy)))
    assert {layout for pair in met for layout in pair} == set(USUAL_LAYOUTS)
    assert len(met) > 0.8 * len(USUAL_LAYOUTS) ** 2


def test_gradients_are_of_every_family_and_of_scales_and_offsets_both_ways() -> None:
    met = drawn(chosen(gradients()), 500)
    assert {recipe.family for recipe in met} == {*FAMILIES, MIXED}
    for part in ("scale", "offset"):
        found = {getattr(recipe, part) for recipe in met}
        assert min(found) < 0 < max(found)
        assert 0 in found


def test_gradients_are_drawn_by_the_recipes_that_were_given() -> None:
    ones = gradients(("constant",), scales=(3,), offsets=(1e6,))
    for case in gradient_cases("backward", "double backward", gradient=ones):
        _, first, second = case.steps
        assert isinstance(first, Backward)
        assert isinstance(second, DoubleBackward)
        for dy in (first.dy, second.dy, second.input):
            assert (np.abs(dy) > 2**3 * 9e5).all()
            assert (dy == dy[:1, :, :1, :1]).all()
