"""Cases: a config, an initial state and a history of steps, about a dozen choices in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..backend import Capabilities
from ..case import Case, Eval, Forward, ResetParameters, ResetRunningStats, Step, Train
from ..config import Config, State, initial_state
from ..dtypes import Array, DType, dtype_named
from ..errors import ConfigError, allowed
from ..memory import same_bits
from .layouts import LAYOUT
from .shapes import Shape, shapes, with_values
from .tensors import COUNTS, parameters, running_statistics
from .values import SEEDS, Recipe, values

EPS = (1e-5, 1e-3, 1.0, 1e-12, 100.0, 1e-20, 0.1, 1e4)
"""eps over its useful range: the default first, then far above and far below usual variances."""

MOMENTA = (0.1, 1.0, 0.0, None, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25)
"""Momenta: the default first, both ends, the cumulative mean, and values between."""

ABSENT = "absent"
"""A style for parameters or running statistics: the layer has none."""

PARAMETER_STYLES = ("identity", "distinct", "equal", "signs", "random", "loud", ABSENT)
RUNNING_STYLES = ("initial", "distinct", "equal", "random", "large", "small")

STEPS: dict[str, Callable[[], Step]] = {
    "train": Train,
    "eval": Eval,
    "reset": ResetRunningStats,
    "reset all": ResetParameters,
}
"""The steps of a history that carry no data; ``forward`` draws an input, ``again`` repeats the last one,
``alone`` hands each of its samples over by itself."""

HISTORY_WORDS = (*STEPS, "forward", "again", "alone")


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    dtype: str = "float32",
    claims: Capabilities = Capabilities(),  # noqa: B008 - frozen
    history: Sequence[str] = ("forward",),
    shape: st.SearchStrategy[Shape] = shapes(),  # noqa: B008 - strategies are immutable
    value: st.SearchStrategy[Recipe] = values(),  # noqa: B008
    least: int = 2,
    eps: Sequence[float] = EPS,
    momentum: Sequence[float | None] = MOMENTA,
    parameters: Sequence[str] = PARAMETER_STYLES,
    running: Sequence[str] = RUNNING_STYLES,
    built: bool = False,
    change: Callable[[Array], Array] | None = None,
) -> Case:
    """Draw a case.

    Args:
        draw: given by Hypothesis.
        dtype: a row of the table of dtypes.
        claims: what the backend under test claims; nothing else is drawn.
        history: the steps, in the words of :data:`HISTORY_WORDS`. Each forward draws a shape of its own
            (with the same number of channels).
        shape: of the inputs.
        value: recipes for the inputs.
        least: the least number of values per channel; N is raised to reach it.
        eps: choices.
        momentum: choices.
        parameters: styles of weight and bias, :data:`ABSENT` for affine=False.
        running: styles of the running statistics, :data:`ABSENT` for track_running_stats=False.
        built: whether the layer stays as it is built; otherwise a state is drawn for it, and loaded where it differs.
        change: applied to each input before it is laid out in memory.

    Shrinks towards a ramp in one tiny contiguous batch, with the first of each sequence of choices.

    """
    row = dtype_named(dtype)
    first = draw(shape)
    channels = first[1]
    affine_style = draw(_choice(tuple(s for s in parameters if claims.affine_off or s != ABSENT)))
    running_style = draw(_choice(tuple(s for s in running if claims.tracking_off or s != ABSENT)))
    config = Config(
        num_features=channels,
        eps=draw(_choice(tuple(eps))),
        momentum=draw(_choice(tuple(m for m in momentum if claims.cumulative_momentum or m is not None))),
        affine=affine_style != ABSENT,
        track_running_stats=running_style != ABSENT,
        dtype=dtype,
    )
    state = None if built else _state(draw, row, channels, affine_style, running_style)
    if state is not None and _same(state, initial_state(config)):
        state = None  # nothing to load is simpler than loading what is there
    steps: list[Step] = []
    upcoming: Shape | None = first
    for word in history:
        if word == "forward":
            n, _, h, w = upcoming or draw(shape)
            upcoming = None
            x = draw(value).make(with_values((n, channels, h, w), least), row)
            layout = draw(_choice(claims.layouts))
            steps.append(Forward(LAYOUT[layout](change(x) if change else x)))
        elif word == "again":
            steps.append(steps[-1])
        elif word == "alone":
            batch = next(step.x for step in reversed(steps) if isinstance(step, Forward))
            steps += [Forward(batch[i : i + 1]) for i in range(min(len(batch), 4))]
        elif word in STEPS:
            steps.append(STEPS[word]())
        else:
            raise ConfigError(allowed("step of a history", word, HISTORY_WORDS))
    return Case(config, state, tuple(steps))


def _state(draw: st.DrawFn, row: DType, channels: int, affine_style: str, running_style: str) -> State:
    rng = np.random.default_rng(draw(SEEDS))
    tensors: dict[str, Any] = {}
    if affine_style != ABSENT:
        tensors |= parameters(affine_style, rng, channels, row)
    if running_style != ABSENT:
        tensors |= running_statistics(running_style, rng, channels, row)
        tensors["num_batches_tracked"] = np.array(draw(_choice(COUNTS)), np.int64)
    return State(**tensors)


def _same(a: State, b: State) -> bool:
    return all(
        x is y if x is None or y is None else same_bits(x, y)
        for (_, x), (_, y) in zip(a.items(), b.items(), strict=True)
    )


@cache
def _choice(options: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Build each choice once: building a strategy costs as much as drawing from it."""
    return st.sampled_from(options)
