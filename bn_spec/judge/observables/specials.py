"""Observables of NaN and infinity: they affect only their own channel, or their own element."""

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
    """Judge whether special values affect nothing elsewhere.

    This compares a step with the same step before it, whose data differ in some places. The results
    of the unchanged data must be the same bit by bit. If batch statistics normalise, these are the
    results of unchanged channels; otherwise, of unchanged elements.
    """
    previous = step.previous[-1] if step.previous else None
    if previous is None or type(previous.answer.step) is not type(step.answer.step):
        return
    places = _unchanged(step, previous)
    earlier = previous.answer.returned()
    for name, got in step.answer.returned().items():
        wanted = earlier.get(name)
        if not isinstance(got, np.ndarray) or not isinstance(wanted, np.ndarray):
            continue
        where = places.get(got.shape)
        # The observable of the result itself judges a result of another shape.
        if where is not None and got.shape == wanted.shape and where.any():
            a, b = got[where], wanted[where]
            stays = partial(shown, b, f"{name} stays, elsewhere, ")
            verdict.exact("elsewhere", step.index, same_bits(a, b), stays, partial(shown, a))


def _unchanged(step: JudgedStep, previous: JudgedStep) -> dict[tuple[int, ...], Bools]:
    """Return, by the shape of a result, the elements that must be the same in two steps.

    There are none if the steps cannot be compared.
    """
    data, before = _data(step), _data(previous)
    if data is None or before is None:
        return {}
    if data.shape != before.shape or data.strides != before.strides:
        return {}
    by_batch = _context(step).batch_statistics
    if by_batch is not _context(previous).batch_statistics or step.forward is not previous.forward:
        return {}
    elements = _bits(data) == _bits(before)
    channels = elements.all(axis=(0, 2, 3))
    of_channel = np.broadcast_to(channels.reshape(1, -1, 1, 1), data.shape)
    places = {data.shape: of_channel if by_batch else elements}
    if by_batch or isinstance(step.answer.step, Backward):
        places[channels.shape] = channels  # running statistics, or gradients of weight and bias
    return places


def special(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether NaN in the data gives NaN, and infinity in the data NaN or infinity."""
    data = _data(step)
    if data is None or step.expected.refusal is not None:
        return
    for name, got, nan, infinite in _poisoned(step, data.astype(np.float64)):
        if not well_formed(got, nan.shape):
            continue  # the observable of the result itself judges its form
        if not nan.any() and not infinite.any():
            continue
        wrong = (nan & ~np.isnan(got)) | (infinite & np.isfinite(got))
        agrees = not wrong.any()
        place = (0,) * wrong.ndim if agrees else tuple(int(i) for i in np.argwhere(wrong)[0])
        kind = "NaN" if nan[place] else "NaN or infinite"
        wanted = f"{name}[{', '.join(map(str, place))}] = {kind}"
        verdict.exact("special", step.index, agrees, wanted, f"{got[place]}")


def _poisoned(step: JudgedStep, data: Array) -> Iterator[tuple[str, object, Bools, Bools]]:
    """Yield each result with the elements that must be NaN, and those that must not be finite."""
    nan, infinite = np.isnan(data), np.isinf(data)
    by_channel = nan.any(axis=(0, 2, 3)).reshape(-1), infinite.any(axis=(0, 2, 3)).reshape(-1)
    context, answer = _context(step), step.answer
    everywhere = nan, infinite
    if context.batch_statistics:
        # A special value enters the statistics of its channel, and so all of its elements.
        nan_column, infinite_column = (a.reshape(1, -1, 1, 1) for a in by_channel)
        everywhere = (
            np.broadcast_to(nan_column, data.shape),
            np.broadcast_to(infinite_column, data.shape),
        )
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
    """Return the input of a forward or the dy of a backward, if it is (N, C, H, W)."""
    asked = step.answer.step
    if isinstance(asked, Forward):
        data = asked.x
    elif isinstance(asked, Backward):
        data = asked.dy
    else:
        return None
    return data if data.ndim == 4 and is_floating(data.dtype) else None


def _context(step: JudgedStep) -> Context:
    """Return what the results of a forward, or the gradients of a backward, depend on."""
    answer = step.answer
    if step.forward is not None:
        return step.forward
    assert isinstance(answer.step, Forward)
    return Context(step.config, answer.before, answer.training, answer.step)


def _bits(a: Array) -> Array:
    """Return the bits of an array as unsigned integers, so that NaN equals itself."""
    return np.ascontiguousarray(a).view(f"u{a.itemsize}")
