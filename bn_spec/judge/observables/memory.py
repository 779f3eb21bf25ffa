"""Memory: what is handed over, what lies around it, and what was given before."""

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
    """Tensors that were handed over are bitwise as they were: an input, a dy, and the input that it refers to."""
    for name, (handed, after) in step.answer.handed.items():
        agrees = isinstance(after, np.ndarray) and same_bits(after, handed)
        wanted = partial(shown, handed, f"{name} stays ")
        verdict.exact("handed", step.index, agrees, wanted, partial(shown, after))


def kept(verdict: Verdict, step: JudgedStep) -> None:
    """What a step gave and what it was handed are bitwise the same after all later steps."""
    seen = step.answer.seen()
    for name, later in step.answer.later.items():
        given = seen[name]
        if isinstance(given, np.ndarray):
            agrees = isinstance(later, np.ndarray) and same_bits(given, later)
            wanted = partial(shown, given, f"{name} stays, after all steps, ")
            verdict.exact("kept", step.index, agrees, wanted, partial(shown, later))


def overrun(verdict: Verdict, step: JudgedStep) -> None:
    """Nothing is written around the elements of a tensor."""
    names = ", ".join(step.answer.overrun)
    wanted = "memory around the elements of tensors stays as it is"
    verdict.exact(
        "overrun", step.index, not names, wanted, f"written to, around the elements of {names}"
    )


def shared(verdict: Verdict, step: JudgedStep) -> None:
    """No result lies in the memory of what was handed over."""
    if step.answer.handed:
        pairs = ", ".join(step.answer.shared)
        verdict.exact(
            "shared", step.index, not pairs, "results in memory of their own", f"shared by {pairs}"
        )


def layout(name: str, result: str) -> Judge:
    """Judge whether a result for an input in NCHW or NHWC order is in that order; axes of length 1 do not matter."""

    def judge_layout(verdict: Verdict, step: JudgedStep) -> None:
        asked, got = (
            step.forward.step if step.forward else step.answer.step,
            step.answer.returned().get(result),
        )
        if (
            not isinstance(asked, Forward)
            or not isinstance(got, np.ndarray)
            or got.shape != asked.x.shape
        ):
            return
        x = asked.x
        if x.size and x.strides in {_strides(x, 0, 1, 2, 3), _strides(x, 0, 2, 3, 1)}:
            strides = [
                [stride for stride, n in zip(take_apart(a).strides, a.shape, strict=True) if n > 1]
                for a in (x, got)
            ]
            wanted, found = (f"{result} of strides {take_apart(a).strides}" for a in (x, got))
            verdict.exact(name, step.index, strides[0] == strides[1], wanted, found)

    return judge_layout


def _strides(a: Array, *order: int) -> tuple[int, ...]:
    """Return the strides that an array would have with its axes laid out in an order, outermost first."""
    outer_to_inner = [a.shape[axis] for axis in order]
    strides = {
        axis: prod(outer_to_inner[place + 1 :]) * a.itemsize for place, axis in enumerate(order)
    }
    return tuple(strides[axis] for axis in range(len(order)))
