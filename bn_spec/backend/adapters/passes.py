"""The forward and backward passes of a case, for the known failures of adapters.

Needs no framework.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, Forward, config_after, training_after


class Pass(NamedTuple):
    """A forward of a case, or the backward of one.

    Attributes:
        training: Whether the layer was in training mode at the forward.
        batch_statistics: Whether the statistics of the batch normalised the output.
        eps: The eps of the forward.
        x: The input of the forward.
        dy: The gradient of the output, if this is a backward; None if it is a forward.

    """

    training: bool
    batch_statistics: bool
    eps: float
    x: Array
    dy: Array | None = None


def passes(case: Case) -> Iterator[Pass]:
    """Yield the forwards of a case and their backwards, in the order of the steps."""
    config, training, found = case.config, True, list[Pass]()
    for step in case.steps:
        config, training = config_after(config, step), training_after(step, training)
        if isinstance(step, Forward):
            # Without running statistics, eval mode uses those of the batch too.
            by_batch = training or not config.track_running_stats
            forward = Pass(training, by_batch, config.eps, step.x)
            found.append(forward)
            yield forward
        elif isinstance(step, Backward):
            yield found[step.of]._replace(dy=step.dy)


def forwards(case: Case) -> Iterator[Pass]:
    """Yield the forwards of a case."""
    return (each for each in passes(case) if each.dy is None)


def backwards(case: Case) -> Iterator[tuple[Pass, Array]]:
    """Yield the forwards of a case that a backward asks gradients of, each with its dy."""
    return ((each, each.dy) for each in passes(case) if each.dy is not None)
