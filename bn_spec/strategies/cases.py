"""Cases: a config, an initial state and a history of steps, about a dozen choices in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..backend import Capabilities
from ..case import (
    DIFFERENTIABLE,
    Backward,
    Case,
    DoubleBackward,
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Step,
    Train,
)
from ..config import Config, State, initial_state
from ..dtypes import Array, DType, dtype_named
from ..errors import ConfigError, allowed
from ..memory import same_bits
from .layouts import LAYOUT
from .shapes import Shape, shapes, with_values
from .signatures import REPRESENTATIVES, fixed, nearest
from .tensors import COUNTS, parameters, running_statistics
from .values import SEEDS, Recipe, gradients, values

EPS = (1e-5, 1e-3, 1.0, 1e-12, 100.0, 1e-20, 0.1, 1e4)
"""eps over its useful range: the default first, then far above and far below usual variances."""

MOMENTA = (0.1, 1.0, 0.0, None, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25)
"""Momenta: the default first, both ends, the cumulative mean, and values between."""

ABSENT = "absent"
"""A style for parameters or running statistics: the layer has none."""

PARAMETER_STYLES = ("identity", "distinct", "equal", "signs", "random", "loud", ABSENT)
RUNNING_STYLES = ("initial", "distinct", "equal", "random", "large", "small")


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    dtype: str = "float32",
    claims: Capabilities = Capabilities(),  # noqa: B008 - frozen
    history: Sequence[str] = ("forward",),
    wrt: Sequence[tuple[str, ...]] = (DIFFERENTIABLE,),
    gradient: st.SearchStrategy[Recipe] = gradients(),  # noqa: B008
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
        history: the steps, in the words of :data:`WORDS`. Each forward draws a shape of its own
            (with the same number of channels), each backward a dy.
        wrt: choices of the tensors whose gradients a recorded forward is asked for.
        gradient: recipes for dy and for the cotangents of a double backward.
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
    layouts = claims.layouts
    if claims.expensive_signatures:
        place = nearest(first)
        first = REPRESENTATIVES[place]
        shape, layouts, wrt = st.just(first), fixed(claims.layouts, place), fixed(wrt, place)
        eps = fixed(eps, place, EPS[0])
        momentum = fixed([m for m in momentum if m is not None] or momentum, place, MOMENTA[0])
        parameters, running = ([s for s in styles if s != ABSENT] or styles for styles in (parameters, running))
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
    script = _Script(draw, config, layouts, claims.layouts, shape, value, gradient, tuple(wrt), least, change, first)
    for word in history:
        if word not in WORDS:
            raise ConfigError(allowed("step of a history", word, WORDS))
        WORDS[word](script)
    return Case(config, state, tuple(script.steps))


@dataclass
class _Script:
    """The steps of a history, drawn one after the other."""

    draw: st.DrawFn
    config: Config
    layouts: tuple[str, ...]
    """Of inputs."""
    gradient_layouts: tuple[str, ...]
    shape: st.SearchStrategy[Shape]
    value: st.SearchStrategy[Recipe]
    gradient: st.SearchStrategy[Recipe]
    wrt: tuple[tuple[str, ...], ...]
    least: int
    change: Callable[[Array], Array] | None
    upcoming: Shape | None
    steps: list[Step] = field(default_factory=list)

    def forward(self) -> None:
        """Draw an input."""
        self.steps.append(Forward(self._input()))

    def record(self) -> None:
        """Draw an input, and the tensors whose gradients will be asked."""
        self.steps.append(Forward(self._input(), self._asked()))

    def again(self) -> None:
        """Repeat the last step."""
        self.steps.append(self.steps[-1])

    def record_again(self) -> None:
        """Hand over the last input once more, and ask for other gradients."""
        self.steps.append(Forward(self._forwards()[-1].x, self._asked()))

    def alone(self) -> None:
        """Hand over each sample of the last input by itself."""
        batch = self._forwards()[-1].x
        self.steps += [Forward(batch[i : i + 1]) for i in range(min(len(batch), 4))]

    def backward(self, of: int = -1) -> None:
        """Draw a gradient for the last forward, or for another."""
        self.steps.append(Backward(self._gradient(self._forwards()[of].x.shape), of))

    def backward_expanded(self) -> None:
        """Hand over one number for all elements, as the gradient of a sum is: every stride is zero."""
        shape = self._forwards()[-1].x.shape
        number = self.draw(self.gradient).make((1, 1, 1, 1), self.config.arithmetic)
        self.steps.append(Backward(np.broadcast_to(number, shape)))

    def backward_of_zeros(self) -> None:
        """Hand over a gradient of zeros."""
        shape = self._forwards()[-1].x.shape
        self.steps.append(Backward(self._laid_out(np.zeros(shape, self.config.arithmetic.data.dtype))))

    def backward_of_the_sum(self) -> None:
        """Hand over the sum of the gradients of the last two steps."""
        first, second = (step.dy for step in self.steps[-2:] if isinstance(step, Backward))
        self.steps.append(Backward(self._laid_out((first + second).astype(first.dtype))))

    def double_backward(self) -> None:
        """Draw a gradient, and the cotangents of what it gives."""
        shape, held = self._forwards()[-1].x.shape, self.config.arithmetic.parameters.dtype
        dy, v = self._gradient(shape), self._gradient(shape)
        rng = np.random.default_rng(self.draw(SEEDS))
        of_parameters = rng.integers(-3, 4, (2, shape[1])).astype(held) if self.config.affine else (None, None)
        self.steps.append(DoubleBackward(dy, v, *of_parameters))

    def _forwards(self) -> list[Forward]:
        return [step for step in self.steps if isinstance(step, Forward)]

    def _input(self) -> Array:
        n, c, h, w = self.upcoming or (*(drawn := self.draw(self.shape))[:1], self.config.num_features, *drawn[2:])
        self.upcoming = None
        x = self.draw(self.value).make(with_values((n, c, h, w), self.least), self.config.arithmetic)
        return LAYOUT[self.draw(_choice(self.layouts))](self.change(x) if self.change else x)

    def _asked(self) -> tuple[str, ...]:
        known = DIFFERENTIABLE if self.config.affine else DIFFERENTIABLE[:1]
        asked = tuple(name for name in self.draw(_choice(self.wrt)) if name in known)
        return asked or known[:1]

    def _gradient(self, shape: Shape) -> Array:
        return self._laid_out(self.draw(self.gradient).make(shape, self.config.arithmetic))

    def _laid_out(self, array: Array) -> Array:
        return LAYOUT[self.draw(_choice(self.gradient_layouts))](array)


WORDS: dict[str, Callable[[_Script], None]] = {
    "train": lambda script: script.steps.append(Train()),
    "eval": lambda script: script.steps.append(Eval()),
    "reset": lambda script: script.steps.append(ResetRunningStats()),
    "reset all": lambda script: script.steps.append(ResetParameters()),
    "forward": _Script.forward,
    "record": _Script.record,
    "again": _Script.again,
    "record again": _Script.record_again,
    "alone": _Script.alone,
    "backward": _Script.backward,
    "backward of the first": lambda script: script.backward(0),
    "backward expanded": _Script.backward_expanded,
    "backward of zeros": _Script.backward_of_zeros,
    "backward of the sum": _Script.backward_of_the_sum,
    "double backward": _Script.double_backward,
}
"""The words of a history, and what each adds to a script."""


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
