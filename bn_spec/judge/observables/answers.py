"""Output and state: values, forms, what stays and what is refused."""

from __future__ import annotations

from functools import partial

import numpy as np

from bn_spec.case.arrays import interchangeable, same_bits
from bn_spec.case.config import State, initial_state
from bn_spec.case.dtypes import Array, format_named, is_floating
from bn_spec.case.steps import Forward
from bn_spec.judge.observables.judged_step import (
    Judge,
    JudgedStep,
    exact_tensor,
    form,
    shown,
    well_formed,
)
from bn_spec.judge.verdict import Verdict
from bn_spec.play.observation import Raised


def output(verdict: Verdict, step: JudgedStep) -> None:
    """Judge the output of a forward."""
    if step.expected.output is None:
        return
    if (
        got := _well_formed_output(verdict, step, "output", step.expected.output.bound.shape)
    ) is not None:
        verdict.bounded("output", step.index, got, step.expected.output)


def output_form(verdict: Verdict, step: JudgedStep) -> None:
    """Judge shape and dtype of an output."""
    if step.expected.refusal is not None or not isinstance(step.answer.step, Forward):
        return
    x = step.answer.step.x
    if (got := _well_formed_output(verdict, step, "output_form", x.shape)) is not None:
        wanted = step.claims.dialect.output(step.config).dtype
        verdict.exact(
            "output_form",
            step.index,
            got.dtype == wanted,
            f"an output of dtype {wanted}",
            f"{got.dtype}",
        )


def _well_formed_output(
    verdict: Verdict, step: JudgedStep, observable: str, shape: tuple[int, ...]
) -> Array | None:
    """Return the output if it is an array of ``shape``; otherwise note the discrepancy."""
    got = step.answer.output
    if well_formed(got, shape):
        return got
    verdict.exact(
        observable,
        step.index,
        False,
        f"an output of shape {shape}",
        form(got if step.answer.error is None else step.answer.error),
    )
    return None


def tensor(name: str) -> Judge:
    """Judge a tensor of the state after the step: within its bound where it has one, else bitwise."""

    def judge_tensor(verdict: Verdict, step: JudgedStep) -> None:
        after = step.answer.after
        if not isinstance(after, State):
            verdict.exact(name, step.index, False, f"{name} can be read", str(after))
            return
        got, wanted = getattr(after, name), getattr(step.expected.state, name)
        tolerated = getattr(step.expected.tolerated, name, None)
        if got is not None and tolerated is not None and same_bits(got, tolerated):
            wanted = tolerated
        bounded = getattr(step.expected, name, None)
        if bounded is not None and well_formed(got, bounded.bound.shape):
            verdict.bounded(name, step.index, got, bounded)
        else:
            exact_tensor(verdict, name, step.index, wanted, got)

    return judge_tensor


def statistics_kept(verdict: Verdict, step: JudgedStep) -> None:
    """Running statistics bitwise as before the step, in every channel whose batch statistics are in range.

    A variance that overflows times a momentum of 0 is NaN, in any kernel; and a kernel that flushes
    subnormal numbers does not keep them.
    """
    after = step.answer.after
    for name in ("running_mean", "running_var"):
        bounded, before = getattr(step.expected, name), getattr(step.answer.before, name)
        got = getattr(after, name) if isinstance(after, State) else None
        if bounded is None or before is None:
            continue
        inside = bounded.inside
        if not step.claims.subnormals:
            inside = inside & ~(np.abs(before) < format_named(before.dtype.name).smallest_normal)
        verdict.outside += int((~inside).sum())
        if got is None or got.shape != before.shape:
            exact_tensor(verdict, name, step.index, before, got)
        elif inside.any():
            exact_tensor(verdict, name, step.index, before[inside], got[inside])


def checkpoint(verdict: Verdict, step: JudgedStep) -> None:
    """A checkpoint has every tensor of the state by its name, bit for bit, and nothing else."""
    if step.expected.checkpoint is None:
        return
    wanted, got = step.expected.checkpoint.tensors(), step.answer.results
    names = f"a checkpoint of {', '.join(wanted)}"
    if step.answer.error is None:
        verdict.exact(
            "checkpoint",
            step.index,
            wanted.keys() == got.keys(),
            names,
            ", ".join(got) or "nothing",
        )
    else:
        verdict.exact("checkpoint", step.index, False, names, str(step.answer.error))
    for name in wanted.keys() & got.keys():
        agrees = isinstance(found := got[name], np.ndarray) and same_bits(wanted[name], found)
        saved = partial(shown, wanted[name], f"{name} is saved as ")
        verdict.exact("checkpoint", step.index, agrees, saved, partial(shown, found))


