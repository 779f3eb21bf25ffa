"""Observables of outputs and states: values, forms, refusals, and what must not change."""

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
    """Judge whether the output of a forward is within its bound."""
    expected = step.expected.output
    if expected is None:
        return
    got = _well_formed_output(verdict, step, "output", expected.bound.shape)
    if got is not None:
        verdict.bounded("output", step.index, got, expected)


def output_form(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether an output has the right shape and dtype."""
    if step.expected.refusal is not None or not isinstance(step.answer.step, Forward):
        return
    got = _well_formed_output(verdict, step, "output_form", step.answer.step.x.shape)
    if got is not None:
        dtype = step.claims.dialect.output(step.config).dtype
        wanted = f"an output of dtype {dtype}"
        verdict.exact("output_form", step.index, got.dtype == dtype, wanted, f"{got.dtype}")


def _well_formed_output(
    verdict: Verdict, step: JudgedStep, observable: str, shape: tuple[int, ...]
) -> Array | None:
    """Return the output if it is an array of ``shape``; otherwise add a discrepancy."""
    got = step.answer.output
    if well_formed(got, shape):
        return got
    found = form(got if step.answer.error is None else step.answer.error)
    verdict.exact(observable, step.index, False, f"an output of shape {shape}", found)
    return None


def tensor(name: str) -> Judge:
    """Return a judge of a tensor of the state after a step.

    The tensor must be within its bound or, where it has no bound, the same bit by bit.
    """

    def judge_tensor(verdict: Verdict, step: JudgedStep) -> None:
        after = step.answer.after
        if not isinstance(after, State):
            verdict.exact(name, step.index, False, f"{name} can be read", str(after))
            return
        got, wanted = getattr(after, name), getattr(step.expected.state, name)
        # Some kernels are allowed a second value, which is judged like the first.
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
    """Judge whether running statistics are the same bit by bit as before the step.

    This excludes channels whose batch statistics overflow: in any kernel, their product with a
    momentum of 0 is NaN. If the kernel flushes subnormal numbers, it also excludes these.
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
    """Judge whether a checkpoint has exactly the tensors of the state, bit by bit."""
    if step.expected.checkpoint is None:
        return
    wanted, got = step.expected.checkpoint.tensors(), step.answer.results
    names = f"a checkpoint of {', '.join(wanted)}"
    if step.answer.error is None:
        agrees = wanted.keys() == got.keys()
        verdict.exact("checkpoint", step.index, agrees, names, ", ".join(got) or "nothing")
    else:
        verdict.exact("checkpoint", step.index, False, names, str(step.answer.error))
    for name in wanted.keys() & got.keys():
        found = got[name]
        agrees = isinstance(found, np.ndarray) and same_bits(wanted[name], found)
        saved = partial(shown, wanted[name], f"{name} is saved as ")
        verdict.exact("checkpoint", step.index, agrees, saved, partial(shown, found))


def state_form(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether each tensor of the state has the shape and the dtype of a new layer's."""
    after = step.answer.after
    if not isinstance(after, State):
        verdict.exact("state_form", step.index, False, "a state", str(after))
        return
    for name, wanted in initial_state(step.config).tensors().items():
        got = getattr(after, name)
        agrees = got is not None and (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        verdict.exact("state_form", step.index, agrees, f"{name} of {form(wanted)}", form(got))


def repetition(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether the same forward twice in a row in eval mode has the same output bit by bit."""
    if not step.previous or step.answer.training or step.expected.refusal is not None:
        return
    previous, now = step.previous[-1].answer, step.answer.step
    if not isinstance(previous.step, Forward) or not isinstance(now, Forward):
        return
    if not interchangeable(previous.step.x, now.x):
        return
    first, second = previous.output, step.answer.output
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        agrees = same_bits(first, second)
        wanted = partial(shown, first, "the same output again, ")
        verdict.exact("repetition", step.index, agrees, wanted, partial(shown, second))
    else:
        verdict.exact("repetition", step.index, False, "two outputs", str(step.answer.error))


def running_var_sign(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether no running variance is negative."""
    after = step.answer.after
    if not isinstance(after, State) or after.running_var is None:
        return
    var = after.running_var
    agrees = is_floating(var.dtype) and not (var < 0).any()
    verdict.exact("running_var_sign", step.index, agrees, "running_var >= 0", partial(shown, var))


def refusal(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether the layer refuses what it must refuse, with a documented exception."""
    expected, raised = step.expected.refusal, step.answer.error
    if expected is None:
        return
    agrees = isinstance(raised, Raised) and not set(raised.kinds).isdisjoint(expected.kinds)
    wanted = f"a {' or '.join(expected.kinds)}, since {expected.reason}"
    got = str(raised) if isinstance(raised, Raised) else "an output and no error"
    verdict.exact("refusal", step.index, agrees, wanted, got)


def output_bias(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether the errors of an output are biased."""
    expected = step.expected.output
    if expected is None:
        return
    got = _well_formed_output(verdict, step, "output_bias", expected.bound.shape)
    if got is not None:
        verdict.biased("output_bias", step.index, _rows(got), expected.map(_rows))


def _rows(array: Array) -> Array:
    """Return an array (N, C, H, W) as (C, N H W)."""
    return array.swapaxes(0, 1).reshape(array.shape[1], -1)


def numbers(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether elements are finite, or at least not NaN, outside the domain of the bounds.

    The observable of the tensor itself judges an answer of another form.
    """
    answer = step.answer
    got: dict[str, object] = {"output": answer.output}
    for name in ("running_mean", "running_var"):
        got[name] = getattr(answer.after, name, None)
    got |= answer.results
    expected = {name: getattr(step.expected, name) for name in _FORWARD}
    expected |= step.expected.results
    for name, bounded in expected.items():
        found = got.get(name)
        if bounded is not None and well_formed(found, bounded.bound.shape):
            verdict.numbers(name, step.index, found, bounded)


_FORWARD = ("output", "running_mean", "running_var")
"""Names of the tensors with bounds that a forward gives."""


def statistic_bias(name: str) -> Judge:
    """Return a judge of whether the errors of a running statistic are biased."""

    def judge_bias(verdict: Verdict, step: JudgedStep) -> None:
        after, expected = step.answer.after, getattr(step.expected, name)
        got = getattr(after, name) if isinstance(after, State) else None
        if expected is None or not well_formed(got, expected.bound.shape):
            return  # the observable of the statistic itself judges its form
        verdict.biased(f"{name}_bias", step.index, _column(got), expected.map(_column))

    return judge_bias


def _column(array: Array) -> Array:
    """Return an array (C,) as (C, 1)."""
    return array[:, np.newaxis]


def mode(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether a step leaves the floating-point mode of the process as it was."""
    departures = step.answer.mode
    wanted = "the floating-point mode of the process stays as it was"
    found = f"after the call the process {' and '.join(departures)}"
    verdict.exact("floating_point_mode", step.index, not departures, wanted, found)
