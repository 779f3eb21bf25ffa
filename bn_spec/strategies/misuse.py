"""Misuse: cases in which every input is wrong in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.case.steps import Eval, Forward, Step


def of_wrong_rank(x: Array) -> list[Array]:
    """Return the input with the wrong rank: without W, without H and W, without N, and 5-D."""
    return [x[..., 0], x[..., 0, 0], x[0], x[..., np.newaxis]]


def of_wrong_channels(x: Array) -> list[Array]:
    """Return the input with one channel more, and with one less if any is left."""
    wider = np.concatenate([x, x[:, :1]], axis=1)
    return [wider, x[:, 1:]] if x.shape[1] > 1 else [wider]


def of_single_values(x: Array) -> list[Array]:
    """Return the input cut down to the first value of each channel."""
    return [x[:1, :, :1, :1]]


def misused(case: Case, *ways: Callable[[Array], Iterable[Array]], in_eval: bool = False) -> Case:
    """Return a case with its inputs replaced by wrong ones.

    Args:
        case: The case.
        *ways: Functions that return wrong inputs for a right one.
        in_eval: Hand the wrong inputs over once more in eval mode.

    """
    steps: list[Step] = []
    for x in case.forwards():
        for way in ways:
            steps += [Forward(wrong) for wrong in way(x)]
    if in_eval:
        steps = [*steps, Eval(), *steps]
    return replace(case, steps=tuple(steps))
