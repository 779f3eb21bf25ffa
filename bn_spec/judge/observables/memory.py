"""Observables of memory: tensors that a backend must leave as they are, and memory layouts."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np

from bn_spec.case.arrays import same_bits, take_apart
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Forward
from bn_spec.judge.observables.judged_step import Judge, JudgedStep, shown
from bn_spec.judge.verdict import Verdict


def handed(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether tensors that were handed over are the same bit by bit after the step.

    They are the arrays of the step and, for a backward, the input of its forward.
    """
    for name, (handed, after) in step.answer.handed.items():
        agrees = isinstance(after, np.ndarray) and same_bits(after, handed)
        wanted = partial(shown, handed, f"{name} stays ")
        verdict.exact("handed", step.index, agrees, wanted, partial(shown, after))


def kept(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether the tensors of a step are the same bit by bit after all later steps.

    They are those that were returned and those that were handed over.
    """
    seen = step.answer.seen()
    for name, later in step.answer.later.items():
        earlier = seen[name]
        if isinstance(earlier, np.ndarray):
            agrees = isinstance(later, np.ndarray) and same_bits(earlier, later)
            wanted = partial(shown, earlier, f"{name} stays, after all steps, ")
            verdict.exact("kept", step.index, agrees, wanted, partial(shown, later))


def overrun(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether the memory around the elements of tensors is unchanged."""
    names = ", ".join(step.answer.overrun)
    wanted = "memory around the elements of tensors stays as it is"
    found = f"changed around the elements of {names}"
    verdict.exact("overrun", step.index, not names, wanted, found)


def shared(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether no result lies in the memory of a tensor that was handed over."""
    if step.answer.handed:
        pairs = ", ".join(step.answer.shared)
        wanted = "results in memory of their own"
        verdict.exact("shared", step.index, not pairs, wanted, f"shared by {pairs}")


def layout(name: str, result: str) -> Judge:
    """Return a judge of the layout of a result.

    For an input in NCHW or NHWC order, the result must be in the same order. Axes of length 1 do
    not matter.

    Args:
        name: Name of the observable.
        result: Name of the result: the output, or the gradient of the input.

    """

    def judge_layout(verdict: Verdict, step: JudgedStep) -> None:
        asked = step.forward.step if step.forward else step.answer.step
        got = step.answer.returned().get(result)
        if not isinstance(asked, Forward) or not isinstance(got, np.ndarray):
            return
        x = asked.x
        if not x.size or got.shape != x.shape:
            return
        if x.strides not in {_strides(x, 0, 1, 2, 3), _strides(x, 0, 2, 3, 1)}:
            return
        agrees = _strides_that_matter(x) == _strides_that_matter(got)
        wanted = f"{result} of strides {take_apart(x).strides}"
        found = f"{result} of strides {take_apart(got).strides}"
        verdict.exact(name, step.index, agrees, wanted, found)

    return judge_layout


def _strides_that_matter(a: Array) -> list[int]:
    """Return the strides, in elements, of the axes that are longer than 1."""
    strides = take_apart(a).strides
    return [stride for stride, length in zip(strides, a.shape, strict=True) if length > 1]


def _strides(a: Array, *order: int) -> tuple[int, ...]:
    """Return the strides, in bytes, of an array whose axes are in this order, outermost first."""
    lengths = [a.shape[axis] for axis in order]
    strides = [0] * len(order)
    for place, axis in enumerate(order):
        strides[axis] = prod(lengths[place + 1 :]) * a.itemsize
    return tuple(strides)
