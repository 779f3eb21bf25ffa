"""Drawn cases reach every size, number and layout in which faults are known to hide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np
import pytest

from bn_spec import Case
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED, USUAL_LAYOUTS
from bn_spec.strategies import EDGES, EPS, FAMILIES, MIXED, MOMENTA, OFFSETS, REGIONS, SCALES
from bn_spec.strategies.tensors import COUNTS
from tests.draws import rows_of, sample, sample_of_shapes, sample_of_values, shape_of, tensor

RARELY = 0.01
"""The least share of a thousand draws in which a region must be reached."""

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