def state_form(verdict: Verdict, step: JudgedStep) -> None:
    """Each tensor of the state keeps the shape and the dtype that it was built with."""
    after = step.answer.after
    if not isinstance(after, State):
        verdict.exact("state_form", step.index, False, "a state", str(after))
        return
    for (name, wanted), (_, got) in zip(
        initial_state(step.config).items(), after.items(), strict=True
    ):
        if wanted is not None:
            agrees = got is not None and (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
            verdict.exact("state_form", step.index, agrees, f"{name} of {form(wanted)}", form(got))


def repetition(verdict: Verdict, step: JudgedStep) -> None:
    """Bitwise the output of the step before, where that was the same forward step in eval mode."""
    previous, now = step.previous[-1].answer if step.previous else None, step.answer.step
    before = previous and previous.step
    if (
        previous is None
        or step.answer.training
        or not (isinstance(before, Forward) and isinstance(now, Forward))
    ):
        return
    if step.expected.refusal is not None or not interchangeable(before.x, now.x):
        return
    first, second = previous.output, step.answer.output
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        verdict.exact(
            "repetition",
            step.index,
            same_bits(first, second),
            lambda: f"the same output again, {shown(first)}",
            lambda: shown(second),
        )
    else:
        verdict.exact("repetition", step.index, False, "two outputs", str(step.answer.error))


def running_var_sign(verdict: Verdict, step: JudgedStep) -> None:
    """Judge that no running variance is negative."""
    after = step.answer.after
    if not isinstance(after, State) or after.running_var is None:
        return
    agrees = is_floating(after.running_var.dtype) and not (after.running_var < 0).any()
    verdict.exact(
        "running_var_sign", step.index, agrees, "running_var >= 0", lambda: shown(after.running_var)
    )


def refusal(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether what must be refused is refused, in a documented way."""
    expected, raised = step.expected.refusal, step.answer.error
    if expected is None:
        return
    agrees = isinstance(raised, Raised) and not set(raised.kinds).isdisjoint(expected.kinds)
    wanted = f"a {' or '.join(expected.kinds)}, since {expected.reason}"
    got = str(raised) if isinstance(raised, Raised) else "an output and no error"
    verdict.exact("refusal", step.index, agrees, wanted, got)


def output_bias(verdict: Verdict, step: JudgedStep) -> None:
    """Judge the bias of an output, channel by channel."""
    expected = step.expected.output
    if expected is None:
        return
    if (got := _well_formed_output(verdict, step, "output_bias", expected.bound.shape)) is not None:
        verdict.biased("output_bias", step.index, _rows(got), expected.map(_rows))


def _rows(array: Array) -> Array:
    return array.swapaxes(0, 1).reshape(array.shape[1], -1)


def numbers(verdict: Verdict, step: JudgedStep) -> None:
    """What is left of the requirements outside the domain of the bounds."""
    after, answer = step.answer.after, step.answer
    asked = [
        (name, getattr(step.expected, name)) for name in ("output", "running_mean", "running_var")
    ]
    for name, expected in [*asked, *step.expected.results.items()]:
        got = (
            answer.output
            if name == "output"
            else answer.results.get(name, getattr(after, name, None))
        )
        if expected is not None and well_formed(
            got, expected.bound.shape
        ):  # others are judged as what they are
            verdict.numbers(name, step.index, got, expected)


def statistic_bias(name: str) -> Judge:
    """Judge the bias of a running statistic."""

    def judge_bias(verdict: Verdict, step: JudgedStep) -> None:
        after, expected = step.answer.after, getattr(step.expected, name)
        got = getattr(after, name) if isinstance(after, State) else None
        if expected is None or not well_formed(got, expected.bound.shape):
            return  # wrong tensors are judged as such
        verdict.biased(
            f"{name}_bias", step.index, got[:, np.newaxis], expected.map(lambda a: a[:, np.newaxis])
        )

    return judge_bias


def mode(verdict: Verdict, step: JudgedStep) -> None:
    """Judge the floating-point mode that a step leaves."""
    left = step.answer.mode
    verdict.exact(
        "floating_point_mode",
        step.index,
        not left,
        "the floating-point mode of the process stays as it was",
        f"after the call the process {' and '.join(left)}",
    )
