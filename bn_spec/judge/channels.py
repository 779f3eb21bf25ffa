"""Parts of a case and of its observation: some of the channels, as if the layer had no others.

Batch normalisation treats each channel separately. A case that is too large to be judged at once
can therefore be judged in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from bn_spec.case.config import State
from bn_spec.case.script import Case
from bn_spec.case.steps import Forward, Step
from bn_spec.play.observation import Answer, Observation, Oddity


def in_parts(
    case: Case, observation: Observation, values: int
) -> Iterator[tuple[slice, Case, Observation]]:
    """Yield the parts of a case and of its observation.

    Args:
        case: A case in which only forwards have arrays.
        observation: Its observation. An output that is not an array (N, C, H, W) is in all parts.
        values: Number of values of the largest input that a part should have at most. A part has
            at least one channel.

    Yields:
        The channels of the part, its case and its observation.

    """
    channels = case.config.num_features
    width = max(values * channels // max(x.size for x in case.forwards()), 1)
    for start in range(0, channels, width):
        some = slice(start, min(start + width, channels))
        config = replace(case.config, num_features=some.stop - some.start)
        part = tuple(_of_step(step, some) for step in case.steps)
        narrow = Case(config, _of_state(case.state, some), part)
        answers = tuple(_of_answer(answer, some) for answer in observation.answers)
        yield some, narrow, Observation(_of_state(observation.initial, some), answers)


def _of_answer(answer: Answer, some: slice) -> Answer:
    output = answer.output
    if isinstance(output, np.ndarray) and output.ndim == 4:
        output = output[:, some]
    return replace(
        answer,
        step=_of_step(answer.step, some),
        before=_of_state(answer.before, some),
        after=_of_state(answer.after, some),
        output=output,
    )


def _of_step(step: Step, some: slice) -> Step:
    return replace(step, x=step.x[:, some]) if isinstance(step, Forward) else step


S = TypeVar("S", State, State | None, State | Oddity)


def _of_state(state: S, some: slice) -> S:
    return state.map(lambda a: a[some] if a.ndim else a) if isinstance(state, State) else state
