"""The forwards and backwards of a case, as the known failures of adapters look at them. Needs no framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, Forward, config_after, training_after


class Pass(NamedTuple):
    """A forward: whether it trained, whether the statistics of its batch normalised it, its eps and its input.

    With ``dy``, a backward of it.
    """

    training: bool
    batch_statistics: bool
    eps: float
    x: Array
    dy: Array | None = None


def passes(case: Case) -> Iterator[Pass]:
    """Yield the forwards of a case and the backwards of them, in the order of the steps."""
    config, training, found = case.config, True, list[Pass]()
    for step in case.steps:
        config, training = config_after(config, step), training_after(step, training)
        if isinstance(step, Forward):
            found.append(
                Pass(training, training or not config.track_running_stats, config.eps, step.x)
            )
            yield found[-1]
        elif isinstance(step, Backward):
            yield found[step.of]._replace(dy=step.dy)


def forwards(case: Case) -> Iterator[Pass]:
    """Yield the forwards of a case."""
    return (each for each in passes(case) if each.dy is None)


def backwards(case: Case) -> Iterator[tuple[Pass, Array]]:
    """Yield the forwards of a case whose gradients are asked, each with its dy."""
    return ((each, each.dy) for each in passes(case) if each.dy is not None)
