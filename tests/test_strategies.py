"""What is drawn reaches every region that faults are known to sit in, claims nothing extra, and shrinks to ramps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from math import prod
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from bn_spec import Capabilities, Case, Config, ConfigError, State, check
from bn_spec.backend import LAYOUTS
from bn_spec.bias import LIMIT
from bn_spec.case import (
    DIFFERENTIABLE,
    Backward,
    DoubleBackward,
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Train,
    identical,
)
from bn_spec.dtypes import DTYPES, Array, format_named
from bn_spec.expectation import refusal_of
from bn_spec.memory import same_bits
from bn_spec.strategies import (
    ABSENT,
    BALANCED,
    BEYOND,
    EDGES,
    EPS,
    FAMILIES,
    LARGE,
    LAYOUT,
    MIXED,
    MOMENTA,
    OFFSETS,
    PARAMETERS,
    REGIONS,
    RUNNING_STYLES,
    SCALES,
    WIDE,
    Recipe,
    beside_loud_neighbours,
    cases,
    gradients,
    misused,
    of_single_values,
    of_wrong_channels,
    of_wrong_rank,
    one_channel_shifted,
    shapes,
    values,
)
from bn_spec.strategies.shapes import Shape, with_values
from bn_spec.strategies.tensors import COUNTS, bounded

from .common import examples

T = TypeVar("T")

FLOAT32 = DTYPES["float32"]
RAMP = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)
RARELY = 0.01
"""The least share of a thousand draws in which a region must be reached."""


def drawn(strategy: st.SearchStrategy[T], number: int = 1000) -> list[T]:
    """Return what a property of so many examples is given, the same in every run."""
    found: list[T] = []

    @examples(number)
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found


@cache
def sample() -> list[Case]:
    return drawn(cases(running=(*RUNNING_STYLES, ABSENT)))


def shape_of(case: Case) -> Shape:
    (x,) = case.forwards()
    n, c, h, w = x.shape
    return n, c, h, w


def rows_of(case: Case) -> Array:
    (x,) = case.forwards()
    return x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)


def tensor(case: Case, name: str) -> Array:
    """A tensor of the given state; an empty one where there is none."""
    held = None if case.state is None else getattr(case.state, name)
    return np.empty(0) if held is None else held


# Every region is reached

Reached = dict[str, Callable[[Case], bool]]


def _is_prime(size: int) -> bool:
    return size > 1 and all(size % divisor for divisor in range(2, size))


def _spread(values: Array) -> bool:
    """Whether there are several values, all of them different."""
    return 1 < values.size == np.unique(values).size


def _all_same(values: Array) -> bool:
    return values.size > 1 and np.unique(values).size == 1


def _in_region(case: Case, name: str) -> bool:
    return shape_of(case) in REGIONS[name]


def _one_on(case: Case, axis: int) -> bool:
    return shape_of(case)[axis] == 1 < max(shape_of(case))


def _configured(case: Case, **wanted: object) -> bool:
    return all(getattr(case.config, name) == value for name, value in wanted.items())


def _counted(case: Case, count: int) -> bool:
    return count in tensor(case, "num_batches_tracked")


def _laid_out(case: Case, layout: str) -> bool:
    """Whether the input lies as ``layout`` says; sizes of 1 leave strides without meaning."""
    (x,) = case.forwards()
    return min(x.shape) > 1 and x.strides == LAYOUT[layout](x).strides


SHAPES: Reached = {
    **{f"the region {name!r}": partial(_in_region, name=name) for name in REGIONS},
    **{f"1 on axis {name}": partial(_one_on, axis=axis) for axis, name in enumerate("NCHW")},
    "two values per channel": lambda case: rows_of(case).shape[1] == 2,
    "sizes that all differ": lambda case: len(set(shape_of(case))) == 4,
    "a prime number of values": lambda case: _is_prime(rows_of(case).shape[1]),
    "primes on three axes": lambda case: sum(map(_is_prime, shape_of(case))) >= 3,
    "a single sample": lambda case: shape_of(case)[0] == 1,
    "more samples than a warp": lambda case: shape_of(case)[0] > 32,
}
CONFIGS: Reached = {
    **{f"eps {eps!r}": partial(_configured, eps=eps) for eps in EPS},
    **{f"momentum {momentum!r}": partial(_configured, momentum=momentum) for momentum in MOMENTA},
    **{f"affine {flag}": partial(_configured, affine=flag) for flag in (True, False)},
    **{f"tracking {flag}": partial(_configured, track_running_stats=flag) for flag in (True, False)},
    "eps far above a variance": lambda case: bool((case.config.eps > 1e3 * rows_of(case).var(axis=1)).any()),
    "eps far below a variance": lambda case: bool((1e3 * case.config.eps < rows_of(case).var(axis=1)).any()),
}
STATES: Reached = {
    "the state as built": lambda case: case.state is None,
    "negative weights": lambda case: bool((tensor(case, "weight") < 0).any()),
    "zero weights": lambda case: bool((tensor(case, "weight") == 0).any()),
    "equal weights": lambda case: _all_same(tensor(case, "weight")) and tensor(case, "weight")[0] != 1,
    "distinct weights": lambda case: _spread(tensor(case, "weight")),
    "distinct biases": lambda case: _spread(tensor(case, "bias")),
    "loud weights": lambda case: bool((np.abs(tensor(case, "weight")) > 1e3).any()),
    "distinct running means": lambda case: _spread(tensor(case, "running_mean")),
    "distinct running variances": lambda case: _spread(tensor(case, "running_var")),
    "large running variances": lambda case: bool((tensor(case, "running_var") > 1e4).any()),
    "small running variances": lambda case: bool((tensor(case, "running_var") < 1e-4).any()),
    "running statistics equal to the parameters": lambda case: (
        tensor(case, "weight").size > 0
        and np.array_equal(tensor(case, "weight"), tensor(case, "running_var"))
        and np.array_equal(tensor(case, "bias"), tensor(case, "running_mean"))
    ),
    **{f"{count} batches before": partial(_counted, count=count) for count in COUNTS},
}
INPUTS: Reached = {
    **{f"the layout {layout!r}": partial(_laid_out, layout=layout) for layout in LAYOUTS},
    "a constant channel": lambda case: bool((rows_of(case).std(axis=1) == 0).any()),
    "a mean far above the deviation": lambda case: bool(
        (np.abs(rows_of(case).mean(axis=1)) > 1e3 * rows_of(case).std(axis=1)).any()
    ),
    "huge values": lambda case: bool(np.abs(rows_of(case)).max() > 1e10),
    "tiny values": lambda case: bool(0 < np.abs(rows_of(case)).max() < 1e-10),
}


@pytest.mark.parametrize(
    "region", [pytest.param(reached, id=name) for name, reached in (SHAPES | CONFIGS | STATES | INPUTS).items()]
)
def test_a_region_is_reached_in_one_draw_of_a_hundred(region: Callable[[Case], bool]) -> None:
    assert sum(map(region, sample())) >= RARELY * len(sample())


@pytest.mark.parametrize("axes", ["N", "C", "HW"])
def test_every_size_around_a_block_size_is_drawn_on_every_axis(axes: str) -> None:
    met = {prod(shape["NCHW".index(axis)] for axis in axes) for shape in drawn(shapes())}
    assert set(EDGES) <= met


@pytest.mark.parametrize(
    ("part", "choices"),
    [("family", (*FAMILIES, MIXED)), ("scale", SCALES), ("offset", OFFSETS)],
)
def test_every_family_scale_and_offset_is_drawn(part: str, choices: tuple[object, ...]) -> None:
    recipes = drawn(values())
    met = Counter(getattr(recipe, part) for recipe in recipes)
    assert met.keys() == set(choices)
    assert min(met.values()) >= RARELY * len(recipes)


def test_scales_and_offsets_go_far_both_ways() -> None:
    assert min(SCALES) <= -40 < 40 <= max(SCALES)
    assert max(OFFSETS) >= 1e6 > 0 > min(OFFSETS)


@pytest.mark.parametrize("names", [("tiny",), ("spatial edge", "channel edge")])
def test_shapes_come_from_the_named_regions_alone(names: tuple[str, ...]) -> None:
    assert set(drawn(shapes(*names), 100)) <= {shape for name in names for shape in REGIONS[name]}


@pytest.mark.parametrize("name", [*REGIONS, *LARGE])
def test_a_region_is_listed_from_the_smallest_shape_to_the_largest(name: str) -> None:
    listed = REGIONS.get(name) or LARGE[name]
    sizes = [prod(shape) for shape in listed]
    assert sizes == sorted(sizes)
    assert len(set(listed)) == len(listed)


def test_large_regions_are_drawn_where_they_are_asked_for_alone() -> None:
    large = {shape for name in LARGE for shape in LARGE[name]} - {s for name in REGIONS for s in REGIONS[name]}
    assert not large & set(drawn(shapes()))
    for name in LARGE:
        assert set(drawn(shapes(name), 100)) <= set(LARGE[name])


def test_large_regions_are_as_large_as_they_are_for() -> None:
    values_per_channel = {name: [prod(shape) // shape[1] for shape in LARGE[name]] for name in LARGE}
    powers = values_per_channel["powers of two"]
    assert all(n & (n - 1) == 0 for n in powers)
    assert {2**k for k in range(1, 14)} <= set(powers)
    assert max(powers) > 4096  # a term in thousands weighs less than a rounding each
    assert min(values_per_channel["long"]) >= 1000
    assert min(values_per_channel["beyond half"]) > format_named("float16").largest
    assert min(shape[1] for shape in LARGE["many channels"]) > LIMIT**2
    assert set(values_per_channel["many channels of two values"]) == {2}


# Nothing that is not asked for


def test_nothing_unclaimed_is_drawn() -> None:
    claims = Capabilities(affine_off=False, tracking_off=False, cumulative_momentum=False, layouts=("contiguous",))
    for case in drawn(cases(claims=claims, running=(*RUNNING_STYLES, ABSENT)), 300):
        assert case.config.affine
        assert case.config.track_running_stats
        assert case.config.momentum is not None
        assert all(x.flags.c_contiguous for x in case.forwards())


def test_choices_are_kept_to() -> None:
    strategy = cases(
        dtype="float64",
        eps=(0.5,),
        momentum=(0.25, None),
        parameters=("equal",),
        running=("distinct",),
        shape=st.just((1, 3, 1, 1)),
        value=values(("constant",), (3,), (1.0,)),
        least=5,
        change=lambda x: -x,
    )
    for case in drawn(strategy, 50):
        config, (x,) = case.config, case.forwards()
        assert config == Config(3, 0.5, config.momentum, dtype="float64")
        assert config.momentum in (0.25, None)
        assert x.shape == (5, 3, 1, 1)
        assert x.dtype == np.float64
        assert (tensor(case, "weight").tolist(), tensor(case, "bias").tolist()) == ([3.0] * 3, [2.0] * 3)
        assert tensor(case, "running_mean").tolist() == [2.0, 3.0, 4.0]
        assert np.ptp(x, axis=0).max() == 0


def test_running_statistics_are_finite_unless_absurd_ones_are_asked_for() -> None:
    def finite(case: Case) -> bool:
        return all(np.isfinite(tensor(case, name)).all() for name in ("running_mean", "running_var"))

    assert all(map(finite, sample()))
    assert not any(map(finite, drawn(cases(running=("absurd",)), 50)))


def test_inputs_are_finite_and_of_the_dtype_asked_for() -> None:
    for dtype, row in DTYPES.items():
        for case in drawn(cases(dtype=dtype), 100):
            assert all(x.dtype == row.data.dtype and np.isfinite(x).all() for x in case.forwards())


def test_a_layer_that_stays_as_built_is_given_no_state() -> None:
    assert {case.state for case in drawn(cases(built=True), 100)} == {None}


def test_a_state_fits_its_config() -> None:
    for case in sample():
        config, state = case.config, case.state or State()
        for name, held in state.items():
            wanted = config.affine if name in ("weight", "bias") else config.track_running_stats
            shape = () if name == "num_batches_tracked" else (config.num_features,)
            assert (held is None) if not wanted or case.state is None else (held is not None and held.shape == shape)


# Histories


@pytest.mark.parametrize(
    ("word", "kind"),
    [("train", Train), ("eval", Eval), ("reset", ResetRunningStats), ("reset all", ResetParameters)],
)
def test_a_word_of_a_history_becomes_its_step(word: str, kind: type) -> None:
    for case in drawn(cases(history=("forward", word, "forward")), 20):
        assert [type(step) for step in case.steps] == [Forward, kind, Forward]


def test_each_forward_has_a_shape_of_its_own_and_the_channels_of_the_layer() -> None:
    histories = drawn(cases(history=("forward", "forward")), 100)
    met = [tuple(x.shape for x in case.forwards()) for case in histories]
    assert all(case.config.num_features == x.shape[1] for case in histories for x in case.forwards())
    # Hypothesis likes to repeat a choice that it has made, so by far not all of them differ.
    assert sum(first != second for first, second in met) > len(met) / 4


def test_again_repeats_the_last_step_itself() -> None:
    for case in drawn(cases(history=("eval", "forward", "again")), 20):
        assert case.steps[2] is case.steps[1]


def test_alone_hands_each_sample_over_by_itself_up_to_four_of_them() -> None:
    for case in drawn(cases(history=("forward", "alone")), 100):
        batch, *samples = case.forwards()
        assert len(samples) == min(len(batch), 4)
        assert all(same_bits(batch[i : i + 1], sample) for i, sample in enumerate(samples))


def gradient_cases(*history: str, **choices: Any) -> list[Case]:
    return drawn(cases(history=("record", *history), running=(*RUNNING_STYLES, ABSENT), **choices), 100)


def last_two(case: Case) -> tuple[Forward, Any]:
    """The last forward of a case and the step after it."""
    forward, step = case.steps[-2:]
    assert isinstance(forward, Forward)
    return forward, step


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_backward_is_handed_a_gradient_for_the_last_forward(dtype: str) -> None:
    for case in gradient_cases("record", "backward", dtype=dtype):
        forward, step = last_two(case)
        assert isinstance(step, Backward)
        assert (step.of, step.dy.shape, step.dy.dtype) == (-1, forward.x.shape, DTYPES[dtype].data.dtype)
        assert np.isfinite(step.dy.astype(np.float64)).all()


def test_a_backward_of_the_first_is_handed_a_gradient_for_the_first_forward() -> None:
    met = gradient_cases("record", "backward of the first")
    for case in met:
        first, _, step = case.steps
        assert isinstance(first, Forward)
        assert isinstance(step, Backward)
        assert (step.of, step.dy.shape) == (0, first.x.shape)
    assert any(len({x.shape for x in case.forwards()}) > 1 for case in met)


def test_recording_again_hands_the_same_input_over_and_asks_anew() -> None:
    asked = []
    for case in gradient_cases("eval", "record again", wrt=(("input",), ("weight",))):
        first, _, second = case.steps
        assert isinstance(first, Forward)
        assert isinstance(second, Forward)
        assert second.x is first.x
        asked.append((first.wrt, second.wrt))
    assert len(set(asked)) == 4


def test_again_repeats_a_backward_too() -> None:
    for case in gradient_cases("backward", "again"):
        assert case.steps[2] is case.steps[1]
        assert isinstance(case.steps[1], Backward)


def test_a_gradient_of_zeros_is_one_and_an_expanded_one_is_a_single_number_in_memory() -> None:
    for case in gradient_cases("backward of zeros"):
        forward, step = last_two(case)
        assert same_bits(step.dy, np.zeros_like(forward.x, order="C"))
    numbers = set()
    for case in gradient_cases("backward expanded"):
        forward, step = last_two(case)
        assert (step.dy.shape, step.dy.dtype) == (forward.x.shape, forward.x.dtype)
        assert step.dy.strides == (0, 0, 0, 0)
        numbers.add(step.dy.ravel()[0].item())
    assert len(numbers) > 10


@pytest.mark.parametrize("dtype", DTYPES)
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
        assert isinstance(step, DoubleBackward)
        row = DTYPES[dtype]
        for tensor in (step.dy, step.input):
            assert (tensor.shape, tensor.dtype) == (forward.x.shape, row.data.dtype)
        for cotangent in (step.weight, step.bias):
            assert (cotangent is not None) == case.config.affine
            assert cotangent is None or cotangent.dtype == row.parameters.dtype


def test_a_gradient_is_laid_out_apart_from_its_input() -> None:
    met = set()
    for case in drawn(cases(history=("record", "backward"), shape=shapes("different")), 300):
        forward, step = last_two(case)
        met.add(
            tuple(next(n for n, lay in LAYOUT.items() if lay(a).strides == a.strides) for a in (forward.x, step.dy))
        )
    assert len(met) > len(LAYOUT) ** 2 / 2


def test_gradients_are_of_every_family_and_of_scales_and_offsets_both_ways() -> None:
    met = drawn(gradients())
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


def test_a_gradient_shrinks_to_a_ramp_in_c_order() -> None:
    smallest = find(cases(history=("record", "backward")), lambda _: True, settings=examples(10))
    assert identical(smallest, Case(Config(1), None, (Forward(RAMP, DIFFERENTIABLE), Backward(RAMP))))


def test_an_unknown_word_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"step of a history 'forwrad' is not known; .*; did you mean 'forward'\?"):
        drawn(cases(history=("forwrad",)), 1)


# Shrinking


def test_a_case_shrinks_to_a_ramp_of_two_values_on_a_layer_of_defaults() -> None:
    assert identical(find(cases(), lambda _: True, settings=examples(10)), Case(Config(1), None, (Forward(RAMP),)))


def test_values_shrink_to_a_plain_ramp() -> None:
    assert find(values(), lambda _: True, settings=examples(10)) == Recipe("ramp", 0, 0.0, 0)


@pytest.mark.parametrize("name", REGIONS)
def test_shapes_shrink_to_the_smallest_of_the_first_region(name: str) -> None:
    smallest = min(REGIONS[name], key=prod)
    assert find(shapes(name), lambda _: True, settings=examples(10)) == smallest


@pytest.mark.parametrize("specimen", ["runvar-bias", "normalised-by-unbiased-variance", "old-value-lost"])
def test_a_fault_of_every_shape_is_shown_on_two_values(specimen: str) -> None:
    backend = f"bn_spec.specimens:{specimen.replace('-', '_')}"
    found = find(cases(momentum=(0.5,)), lambda case: bool(check(case, backend)), settings=examples(200))
    assert shape_of(found) == (2, 1, 1, 1)


def test_a_fault_of_several_channels_is_shown_on_the_smallest_of_them() -> None:
    found = find(cases(), lambda case: case.config.num_features > 1, settings=examples(200))
    assert sorted(shape_of(found)) == [1, 1, 2, 2]


# Recipes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [*FAMILIES, MIXED])
def test_a_recipe_makes_the_same_bits_each_time(family: str, dtype: str) -> None:
    recipe = Recipe(family, -3, 100.0, 7)
    first, second = (recipe.make((3, 4, 2, 5), DTYPES[dtype]) for _ in range(2))
    assert same_bits(first, second)
    assert first.dtype == DTYPES[dtype].data.dtype
    assert first.shape == (3, 4, 2, 5)


@pytest.mark.parametrize("family", [*(name for name in FAMILIES if name != "ramp"), MIXED])
def test_another_seed_makes_other_values(family: str) -> None:
    first, second = (Recipe(family, 0, 0.0, seed).make((7, 7, 1, 1), FLOAT32) for seed in (1, 2))
    assert not same_bits(first, second)


def test_scale_and_offset_act_exactly() -> None:
    plain = Recipe("small integers", 0, 0.0, 5).make((4, 3, 2, 1), FLOAT32)
    assert same_bits(Recipe("small integers", -20, 100.0, 5).make((4, 3, 2, 1), FLOAT32), np.ldexp(plain + 100, -20))


def test_a_ramp_counts_up_from_the_number_of_its_channel() -> None:
    x = Recipe("ramp", 0, 0.0, 0).make((2, 2, 1, 2), FLOAT32)
    assert x[:, 0].ravel().tolist() == [0, 1, 2, 3]
    assert x[:, 1].ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("family", "different"),
    [("ramp", 200), ("small integers", 9), ("gaussian", 200), ("constant", 1), ("one-hot", 2), ("two-valued", 2)],
)
def test_a_family_keeps_its_promise_in_every_channel(family: str, different: int) -> None:
    x = Recipe(family, 0, 0.0, 3).make((200, 5, 1, 1), DTYPES["float64"])
    assert {np.unique(x[:, c]).size for c in range(5)} == {different}


def test_mixed_values_are_of_a_different_family_in_each_channel() -> None:
    x = Recipe(MIXED, 0, 0.0, 3).make((200, len(FAMILIES), 1, 1), DTYPES["float64"])
    different = sorted(np.unique(x[:, c]).size for c in range(len(FAMILIES)))
    assert different == [1, 2, 2, 9, 200, 200, 200]


@pytest.mark.parametrize("n", [2, 7, 64, 4096])
def test_balanced_values_are_small_integers_beside_their_negatives(n: int) -> None:
    for dtype in DTYPES.values():
        rows = Recipe(BALANCED, 0, 0.0, 5).make((n, 3, 1, 1), dtype)[:, :, 0, 0].T.astype(np.float64)
        assert np.array_equal(np.sort(rows), -np.sort(rows)[:, ::-1])
        assert set(np.unique(np.abs(rows))) <= {0, 1, 2, 3, 4}
        assert (rows == 0).sum(axis=1).tolist() == [n % 2] * 3


def test_balanced_values_are_drawn_where_they_are_asked_for_alone() -> None:
    assert BALANCED not in {recipe.family for recipe in drawn(values(), 200)}
    assert {recipe.family for recipe in drawn(values((BALANCED,)), 20)} == {BALANCED}


def exponents(x: Array) -> Array:
    """The exponent of the largest value of each channel, as a share of the exponent range of its format."""
    limits = format_named(x.dtype.name)
    largest = np.abs(x.astype(np.float64)).max(axis=(0, 2, 3))
    shares: Array = np.log2(largest) / np.log2(limits.largest)
    return shares


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [scale for scale in (*WIDE, *BEYOND) if scale > -0.9])
def test_a_scale_that_is_a_share_reaches_as_far_in_every_format(share: float, dtype: str) -> None:
    x = Recipe("two-valued", share, 0.0, 1).make((64, 8, 1, 1), DTYPES[dtype])
    room = 4 / np.log2(DTYPES[dtype].data.largest)  # normal numbers of a few binary orders
    assert (np.abs(exponents(x) - share) <= room).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [*FAMILIES, MIXED, BALANCED])
@pytest.mark.parametrize("scale", [0.9, 1.0, 2000, -1.15, -2000, -1.0])
def test_a_scale_beyond_the_format_is_brought_to_the_nearest_within_it(scale: float, family: str, dtype: str) -> None:
    for offset in (0.0, -10.0, 1e6):
        x = Recipe(family, scale, offset, 3).make((20, 7, 1, 1), DTYPES[dtype]).astype(np.float64)
        assert np.isfinite(x).all()
        assert x.any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "bfloat16"])
def test_data_beyond_have_squares_that_overflow_and_sums_that_do_not(dtype: str) -> None:
    largest = DTYPES[dtype].accumulation.largest
    met = drawn(cases(dtype=dtype, shape=shapes("small"), value=values(scales=BEYOND, offsets=(0.0, 1.0))), 200)
    sizes = [np.abs(rows_of(case)).max(axis=1) for case in met]
    with np.errstate(over="ignore"):
        overflowing = sum((size.max() ** 2 > largest) for size in sizes)
    summable = sum(
        bool((rows_of(case).shape[1] * size < largest).all()) for case, size in zip(met, sizes, strict=True)
    )
    assert overflowing > 0.7 * len(met)
    assert summable > 0.7 * len(met)


def test_data_up_to_half_the_exponents_have_squares_in_range_more_often_than_not() -> None:
    met = drawn(cases(shape=shapes("small"), value=values(scales=WIDE, offsets=(0.0, 1.0))), 200)
    in_range = sum(bool(np.abs(rows_of(case)).max() ** 2 < FLOAT32.data.largest / 64) for case in met)
    assert in_range > 0.6 * len(met)


def test_the_last_channel_is_shifted_far_and_the_others_are_left_alone() -> None:
    x = Recipe("gaussian", -10, 0.0, 0).make((8, 3, 1, 1), FLOAT32)
    shifted = one_channel_shifted(x)
    assert same_bits(shifted[:, :-1], x[:, :-1])
    assert np.allclose(shifted[:, -1] - x[:, -1], 1000 * np.abs(x[:, -1]).max(), rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [one_channel_shifted, beside_loud_neighbours])
@pytest.mark.parametrize("scale", [0, 40, 0.9, -0.9])
def test_a_change_of_channels_stays_within_the_format(
    scale: float, change: Callable[[Array], Array], dtype: str
) -> None:
    x = Recipe("gaussian", scale, 0.0, 0).make((8, 3, 1, 1), DTYPES[dtype])
    changed = change(x)
    assert changed.dtype == x.dtype
    assert np.isfinite(changed.astype(np.float64)).all()
    assert scale > 0 or not same_bits(changed, x)  # large data may leave no room


def test_tensors_too_large_for_a_format_are_brought_to_a_size_that_leaves_room() -> None:
    half = format_named("float16")
    given_values = np.array([1.0, -1e4, 1e6, -1e300, np.inf, np.nan])
    kept = bounded(given_values, half)
    assert kept[:2].tolist() == [1.0, -1e4]
    assert kept[4] == np.inf
    assert np.isnan(kept[5])
    assert (np.abs(kept[2:4]) < half.largest / 4).all()
    assert (np.abs(kept[2:4]) > np.sqrt(half.largest)).all()
    assert np.sign(kept[2:4]).tolist() == [1, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("style", PARAMETERS)
def test_parameters_are_finite_and_of_the_dtype_of_the_parameters(style: str, dtype: str) -> None:
    for case in drawn(cases(dtype=dtype, parameters=(style,)), 30):
        for name in ("weight", "bias", "running_mean", "running_var"):
            held = tensor(case, name)
            assert case.state is None or held.dtype == DTYPES[dtype].parameters.dtype
            assert np.isfinite(held.astype(np.float64)).all()


def test_huge_weights_are_huge_and_minute_ones_minute_in_every_format() -> None:
    for dtype, row in DTYPES.items():
        narrower = min(row.parameters.largest, row.data.largest)
        for case in drawn(cases(dtype=dtype, parameters=("huge",)), 10):
            assert (np.abs(tensor(case, "weight").astype(np.float64)) > narrower**0.6).all()
        for case in drawn(cases(dtype=dtype, parameters=("minute",)), 10):
            assert (np.abs(tensor(case, "weight").astype(np.float64)) < 2.0**-14).all()


def test_neighbours_are_made_loud_and_the_first_channel_is_left_alone() -> None:
    x = Recipe("gaussian", 0, 0.0, 0).make((4, 3, 1, 1), FLOAT32)
    louder = beside_loud_neighbours(x)
    assert same_bits(louder[:, :1], x[:, :1])
    assert same_bits(louder[:, 1:], np.ldexp(x[:, 1:], 20))


# Shapes, layouts and misuse


@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(1, 9))
@examples(200)
def test_the_batch_is_raised_as_little_as_the_values_per_channel_need(shape: Shape, least: int) -> None:
    n, c, h, w = with_values(shape, least)
    assert (c, h, w) == shape[1:]
    assert n * h * w >= least
    assert n == shape[0] or (n - 1) * h * w < least


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_moves_values_and_changes_none(layout: str) -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    laid = LAYOUT[layout](x)
    strides = {
        "contiguous": (60, 20, 5, 1),
        "channels_last": (60, 1, 15, 3),
        "permuted": (1, 2, 6, 24),
        "sliced": (120, 40, 10, 2),
        "cropped": (144, 48, 8, 1),
        "split": (80, 20, 5, 1),
    }
    assert same_bits(laid, x)
    assert tuple(stride // 4 for stride in laid.strides) == strides[layout]
    assert not np.shares_memory(laid, x)


def test_every_layout_has_a_way_to_be_laid_out() -> None:
    assert tuple(LAYOUT) == LAYOUTS


@pytest.mark.parametrize("in_eval", [False, True])
@pytest.mark.parametrize("way", [of_single_values, of_wrong_rank, of_wrong_channels])
def test_every_misused_input_must_be_refused(way: Callable[[Array], list[Array]], in_eval: bool) -> None:
    for case in drawn(cases(shape=shapes("tiny", "different"), parameters=tuple(PARAMETERS)), 50):
        wrong = misused(case, way, in_eval=in_eval)
        assert (wrong.config, wrong.state) == (case.config, case.state)
        bad = list(wrong.forwards())
        assert bad
        assert all(refusal_of(case.config, x, batch_statistics=True) for x in bad)


def test_misuse_in_eval_repeats_the_same_inputs_after_the_switch() -> None:
    case = Case(Config(1), None, (Forward(RAMP),))
    once, again = misused(case, of_wrong_rank).steps, misused(case, of_wrong_rank, in_eval=True).steps
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
