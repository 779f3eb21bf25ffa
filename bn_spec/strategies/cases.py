"""Cases: a config, an initial state and a history of steps, about a dozen choices in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bn_spec.backend.claims import EVERYTHING, Capabilities
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import Array, DType, dtype_named
from bn_spec.case.layouts import USUAL_LAYOUTS, spread
from bn_spec.case.script import Case
from bn_spec.case.steps import DIFFERENTIABLE
from bn_spec.errors import ConfigError, allowed
from bn_spec.strategies.choices import RANDOMS, Choose, among
from bn_spec.strategies.histories import SPECIAL, WORDS, Choices, Script
from bn_spec.strategies.shapes import Shape, shapes
from bn_spec.strategies.signatures import REPRESENTATIVES, fixed, nearest
from bn_spec.strategies.tensors import COUNTS, parameters, running_statistics
from bn_spec.strategies.values import SEEDS, Recipe, gradients, values

EPS = (1e-5, 1e-3, 1.0, 1e-12, 100.0, 1e-20, 0.1, 1e4)
"""eps over its useful range: the default first, then far above and far below usual variances."""

MOMENTA = (0.1, 1.0, 0.0, None, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25)
"""Momenta: the default first, both ends, the cumulative mean, and values between."""

ABSENT = "absent"
"""A style for parameters or running statistics: the layer has none."""

PARAMETER_STYLES = ("identity", "distinct", "equal", "signs", "random", "loud", ABSENT)
RUNNING_STYLES = ("initial", "distinct", "equal", "random", "large", "small")

KEEPING = tuple(style for style in RUNNING_STYLES if style != "initial")
"""Running statistics that show whether they are kept, or looked at."""


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    dtype: str = "float32",
    claims: Capabilities = EVERYTHING,
    history: Sequence[str] | Choose[list[str]] = ("forward",),
    wrt: Sequence[tuple[str, ...]] = (DIFFERENTIABLE,),
    gradient: Choose[Recipe] = gradients(),  # noqa: B008
    shape: Choose[Shape] = shapes(),  # noqa: B008 - functions are immutable
    value: Choose[Recipe] = values(),  # noqa: B008
    layouts: Sequence[str] = USUAL_LAYOUTS,
    least: int = 2,
    eps: Sequence[float] = EPS,
    momentum: Sequence[float | None] = MOMENTA,
    parameters: Sequence[str] = PARAMETER_STYLES,
    running: Sequence[str] = RUNNING_STYLES,
    special: Sequence[float] = SPECIAL,
    built: bool = False,
    strided: bool = False,
    change: Callable[[Array], Array] | None = None,
) -> Case:
    """Draw a case.

    Args:
        draw: given by Hypothesis. dtype: a row of the table of dtypes. claims: what the backend
        under test claims; nothing else is drawn. history: the steps, in the words of
        :data:`bn_spec.strategies.histories.WORDS`, or what chooses them.
            Each forward draws a shape of its own (with the same number of channels), each backward
            a dy.
        wrt: choices of the tensors whose gradients a recorded forward is asked for. gradient:
        recipes for dy and for the cotangents of a double backward. shape: of the inputs. value:
        recipes for the inputs. layouts: of inputs and gradients, as far as they are claimed. least:
        the least number of values per channel; N is raised to reach it. eps: choices. momentum:
        choices. parameters: styles of weight and bias, :data:`ABSENT` for affine=False. running:
        styles of the running statistics, :data:`ABSENT` for track_running_stats=False. special:
        choices of what is put among ordinary numbers. built: whether the layer stays as it is
        built; otherwise a state is drawn for it, and loaded where it differs. strided: whether the
        tensors of the state are laid out with gaps, where that is claimed. change: applied to each
        input before it is laid out in memory.

    Shrinks towards a ramp in one tiny contiguous batch, with the first of each sequence of choices.

    """
    row = dtype_named(dtype)
    random = draw(RANDOMS)
    first = shape(random)
    known = input_layouts = (
        tuple(layout for layout in layouts if layout in claims.layouts) or claims.layouts
    )
    if claims.expensive_signatures:
        place = nearest(first)
        first = REPRESENTATIVES[place]
        shape, wrt = among([first]), fixed(wrt, place)
        input_layouts = (
            fixed(known, place) if layouts is USUAL_LAYOUTS else known
        )  # some properties are about them
        eps = fixed(eps, place, EPS[0])
        momentum = fixed([m for m in momentum if m is not None] or momentum, place, MOMENTA[0])
        parameters, running = (
            [s for s in styles if s != ABSENT] or styles for styles in (parameters, running)
        )
    channels = first[1]
    affine_style = random.choice([s for s in parameters if claims.affine_off or s != ABSENT])
    running_style = random.choice([s for s in running if claims.tracking_off or s != ABSENT])
    least_eps, largest_eps = claims.dialect.eps_range
    eps = [e for e in eps if least_eps <= e <= largest_eps] or [
        max(least_eps, min(largest_eps, eps[0]))
    ]
    momenta = tuple(m for m in momentum if _is_momentum(m, claims)) or (MOMENTA[0],)
    config = Config(
        num_features=channels,
        eps=random.choice(eps),
        momentum=random.choice(momenta),
        affine=affine_style != ABSENT,
        track_running_stats=running_style != ABSENT,
        dtype=dtype,
    )
    drawn = partial(_state, random, row, channels, affine_style, running_style)
    state = None if built else drawn()
    if state is not None and _same(state, initial_state(config)):
        state = None  # nothing to load is simpler than loading what is there
    held = state or initial_state(config)
    if strided and claims.strided_state:
        state = held.map(lambda a: spread(a, random.choice((2, 3, 1))) if a.ndim else a)
    choices = Choices(
        claims,
        input_layouts,
        known,
        shape,
        value,
        gradient,
        tuple(wrt),
        least,
        tuple(eps),
        momenta,
        tuple(special),
        change,
        drawn,
    )
    script = Script(random, config, held, choices, first)
    for word in history if isinstance(history, Sequence) else history(random):
        if word not in WORDS:
            raise ConfigError(allowed("step of a history", word, WORDS))
        script.add(word)
    return Case(config, state, tuple(script.steps))


def _is_momentum(momentum: float | None, claims: Capabilities) -> bool:
    return claims.cumulative_momentum if momentum is None else momentum != 0 or claims.momentum_zero


def _state(
    random: Random, row: DType, channels: int, affine_style: str, running_style: str
) -> State:
    rng = np.random.default_rng(random.choice(SEEDS))
    tensors: dict[str, Any] = {}
    if affine_style != ABSENT:
        tensors |= parameters(affine_style, rng, channels, row)
    if running_style != ABSENT:
        tensors |= running_statistics(running_style, rng, channels, row)
        tensors["num_batches_tracked"] = np.array(random.choice(COUNTS), np.int64)
    return State(**tensors)


def _same(a: State, b: State) -> bool:
    return all(
        x is y if x is None or y is None else same_bits(x, y)
        for (_, x), (_, y) in zip(a.items(), b.items(), strict=True)
    )
