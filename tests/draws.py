"""The cases and tensors that strategies draw, as lists, and what tests read off a case."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.layouts import PLACED
from bn_spec.strategies import ABSENT, RUNNING_STYLES, Recipe, among, cases, chosen, shapes, values
from bn_spec.strategies.shapes import Shape
from tests.common import examples

T = TypeVar("T")

RAMP = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)


def drawn(strategy: st.SearchStrategy[T], number: int = 1000) -> list[T]:
    """Return the first examples that a property receives, the same in every run."""
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


WHOLE: dict[str, Any] = {
    "shape": among([(2, 3, 2, 2)]),
    "parameters": ("distinct",),
    "running": ("distinct",),
}
"""Choices for layers that have all their tensors, and inputs of two samples."""

CHECKPOINT, RECORDED, TWO_ALIKE = (
    ("save",),
    ("forward with gradients",),
    ("forward", "forward of the same shape"),
)


def cases_of_history(*history: str, number: int = 5, **choices: Any) -> list[Case]:
    """Cases of a history, of layers and inputs as in :data:`WHOLE` unless others are asked for."""
    return drawn(cases(history=history, **WHOLE | choices), number)


def last_two(case: Case) -> tuple[Any, Any]:
    """The last two steps of a case."""
    before, last = case.steps[-2:]
    return before, last


each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def layout_of(a: Array) -> str:
    return next(name for name, lay in PLACED.items() if lay(a).strides == a.strides)
