"""Misuse: cases whose every input is wrong in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.case.steps import Eval, Forward, Step


def of_wrong_rank(x: Array) -> list[Array]:
    """Return the input without its width, without its plane, without its batch, and with a depth too many."""
    return [x[..., 0], x[..., 0, 0], x[0], x[..., np.newaxis]]


def of_wrong_channels(x: Array) -> list[Array]:
    """Return the input with its first channel once more, and without it (where one is left)."""
    wider = np.concatenate([x, x[:, :1]], axis=1)
    return [wider, x[:, 1:]] if x.shape[1] > 1 else [wider]


def of_single_values(x: Array) -> list[Array]:
    """Return the first value of each channel alone."""
    return [x[:1, :, :1, :1]]


def misused(case: Case, *ways: Callable[[Array], Iterable[Array]], in_eval: bool = False) -> Case:
    """Return ``case`` with its inputs replaced by wrong ones; ``in_eval`` hands them over in eval mode too."""
    wrong: list[Step] = [Forward(bad) for x in case.forwards() for way in ways for bad in way(x)]
    return replace(case, steps=(*wrong, *((Eval(), *wrong) if in_eval else ())))
