"""What is no ordinary number stays where it is: in its channel, or in its element where statistics are given."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import State
from bn_spec.case.dtypes import Array, Bools, is_floating
from bn_spec.case.steps import Backward, Forward
from bn_spec.judge.observables.judged_step import JudgedStep, shown, well_formed
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.expectation import Context


def elsewhere(verdict: Verdict, step: JudgedStep) -> None:
    """What has the same data as in the step before has the same bits as there, whatever the rest has become.

    That is a channel where its own statistics normalise it, an element where statistics are given.
    """
    previous = step.previous[-1] if step.previous else None
    if previous is None or type(previous.answer.step) is not type(step.answer.step):
        return
    data, before = _data(step), _data(previous)
    if (
        data is None
        or before is None
        or data.shape != before.shape
        or data.strides != before.strides
    ):
        return
    whole = _context(step).batch_statistics
    if whole is not _context(previous).batch_statistics or step.forward is not previous.forward:
        return
    same = _bits(data) == _bits(before)
    kept = same.all(axis=(0, 2, 3)) if whole or isinstance(step.answer.step, Backward) else None
    for name, got in step.answer.returned().items():
        wanted = previous.answer.returned().get(name)
        if (
            not isinstance(got, np.ndarray)
            or not isinstance(wanted, np.ndarray)
            or got.shape != wanted.shape
        ):
            continue
        if got.shape == data.shape:
            where = (
                np.broadcast_to(kept.reshape(1, -1, 1, 1), got.shape)
                if whole and kept is not None
                else same
            )
        elif kept is not None and got.shape == kept.shape:
            where = kept
        else:
            continue  # judged as what it is
        if where.any():
            a, b = got[where], wanted[where]
            stays = partial(shown, b, f"{name} stays, elsewhere, ")
            verdict.exact("elsewhere", step.index, same_bits(a, b), stays, partial(shown, a))


def special(verdict: Verdict, step: JudgedStep) -> None:
    """NaN in, NaN out; an infinite number gives what the formula gives, or what is not finite either."""
    data = _data(step)
    if data is None or step.expected.refusal is not None:
        return
    for name, got, nan, infinite in _poisoned(step, data.astype(np.float64)):
        wanted = np.where(nan, "NaN", np.where(infinite, "NaN or infinite", ""))
        if not well_formed(got, nan.shape):
            continue  # judged as what it is
        wrong = (nan & ~np.isnan(got)) | (infinite & np.isfinite(got))
        if nan.any() or infinite.any():
            place = (
                tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.any() else (0,) * wrong.ndim
            )
            verdict.exact(
                "special",
                step.index,
                not wrong.any(),
                f"{name}[{', '.join(map(str, place))}] = {wanted[place]}",
                f"{got[place]}",
            )


def _poisoned(step: JudgedStep, data: Array) -> Iterator[tuple[str, object, Bools, Bools]]:
    """Yield results with the elements that must be NaN, and those that must not be finite."""
    nan, infinite = np.isnan(data), np.isinf(data)
    by_channel = nan.any(axis=(0, 2, 3)).reshape(-1), infinite.any(axis=(0, 2, 3)).reshape(-1)
    of_channel = tuple(np.broadcast_to(a.reshape(1, -1, 1, 1), data.shape) for a in by_channel)
    context, answer = _context(step), step.answer
    everywhere = of_channel if context.batch_statistics else (nan, infinite)
    if isinstance(answer.step, Backward):
        yield "grad_input", answer.results.get("grad_input"), *everywhere
        for name in ("grad_weight", "grad_bias"):
            yield name, answer.results.get(name), *by_channel
        return
    yield "output", answer.output, *everywhere
    moved = context.training and step.config.momentum != 0
    if moved and isinstance(answer.after, State) and answer.after.running_mean is not None:
        for name in ("running_mean", "running_var"):
            yield name, getattr(answer.after, name), *by_channel


def _data(step: JudgedStep) -> Array | None:
    """Return what the step was given: an input, or a gradient."""
    asked = step.answer.step
    given = (
        asked.x if isinstance(asked, Forward) else asked.dy if isinstance(asked, Backward) else None
    )
    return given if given is not None and given.ndim == 4 and is_floating(given.dtype) else None


def _context(step: JudgedStep) -> Context:
    answer = step.answer
    if step.forward is not None:
        return step.forward
    assert isinstance(answer.step, Forward)
    return Context(step.config, answer.before, answer.training, answer.step)


def _bits(a: Array) -> Array:
    return np.ascontiguousarray(a).view(f"u{a.itemsize}")
