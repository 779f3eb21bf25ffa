"""What is drawn reaches every region that faults are known to sit in, claims nothing extra, and shrinks to ramps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from itertools import count, pairwise
from math import prod
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from bn_spec import Capabilities, Case, Config, ConfigError, Layer, State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.arrays import same_bits, take_apart
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import DTYPES, Array, format_named
from bn_spec.case.laws import LAWS
from bn_spec.case.layouts import LAYOUTS, PLACED, USUAL_LAYOUTS
from bn_spec.case.script import identical
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
    training_after,
)
from bn_spec.oracle.bias import LIMIT
from bn_spec.oracle.expectation import refusal_of, refusal_to_load
from bn_spec.strategies import (
    ABSENT,
    BALANCED,
    BEYOND,
    EDGES,
    EPS,
    FAMILIES,
    LARGE,
    MIXED,
    MOMENTA,
    OFFSETS,
    PARAMETERS,
    REGIONS,
    RUNNING_STYLES,
    SCALES,
    SPECIAL,
    WIDE,
    WORDS,
    Recipe,
    among,
    beside_loud_neighbours,
    cases,
    chosen,
    gradients,
    histories,
    misused,
    of_single_values,
    of_wrong_channels,
    of_wrong_rank,
    one_channel_shifted,
    shapes,
    values,
)
from bn_spec.strategies.histories import LONGEST, USUAL
from bn_spec.strategies.shapes import Shape, with_values
from bn_spec.strategies.tensors import COUNTS, bounded
from bn_spec.suite.cell import PROPERTIES, Cell, Violation
from bn_spec.suite.profiles import PROFILES

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


@cache
def sample_of_shapes() -> list[Shape]:
    return drawn(chosen(shapes()))


@cache
def sample_of_values() -> list[Recipe]:
    return drawn(chosen(values()))


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
    return min(x.shape) > 1 and x.strides == PLACED[layout](x).strides


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
    **{
        f"tracking {flag}": partial(_configured, track_running_stats=flag) for flag in (True, False)
    },
    "eps far above a variance": lambda case: bool(
        (case.config.eps > 1e3 * rows_of(case).var(axis=1)).any()
    ),
    "eps far below a variance": lambda case: bool(
        (1e3 * case.config.eps < rows_of(case).var(axis=1)).any()
    ),
}
STATES: Reached = {
    "the state as built": lambda case: case.state is None,
    "negative weights": lambda case: bool((tensor(case, "weight") < 0).any()),
    "zero weights": lambda case: bool((tensor(case, "weight") == 0).any()),
    "equal weights": lambda case: (
        _all_same(tensor(case, "weight")) and tensor(case, "weight")[0] != 1
    ),
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
    **{f"the layout {layout!r}": partial(_laid_out, layout=layout) for layout in USUAL_LAYOUTS},
    "a constant channel": lambda case: bool((rows_of(case).std(axis=1) == 0).any()),
    "a mean far above the deviation": lambda case: bool(
        (np.abs(rows_of(case).mean(axis=1)) > 1e3 * rows_of(case).std(axis=1)).any()
    ),
    "huge values": lambda case: bool(np.abs(rows_of(case)).max() > 1e10),
    "tiny values": lambda case: bool(0 < np.abs(rows_of(case)).max() < 1e-10),
}


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(reached, id=name)
        for name, reached in (SHAPES | CONFIGS | STATES | INPUTS).items()
    ],
)
def test_a_region_is_reached_in_one_draw_of_a_hundred(region: Callable[[Case], bool]) -> None:
    assert sum(map(region, sample())) >= RARELY * len(sample())


@pytest.mark.parametrize("axes", ["N", "C", "HW"])
def test_every_size_around_a_block_size_is_drawn_on_every_axis(axes: str) -> None:
    met = {prod(shape["NCHW".index(axis)] for axis in axes) for shape in sample_of_shapes()}
    assert set(EDGES) <= met


@pytest.mark.parametrize(
    ("part", "choices"),
    [("family", (*FAMILIES, MIXED)), ("scale", SCALES), ("offset", OFFSETS)],
)
def test_every_family_scale_and_offset_is_drawn(part: str, choices: tuple[object, ...]) -> None:
    recipes = sample_of_values()
    met = Counter(getattr(recipe, part) for recipe in recipes)
    assert met.keys() == set(choices)
    assert min(met.values()) >= RARELY * len(recipes)


def test_scales_and_offsets_go_far_both_ways() -> None:
    assert min(SCALES) <= -40 < 40 <= max(SCALES)
    assert max(OFFSETS) >= 1e6 > 0 > min(OFFSETS)


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


# Nothing that is not asked for


def test_nothing_unclaimed_is_drawn() -> None:
    claims = Capabilities(
        affine_off=False, tracking_off=False, cumulative_momentum=False, layouts=("contiguous",)
    )
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
        shape=among([(1, 3, 1, 1)]),
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
        assert (tensor(case, "weight").tolist(), tensor(case, "bias").tolist()) == (
            [3.0] * 3,
            [2.0] * 3,
        )
        assert tensor(case, "running_mean").tolist() == [2.0, 3.0, 4.0]
        assert np.ptp(x, axis=0).max() == 0


def test_running_statistics_are_finite_unless_absurd_ones_are_asked_for() -> None:
    def finite(case: Case) -> bool:
        return all(
            np.isfinite(tensor(case, name)).all() for name in ("running_mean", "running_var")
        )

    assert all(map(finite, sample()))
    assert not any(map(finite, drawn(cases(running=("absurd",)), 50)))


def test_inputs_are_finite_and_of_the_dtype_asked_for() -> None:
    for dtype, row in DTYPES.items():
        for case in drawn(cases(dtype=dtype), 100):
            assert all(x.dtype == row.data.dtype and np.isfinite(x).all() for x in case.forwards())


def test_a_layer_that_stays_as_built_is_given_no_state() -> None:
    assert {case.state for case in drawn(cases(built=True), 100)} == {None}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_has_gaps_where_they_are_asked_for_and_claimed_alone(dtype: str) -> None:
    def steps(claims: Capabilities, strided: bool = False) -> set[int]:
        met = drawn(cases(dtype=dtype, claims=claims, running=("distinct",), strided=strided), 30)
        tensors = [
            a for case in met if case.state for a in case.state.tensors().values() if a.size > 1
        ]
        return {take_apart(a).strides[0] for a in tensors}

    assert steps(EVERYTHING, strided=True) == {1, 2, 3}
    assert steps(EVERYTHING) == steps(replace(EVERYTHING, strided_state=False), strided=True) == {1}


def test_a_state_with_gaps_holds_the_same_numbers() -> None:
    for case in drawn(cases(parameters=("distinct",), running=("distinct",), strided=True), 30):
        numbers = [c % 61 + 2 for c in range(case.config.num_features)]
        assert tensor(case, "weight").tolist() == tensor(case, "running_mean").tolist() == numbers


def test_a_state_fits_its_config() -> None:
    for case in sample():
        config, state = case.config, case.state or State()
        for name, held in state.items():
            wanted = config.affine if name in ("weight", "bias") else config.track_running_stats
            shape = () if name == "num_batches_tracked" else (config.num_features,)
            assert (
                (held is None)
                if not wanted or case.state is None
                else (held is not None and held.shape == shape)
            )


# Words


WHOLE: dict[str, Any] = {
    "shape": among([(2, 3, 2, 2)]),
    "parameters": ("distinct",),
    "running": ("distinct",),
}
"""Choices for layers that have all their tensors, and inputs of two samples."""

NOTHING: tuple[str, ...] = ()
CHECKPOINT, RECORDED, TWO_ALIKE = ("save",), ("record",), ("forward", "forward of the same shape")

ADDED: dict[str, tuple[tuple[str, ...], tuple[type, ...]]] = {
    "train": (NOTHING, (Train,)),
    "eval": (NOTHING, (Eval,)),
    "reset": (NOTHING, (ResetRunningStats,)),
    "reset all": (NOTHING, (ResetParameters,)),
    "forward": (NOTHING, (Forward,)),
    "forward of the same shape": (NOTHING, (Forward,)),
    "forward of nothing": (NOTHING, (Forward,)),
    "forward of single values": (NOTHING, (Forward,)),
    "forward of another rank": (NOTHING, (Forward,) * 4),
    "forward of other channels": (NOTHING, (Forward,) * 2),
    "record": (NOTHING, (Forward,)),
    "record nothing": (NOTHING, (Forward,)),
    "again": (("forward",), (Forward,)),
    "record again": (("forward",), (Forward,)),
    "alone": (("forward",), (Forward,) * 2),
    "spoilt": (("forward",), (Forward,)),
    "unscaled": (("forward",), (Load, Forward)),
    "sum": (TWO_ALIKE, (Forward, Forward)),
    "joined": (TWO_ALIKE, (Forward,)),
    "samples reversed": (("forward",), (Forward,)),
    "pixels reversed": (("forward",), (Forward,)),
    "channels reversed": (("forward",), (Load, Forward)),
    "shifted": (("forward",), (Forward,)),
    "scaled": (("forward",), (Set, Forward)),
    "twice over": (("forward",), (Forward,)),
    "backward": (RECORDED, (Backward,)),
    "backward of the first": (RECORDED, (Backward,)),
    "backward if recorded": (RECORDED, (Backward,)),
    "backward expanded": (RECORDED, (Backward,)),
    "backward of zeros": (RECORDED, (Backward,)),
    "backward of the sum": ((*RECORDED, "backward", "backward"), (Backward,)),
    "backward spoilt": ((*RECORDED, "backward"), (Backward,)),
    "backward of another shape": (RECORDED, (Backward,)),
    "double backward": (RECORDED, (DoubleBackward,)),
    "save": (NOTHING, (Save,)),
    "restore": (CHECKPOINT, (Restore,)),
    "restore the first": (CHECKPOINT, (Restore,)),
    "restore into a new layer": (CHECKPOINT, (Restore,)),
    "restore some": (CHECKPOINT, (Restore,)),
    "load": (NOTHING, (Load,)),
    "load one too few": (NOTHING, (Load,)),
    "load too many": (NOTHING, (Load,)),
    "load what it has of too many": (NOTHING, (Load,)),
    "load another size": (NOTHING, (Load,)),
    "load another rank": (NOTHING, (Load,)),
    "set eps": (NOTHING, (Set,)),
    "set momentum": (NOTHING, (Set,)),
    "fold": (("eval",), (Fold,)),
}
"""By word: a past to which it can refer, and the steps that it adds then."""


OF_OTHERS: dict[str, dict[str, Any]] = {
    word: {"parameters": (ABSENT,)} for word in ("load too many", "load what it has of too many")
}
"""By word: choices for layers that lack some tensors, where it is about these."""


def told(*history: str, number: int = 5, **choices: Any) -> list[Case]:
    """Cases of a history, of layers and inputs as in :data:`WHOLE` unless others are asked for."""
    return drawn(cases(history=history, **WHOLE | choices), number)


def kinds(*history: str, **choices: Any) -> tuple[type, ...]:
    """The kinds of steps of a history, which are the same in all cases."""
    (met,) = {tuple(map(type, case.steps)) for case in told(*history, **choices)}
    return met


def without(claim: str) -> Capabilities:
    """All claims but one, in the dtype of the cases."""
    if claim in LAYOUTS:
        return replace(EVERYTHING, layouts=tuple(layout for layout in LAYOUTS if layout != claim))
    if claim == "refuses_single_values":
        return replace(EVERYTHING, dialect=Dialect(single_value="answered"))
    less: dict[str, Any] = {claim: ("float64",) if claim == "double_backward" else False}
    return replace(EVERYTHING, **less)


def last_two(case: Case) -> tuple[Any, Any]:
    """The last two steps of a case."""
    before, last = case.steps[-2:]
    return before, last


each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def test_it_is_known_of_every_word_what_it_adds() -> None:
    assert ADDED.keys() == WORDS.keys()


@pytest.mark.parametrize("word", ADDED)
def test_a_word_adds_its_steps(word: str) -> None:
    past, added = ADDED[word]
    choices = OF_OTHERS.get(word, {})
    assert kinds(*past, word, **choices) == kinds(*past, **choices) + added


@pytest.mark.parametrize("word", OF_OTHERS)
def test_a_word_about_what_other_layers_have_adds_no_step_for_a_layer_that_has_it_all(
    word: str,
) -> None:
    assert kinds(word) == ()


@pytest.mark.parametrize("lacking", ["parameters", "running"])
@pytest.mark.parametrize("word", OF_OTHERS)
def test_a_layer_is_given_all_that_it_has_and_all_that_others_have(word: str, lacking: str) -> None:
    choices: dict[str, Any] = {lacking: (ABSENT,)}
    for case in told(word, **choices):
        (step,) = case.steps
        assert isinstance(step, Load)
        assert step.tensors().keys() == set(STATE_FIELDS)
        refusal = refusal_to_load(initial_state(case.config), step)
        assert (refusal is not None) == step.strict == (word == "load too many")


@pytest.mark.parametrize("word", [word for word, (past, _) in ADDED.items() if past])
def test_a_word_that_has_nothing_to_refer_to_adds_no_step(word: str) -> None:
    assert kinds(word) == ()


@pytest.mark.parametrize(
    ("word", "claim"), [(word, claim) for word in WORDS for claim in WORDS[word].needs]
)
def test_a_word_that_a_backend_does_not_claim_adds_no_step(word: str, claim: str) -> None:
    past, _ = ADDED[word]
    choices = OF_OTHERS.get(word, {}) | {"claims": without(claim)}
    assert kinds(*past, word, **choices) == kinds(*past, **choices)


@pytest.mark.parametrize(
    ("past", "word"),
    [
        pytest.param(("forward of another rank",), "spoilt", id="a spoilt input of another rank"),
        pytest.param(("forward of other channels",), "twice over", id="a law of other channels"),
        pytest.param(("forward of nothing",), "record again", id="an empty batch, recorded"),
        pytest.param(
            ("forward of nothing", "forward of nothing"), "joined", id="empty batches as one"
        ),
        pytest.param(("forward",), "sum", id="a sum of one"),
        pytest.param(("record", "forward"), "backward", id="a backward of what was not recorded"),
        pytest.param(
            ("forward", "record"),
            "backward of the first",
            id="a backward of a first that was not recorded",
        ),
        pytest.param(("record", "backward"), "backward of the sum", id="a sum of one gradient"),
        pytest.param(
            ("record", "backward", "forward", "again"),
            "backward spoilt",
            id="a gradient of an older step",
        ),
        pytest.param(
            ("record", "backward", "backward of another shape"),
            "backward of the sum",
            id="other shapes",
        ),
        pytest.param(("eval", "train"), "fold", id="a fold in training mode"),
        pytest.param(
            ("eval", "save", "restore into a new layer"), "fold", id="a fold of a new layer"
        ),
    ],
)
def test_what_a_word_cannot_refer_to_adds_no_step(past: tuple[str, ...], word: str) -> None:
    assert kinds(*past, word) == kinds(*past)


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        pytest.param("load", {"parameters": (ABSENT,), "running": (ABSENT,)}, id="load"),
        pytest.param(
            "load another size",
            {"parameters": (ABSENT,), "running": (ABSENT,)},
            id="load another size",
        ),
        pytest.param(
            "restore some", {"parameters": (ABSENT,), "running": (ABSENT,)}, id="restore some"
        ),
        pytest.param(
            "forward of other channels",
            {"parameters": (ABSENT,), "running": (ABSENT,)},
            id="channels",
        ),
        pytest.param("fold", {"running": (ABSENT,)}, id="fold"),
    ],
)
def test_a_word_about_tensors_that_the_layer_does_not_have_adds_no_step(
    word: str, choices: dict[str, Any]
) -> None:
    past, _ = ADDED[word]
    assert kinds(*past, word, **choices) == kinds(*past, **choices)


ANYTHING: dict[str, Any] = {
    "shape": shapes("tiny"),
    "layouts": tuple(PLACED),
    "running": (*RUNNING_STYLES, ABSENT),
    "strided": True,
}
ANY_WORDS = partial(histories, *WORDS, *("record", "eval", "save") * 4, least=0, most=10)
"""Any words, and more often those to which others refer."""

FEWER = Capabilities(
    inference=False, affine_off=False, input_checks=False, layouts=("contiguous",), gradients=True
)
STORED = Capabilities(checkpoints=True, empty_batch=True, folding=True, cumulative_momentum=False)
CHANGED = Capabilities(
    live_attributes=True, gradients=True, double_backward=("float32",), strided_state=True
)


@pytest.mark.parametrize(
    ("claims", "never"),
    [
        pytest.param(EVERYTHING, (), id="everything"),
        pytest.param(
            Capabilities(),
            (Backward, DoubleBackward, Save, Restore, Load, Set, Fold),
            id="what is claimed unasked",
        ),
        pytest.param(
            FEWER,
            (Eval, DoubleBackward, Save, Restore, Load, Set, Fold),
            id="training and gradients",
        ),
        pytest.param(STORED, (Backward, DoubleBackward, Set), id="checkpoints and folding"),
        pytest.param(
            CHANGED, (Save, Restore, Load, Fold), id="live attributes and double backwards"
        ),
        pytest.param(replace(EVERYTHING, expensive_signatures=True), (), id="expensive signatures"),
    ],
)
def test_any_list_of_words_is_a_history_of_all_that_is_claimed_and_of_nothing_else(
    claims: Capabilities, never: tuple[type, ...]
) -> None:
    met = drawn(cases(claims=claims, history=ANY_WORDS(), **ANYTHING), 200)
    asked = {type(step) for case in met for step in case.steps}
    assert Forward in asked
    assert asked.isdisjoint(never)
    if not claims.gradients:
        assert not any(step.wrt for case in met for step in case.steps if isinstance(step, Forward))


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "float16"])
def test_whatever_the_history_the_reference_conforms(dtype: str) -> None:
    reference = Reference()
    for case in drawn(
        cases(dtype=dtype, claims=reference.capabilities, history=ANY_WORDS(), **ANYTHING), 60
    ):
        assert check(case, reference) == []


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            ("record", "set eps", "backward"), id="eps is set between a forward and its backward"
        ),
        pytest.param(("eval", "forward of another rank", "again"), id="what is refused, twice"),
        pytest.param(
            ("record nothing", "backward", "double backward"), id="gradients of an empty batch"
        ),
    ],
)
def test_histories_that_were_once_misjudged_are_not(history: tuple[str, ...]) -> None:
    for case in drawn(cases(history=history, shape=shapes("tiny"), running=("random",)), 20):
        assert case.steps
        assert check(case, Reference()) == []


def test_any_history_keeps_to_the_layouts_that_are_claimed() -> None:
    claims = replace(EVERYTHING, layouts=("contiguous",), input_checks=False)
    history = ANY_WORDS(after=("record", "backward expanded", "double backward"))
    for case in drawn(cases(claims=claims, history=history, **ANYTHING), 100):
        inputs = list(case.forwards())
        gradients_of_output = [
            step.dy for step in case.steps if isinstance(step, Backward | DoubleBackward)
        ]
        assert all(a.flags.c_contiguous for a in inputs + gradients_of_output)


def test_an_unknown_word_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"step of a history 'forwrad' is not known; .*; did you mean 'forward'\?"
    ):
        drawn(cases(history=("forwrad",)), 1)


# Words for inputs


def test_each_forward_has_a_shape_of_its_own_and_the_channels_of_the_layer() -> None:
    met = drawn(cases(history=("forward", "forward")), 100)
    both = [tuple(x.shape for x in case.forwards()) for case in met]
    assert all(case.config.num_features == x.shape[1] for case in met for x in case.forwards())
    assert sum(first != second for first, second in both) > 0.9 * len(both)


def test_no_case_is_a_near_copy_of_another() -> None:
    met = drawn(cases(history=("record", "backward", "eval", "record", "backward")), 200)
    shared = [sum(map(same_bits, arrays(one), arrays(other))) for one, other in pairwise(met)]
    assert sum(map(bool, shared)) < 0.1 * len(shared)
    # were they copied from each other, this would vary several times as much as independent choices
    # do
    counts = [
        sum(not case.config.affine for case in met[start : start + 20])
        for start in range(0, 200, 20)
    ]
    mean = sum(counts) / len(counts)
    assert sum((count - mean) ** 2 for count in counts) / (len(counts) - 1) < 2.5 * mean


def arrays(case: Case) -> list[Array]:
    return [a for step in case.steps for a in vars(step).values() if isinstance(a, np.ndarray)]


def test_a_forward_of_the_same_shape_has_other_values_in_the_shape_of_the_last() -> None:
    met = [tuple(case.forwards()) for case in drawn(cases(history=TWO_ALIKE), 50)]
    assert all(first.shape == second.shape for first, second in met)
    assert sum(not np.array_equal(first, second) for first, second in met) > len(met) / 2


@each_dtype
def test_a_forward_of_nothing_lacks_samples_rows_or_columns(dtype: str) -> None:
    lacking = set()
    for case in drawn(cases(dtype=dtype, history=("forward of nothing",)), 20):
        (x,) = case.forwards()
        assert (x.shape[1], x.dtype) == (case.config.num_features, DTYPES[dtype].data.dtype)
        lacking.add(tuple(axis for axis, size in zip("NCHW", x.shape, strict=True) if not size))
    assert lacking == {("N",), ("H",), ("W",)}


@pytest.mark.parametrize(
    "word", ["forward of single values", "forward of another rank", "forward of other channels"]
)
def test_a_forward_of_what_is_wrong_must_be_refused(word: str) -> None:
    for case in drawn(cases(history=(word,), shape=shapes("tiny", "different")), 50):
        assert case.steps
        assert all(refusal_of(case.config, x, batch_statistics=True) for x in case.forwards())


def test_again_repeats_the_last_step_itself() -> None:
    for past in (("eval", "forward"), ("record", "backward"), ("save",)):
        for case in told(*past, "again"):
            before, last = last_two(case)
            assert last is before


def test_alone_hands_each_sample_over_by_itself_up_to_four_of_them() -> None:
    for case in drawn(cases(history=("forward", "alone")), 100):
        batch, *samples = case.forwards()
        assert len(samples) == min(len(batch), 4)
        assert all(same_bits(batch[i : i + 1], sample) for i, sample in enumerate(samples))


def bits(a: Array) -> Array:
    return np.ascontiguousarray(a).view(f"u{a.itemsize}")


@pytest.mark.parametrize(
    ("past", "word"), [(("forward",), "spoilt"), (("record", "backward"), "backward spoilt")]
)
@each_dtype
def test_what_is_spoilt_has_exactly_one_special_element_and_is_laid_out_as_before(
    dtype: str, past: tuple[str, ...], word: str
) -> None:
    met = set()
    for case in drawn(cases(dtype=dtype, history=(*past, word)), 60):
        before, after = (
            step.x if isinstance(step, Forward) else step.dy for step in last_two(case)
        )
        (changed,) = after[bits(after) != bits(before)].astype(np.float64).tolist() or [
            -0.0
        ]  # -0 may stand for -0
        met.add(str(changed))
        assert (after.strides, after.dtype) == (before.strides, before.dtype)
    assert met == set(map(str, SPECIAL))


def test_only_the_special_numbers_that_are_asked_for_are_put_in() -> None:
    for case in drawn(cases(history=("forward", "spoilt"), special=(np.inf,)), 30):
        _, after = case.forwards()
        assert np.isinf(after).sum() == np.isposinf(after).sum() == 1


@each_dtype
def test_a_sum_of_two_inputs_is_rounded_once_and_zeros_come_after(dtype: str) -> None:
    for case in drawn(
        cases(dtype=dtype, history=(*TWO_ALIKE, "sum"), value=values(scales=(0.9,))), 30
    ):
        first, second, total, zeros = case.forwards()
        with np.errstate(over="ignore"):
            wanted = (first.astype(np.float64) + second.astype(np.float64)).astype(first.dtype)
        assert same_bits(np.ascontiguousarray(total), wanted)
        assert same_bits(np.ascontiguousarray(zeros), np.zeros_like(wanted))


def test_two_inputs_are_joined_as_one_batch() -> None:
    for case in drawn(cases(history=(*TWO_ALIKE, "joined")), 30):
        first, second, both = case.forwards()
        assert same_bits(both, np.concatenate([first, second]))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_changes_the_input_the_parameters_and_eps_as_it_says(name: str) -> None:
    law = LAWS[name]
    for case in drawn(cases(history=("forward", name), parameters=("random", ABSENT)), 30):
        first, second = case.forwards()
        assert same_bits(second, law.change(first))
        eps = [step for step in case.steps if isinstance(step, Set)]
        assert eps == (
            [Set("eps", case.config.eps * law.eps_factor)] if law.eps_factor != 1 else []
        )
        loads = [step for step in case.steps if isinstance(step, Load)]
        assert len(loads) == (law.parameters and case.config.affine)
        for step in loads:
            held = case.state or initial_state(case.config)
            assert held.weight is not None
            assert step.weight is not None
            assert (step.weight.tolist(), step.strict) == (held.weight.tolist()[::-1], False)
            assert set(step.tensors()) == {"weight", "bias"}


def test_a_law_after_another_starts_from_what_that_has_set() -> None:
    for case in told("forward", "scaled", "scaled"):
        factors = [step.value for step in case.steps if isinstance(step, Set)]
        assert factors == [case.config.eps * 64, case.config.eps * 64**2]


def test_unscaled_hands_the_same_input_to_a_layer_of_weight_1_and_bias_0() -> None:
    for case in told("forward", "unscaled"):
        first, load, second = case.steps
        assert second is first
        assert isinstance(load, Load)
        assert {name: set(a.tolist()) for name, a in load.tensors().items()} == {
            "weight": {1},
            "bias": {0},
        }
        assert not load.strict


def test_a_change_is_applied_to_what_is_drawn_and_not_to_what_is_handed_over_once_more() -> None:
    seen: list[float] = []

    def noted(x: Array) -> Array:
        seen.append(float(x.flat[0]))
        return np.full_like(x, 7)

    for case in told("forward", "spoilt", "record again", "forward", number=1, change=noted):
        assert len(seen) == 2
        assert all((x.ravel()[1:] == 7).any() for x in case.forwards())


# Words for gradients


def gradient_cases(*history: str, **choices: Any) -> list[Case]:
    return drawn(
        cases(history=("record", *history), running=(*RUNNING_STYLES, ABSENT), **choices), 60
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
    for case in gradient_cases("record", "backward", dtype=dtype):
        forward, step = last_two(case)
        assert (step.of, step.dy.shape, step.dy.dtype) == (
            -1,
            forward.x.shape,
            DTYPES[dtype].data.dtype,
        )
        assert np.isfinite(step.dy.astype(np.float64)).all()


def test_a_backward_of_the_first_is_handed_a_gradient_for_the_first_forward() -> None:
    met = gradient_cases("record", "backward of the first")
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
        pytest.param(("record",), 0, id="the last"),
        pytest.param(("record", "forward", "eval", "forward"), 0, id="one before others"),
        pytest.param(("record", "forward", "record", "forward"), 2, id="the last of two"),
        pytest.param(
            ("record", "set eps", "set momentum", "save"), 0, id="attributes are no tensors"
        ),
        pytest.param(("record", "forward of single values"), 0, id="one before what was refused"),
        pytest.param(("record", "load"), None, id="parameters were loaded"),
        pytest.param(
            ("record", "load one too few"), None, id="parameters may have been loaded in part"
        ),
        pytest.param(("save", "record", "restore some"), None, id="parameters were restored"),
        pytest.param(("record", "reset all"), None, id="parameters were reset"),
        pytest.param(("eval", "record", "reset"), None, id="statistics were reset"),
        pytest.param(
            ("eval", "record", "train", "forward"),
            None,
            id="statistics moved after an eval forward",
        ),
        pytest.param(
            ("eval", "record", "forward", "train"),
            0,
            id="no statistics moved after an eval forward",
        ),
        pytest.param(("record", "load", "record"), 1, id="one since parameters were loaded"),
    ],
)
def test_a_backward_if_recorded_needs_a_record_whose_tensors_have_not_moved(
    past: tuple[str, ...], of: int | None
) -> None:
    for case in told(*past, "backward if recorded"):
        assert [step.of for step in case.steps if isinstance(step, Backward)] == (
            [] if of is None else [of]
        )


def test_recording_again_hands_the_same_input_over_and_asks_anew() -> None:
    asked = []
    for case in gradient_cases("eval", "record again", wrt=(("input",), ("weight",))):
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
    for case in gradient_cases("backward expanded"):
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


def layout_of(a: Array) -> str:
    return next(name for name, lay in PLACED.items() if lay(a).strides == a.strides)


def test_a_gradient_is_laid_out_apart_from_its_input() -> None:
    met = set()
    for case in drawn(cases(history=("record", "backward"), shape=shapes("different")), 300):
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


# Words for the state


@pytest.mark.parametrize(
    ("word", "step"),
    [
        ("restore", Restore(-1)),
        ("restore the first", Restore(0)),
        ("restore into a new layer", Restore(-1, fresh=True)),
    ],
)
def test_a_checkpoint_is_restored_whole(word: str, step: Restore) -> None:
    assert {case.steps[-1] for case in told("save", "forward", "save", word)} == {step}


def test_each_tensor_is_restored_alone_and_beside_others_and_only_those_that_the_layer_has() -> (
    None
):
    met = set()
    for case in drawn(
        cases(history=("save", "restore some"), running=(*RUNNING_STYLES, ABSENT)), 150
    ):
        for step in case.steps[1:]:
            assert isinstance(step, Restore)
            assert step.of == -1
            assert not step.fresh
            assert set(step.only) <= initial_state(case.config).tensors().keys()
            met.add(step.only)
    assert {(name,) for name in STATE_FIELDS} <= met
    assert {len(names) for names in met} == {1, 2}


@each_dtype
def test_a_state_that_is_loaded_is_one_that_the_layer_can_be_built_with(dtype: str) -> None:
    met = drawn(cases(dtype=dtype, history=("load",), running=(*RUNNING_STYLES, ABSENT)), 50)
    for case in met:
        held = initial_state(case.config).tensors()
        for step in case.steps:
            assert isinstance(step, Load)
            assert step.strict
            given = {name: (a.shape, a.dtype) for name, a in step.tensors().items()}
            assert given == {name: (a.shape, a.dtype) for name, a in held.items()}
    assert sum(bool(case.steps) for case in met) > len(met) / 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("load one too few", "is missing"),
        ("load another size", r"has shape \(4,\), the layer's \(3,\)"),
        ("load another rank", r"has shape \(2, 3\), the layer's \(3,\)"),
    ],
)
def test_each_tensor_but_the_counter_is_wrong_in_turn_and_must_be_refused(
    word: str, reason: str
) -> None:
    met = set()
    for case in told(word, number=60):
        (step,) = case.steps
        assert isinstance(step, Load)
        refusal = refusal_to_load(initial_state(case.config), step)
        assert refusal is not None
        name, _, why = refusal.reason.partition(" ")
        assert re.fullmatch(reason, why)
        met.add(name)
    assert met == set(STATE_FIELDS[:4])


@pytest.mark.parametrize(
    ("word", "name", "choices"),
    [("set eps", "eps", EPS[:3]), ("set momentum", "momentum", MOMENTA[:4])],
)
def test_an_attribute_is_set_to_one_of_the_choices(
    word: str, name: str, choices: tuple[float | None, ...]
) -> None:
    met = {case.steps[0] for case in told(word, number=50, **{name: choices})}
    assert met == {Set(name, value) for value in choices}


def test_momentum_is_not_set_to_none_where_that_is_not_claimed() -> None:
    claims = replace(EVERYTHING, cumulative_momentum=False)
    assert Set("momentum", None) not in {
        case.steps[0] for case in told("set momentum", number=50, claims=claims)
    }


@each_dtype
def test_a_layer_is_folded_into_convolutions_of_every_form(dtype: str) -> None:
    met = set()
    for case in drawn(cases(dtype=dtype, history=("eval", "fold"), shape=shapes("tiny")), 60):
        step = case.steps[-1]
        assert isinstance(step, Fold)
        channels = case.config.num_features
        assert len(step.weight) == channels
        assert step.weight.dtype == DTYPES[dtype].data.dtype
        assert step.bias is None or (step.bias.shape, step.bias.dtype) == (
            (channels,),
            step.weight.dtype,
        )
        met.add((step.weight.shape[1:], step.bias is None))
    assert met == {
        (kernel, bare) for kernel in ((1, 1, 1), (2, 3, 3), (3, 1, 2)) for bare in (True, False)
    }


# Histories that are drawn


def test_histories_are_of_the_words_given_and_as_long_as_asked() -> None:
    met = drawn(chosen(histories("save", "forward", least=2, most=5)), 100)
    assert {word for words in met for word in words} == {"save", "forward"}
    assert {len(words) for words in met} == {2, 3, 4, 5}


def test_histories_reach_their_longest_length_and_every_second_one_is_long() -> None:
    lengths = [len(words) for words in drawn(chosen(histories()), 300)]
    assert min(lengths) == 1
    assert max(lengths) == LONGEST == 20
    assert sum(length >= LONGEST // 2 for length in lengths) > len(lengths) / 2
    assert sum(length < LONGEST // 2 for length in lengths) > len(lengths) / 10


def test_every_usual_word_comes_often() -> None:
    met = drawn(chosen(histories()), 300)
    counts = Counter(word for words in met for word in set(words))
    assert counts.keys() == set(USUAL)
    assert min(counts.values()) > 0.05 * len(met)


@cache
def usual() -> list[Case]:
    return drawn(cases(history=histories(), shape=shapes("tiny")), 300)


def steps_with_mode(case: Case) -> Iterator[tuple[Step, bool]]:
    training = True
    for step in case.steps:
        training = training_after(step, training)
        yield step, training


@pytest.mark.parametrize(
    ("reaches", "least"),
    [
        pytest.param(lambda step, _: isinstance(step, Backward), 0.15, id="a backward"),
        pytest.param(
            lambda step, training: isinstance(step, Backward) and not training,
            0.03,
            id="a backward in eval",
        ),
        pytest.param(
            lambda step, training: isinstance(step, Forward) and not training,
            0.2,
            id="an eval forward",
        ),
        pytest.param(
            lambda step, _: isinstance(step, Restore) and not step.fresh, 0.2, id="a restore"
        ),
        pytest.param(
            lambda step, _: isinstance(step, Restore) and step.fresh, 0.05, id="a new layer"
        ),
        pytest.param(
            lambda step, _: isinstance(step, Restore) and bool(step.only),
            0.05,
            id="a restore in part",
        ),
        pytest.param(lambda step, _: isinstance(step, Load), 0.2, id="a state that is loaded"),
        pytest.param(lambda step, _: isinstance(step, Set), 0.2, id="an attribute that is set"),
        pytest.param(
            lambda step, _: isinstance(step, ResetRunningStats | ResetParameters), 0.3, id="a reset"
        ),
        pytest.param(
            lambda step, _: isinstance(step, Forward) and not step.x.size, 0.1, id="an empty batch"
        ),
    ],
)
def test_usual_histories_often_reach(reaches: Callable[[Step, bool], bool], least: float) -> None:
    met = [
        case
        for case in usual()
        if any(reaches(step, training) for step, training in steps_with_mode(case))
    ]
    assert len(met) > least * len(usual())


def test_usual_histories_often_have_inputs_that_must_be_refused() -> None:
    def refused(case: Case) -> bool:
        return any(
            isinstance(step, Forward)
            and refusal_of(case.config, step.x, training) is not None
            and step.x.size > 0
            for step, training in steps_with_mode(case)
        )

    assert sum(map(refused, usual())) > 0.25 * len(usual())


# Shrinking


def test_a_case_shrinks_to_a_ramp_of_two_values_on_a_layer_of_defaults() -> None:
    assert identical(
        find(cases(), lambda _: True, settings=examples(10)),
        Case(Config(1), None, (Forward(RAMP),)),
    )


def test_values_shrink_to_a_plain_ramp() -> None:
    assert find(chosen(values()), lambda _: True, settings=examples(10)) == Recipe(
        "ramp", 0, 0.0, 0
    )


@pytest.mark.parametrize("name", REGIONS)
def test_shapes_shrink_to_the_smallest_of_the_first_region(name: str) -> None:
    smallest = min(REGIONS[name], key=prod)
    assert find(chosen(shapes(name)), lambda _: True, settings=examples(10)) == smallest


@pytest.mark.parametrize("specimen", ["runvar-bias", "normalised-by-unbiased-variance"])
def test_a_fault_of_every_shape_is_shown_on_two_values(specimen: str) -> None:
    backend = f"bn_spec.specimens:{specimen.replace('-', '_')}"
    strategy = cases(momentum=(0.5,), shape=shapes("small", "spatial edge"))
    found = find(strategy, lambda case: bool(check(case, backend)), settings=examples(30))
    assert shape_of(found) == (2, 1, 1, 1)


def test_a_fault_of_several_channels_is_shown_on_the_smallest_of_them() -> None:
    found = find(cases(), lambda case: case.config.num_features > 1, settings=examples(120))
    assert sorted(shape_of(found)) == [1, 1, 2, 2]


def test_a_gradient_shrinks_to_a_ramp_in_c_order() -> None:
    smallest = find(cases(history=("record", "backward")), lambda _: True, settings=examples(10))
    assert identical(
        smallest, Case(Config(1), None, (Forward(RAMP, DIFFERENTIABLE), Backward(RAMP)))
    )


def test_a_history_shrinks_to_a_single_forward() -> None:
    assert find(chosen(histories()), lambda _: True, settings=examples(10)) == ["forward"]


@pytest.mark.parametrize(
    ("wanted", "shortest"),
    [
        pytest.param((Save, Forward, Restore), 3, id="back to a checkpoint"),
        pytest.param((Set, ResetRunningStats), 2, id="a reset after a change"),
    ],
)
def test_a_history_shrinks_to_the_shortest_that_has_what_is_looked_for(
    wanted: tuple[type, ...], shortest: int
) -> None:
    def has(case: Case) -> bool:
        steps = iter(case.steps)
        return all(any(isinstance(step, kind) for step in steps) for kind in wanted)

    found = find(
        cases(history=histories(), shape=among([(2, 1, 1, 1)])), has, settings=examples(300)
    )
    assert len(found.steps) == shortest


class Planted(Reference):
    """The reference with something wrong in each layer."""

    def __init__(self, fault: Callable[[Any], None]) -> None:
        self.fault = fault

    def layer(self, config: Config, state: State | None) -> Layer:
        layer = super().layer(config, state)
        self.fault(layer)
        return layer


def reset_forgets_the_counter(layer: Any) -> None:
    reset = layer.reset_running_stats

    def forgetful() -> None:
        count = layer.layer.num_batches_tracked
        reset()
        layer.layer.num_batches_tracked = count

    layer.reset_running_stats = forgetful


def the_fifth_batch_is_not_counted(layer: Any) -> None:
    record, batches = layer.layer.record, count(1)

    def forgetful(x: Array) -> Any:
        before = layer.layer.num_batches_tracked
        answer = record(x)
        if next(batches) == 5:
            layer.layer.num_batches_tracked = before
        return answer

    layer.layer.record = forgetful


def a_refusal_leaves_eval_mode(layer: Any) -> None:
    record = layer.layer.record

    def forgetful(x: Array) -> Any:
        try:
            return record(x)
        except ValueError:
            layer.layer.train()
            raise

    layer.layer.record = forgetful


def loading_into_an_eval_layer_does_nothing(layer: Any) -> None:
    load = layer.load

    def forgetful(tensors: Any, *, strict: bool) -> None:
        if layer.layer.training:
            load(tensors, strict=strict)

    layer.load = forgetful


@pytest.mark.parametrize(
    ("fault", "requirement", "shortest"),
    [
        (reset_forgets_the_counter, "STA-09", 2),
        (the_fifth_batch_is_not_counted, "STA-09", 5),
        (loading_into_an_eval_layer_does_nothing, "STA-09", 4),
        (a_refusal_leaves_eval_mode, "ERR-08", 6),
    ],
)
def test_a_fault_that_needs_a_past_is_shown_with_a_short_one(
    fault: Callable[[Any], None], requirement: str, shortest: int
) -> None:
    import_module(f"conformance.test_{requirement[:3].lower()}")
    (prop,) = PROPERTIES[requirement]
    with pytest.raises(Violation) as found:
        Cell(prop, Planted(fault), "float32", PROFILES["ci"].settings(300)).examine()
    assert len(found.value.finding.case.steps) <= shortest


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
    assert same_bits(
        Recipe("small integers", -20, 100.0, 5).make((4, 3, 2, 1), FLOAT32),
        np.ldexp(plain + 100, -20),
    )


def test_a_ramp_counts_up_from_the_number_of_its_channel() -> None:
    x = Recipe("ramp", 0, 0.0, 0).make((2, 2, 1, 2), FLOAT32)
    assert x[:, 0].ravel().tolist() == [0, 1, 2, 3]
    assert x[:, 1].ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("family", "different"),
    [
        ("ramp", 200),
        ("small integers", 9),
        ("gaussian", 200),
        ("constant", 1),
        ("one-hot", 2),
        ("two-valued", 2),
    ],
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
        rows = (
            Recipe(BALANCED, 0, 0.0, 5).make((n, 3, 1, 1), dtype)[:, :, 0, 0].T.astype(np.float64)
        )
        assert np.array_equal(np.sort(rows), -np.sort(rows)[:, ::-1])
        assert set(np.unique(np.abs(rows))) <= {0, 1, 2, 3, 4}
        assert (rows == 0).sum(axis=1).tolist() == [n % 2] * 3


def test_balanced_values_are_drawn_where_they_are_asked_for_alone() -> None:
    assert BALANCED not in {recipe.family for recipe in sample_of_values()}
    assert {recipe.family for recipe in drawn(chosen(values((BALANCED,))), 20)} == {BALANCED}


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
def test_a_scale_beyond_the_format_is_brought_to_the_nearest_within_it(
    scale: float, family: str, dtype: str
) -> None:
    for offset in (0.0, -10.0, 1e6):
        x = Recipe(family, scale, offset, 3).make((20, 7, 1, 1), DTYPES[dtype]).astype(np.float64)
        assert np.isfinite(x).all()
        assert x.any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "bfloat16"])
def test_data_beyond_have_squares_that_overflow_and_sums_that_do_not(dtype: str) -> None:
    largest = DTYPES[dtype].accumulation.largest
    met = drawn(
        cases(dtype=dtype, shape=shapes("small"), value=values(scales=BEYOND, offsets=(0.0, 1.0))),
        200,
    )
    sizes = [np.abs(rows_of(case)).max(axis=1) for case in met]
    with np.errstate(over="ignore"):
        overflowing = sum((size.max() ** 2 > largest) for size in sizes)
    summable = sum(
        bool((rows_of(case).shape[1] * size < largest).all())
        for case, size in zip(met, sizes, strict=True)
    )
    assert overflowing > 0.7 * len(met)
    assert summable > 0.7 * len(met)


def test_data_up_to_half_the_exponents_have_squares_in_range_more_often_than_not() -> None:
    met = drawn(cases(shape=shapes("small"), value=values(scales=WIDE, offsets=(0.0, 1.0))), 200)
    in_range = sum(
        bool(np.abs(rows_of(case)).max() ** 2 < FLOAT32.data.largest / 64) for case in met
    )
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
    for case in drawn(cases(dtype=dtype, parameters=(style,)), 15):
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
