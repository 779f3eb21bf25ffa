"""The steps that each word of a history draws, and what a word may refer to.

Each function adds steps to a :class:`History`, or says whether the steps before allow a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from random import Random
from typing import Any

import numpy as np

from bn_spec.case.arrays import private_copy
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    Backward,
    DoubleBackward,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    training_after,
)
from bn_spec.strategies.case_choices import Choices, Claimed
from bn_spec.strategies.shapes import Shape, with_values
from bn_spec.strategies.values import SEEDS


@dataclass
class History:
    """The steps of a case, drawn one after the other.

    Attributes:
        random: Source of all choices.
        config: Config of the layer before the next step.
        stored: State that the layer stores before the first step.
        claimed: What the backend can be asked.
        draw_state: Draws a state of the layer's styles.
        upcoming: Shape of the next input, if it is decided.
        steps: The steps so far.

    """

    random: Random
    config: Config
    stored: State
    claimed: Claimed
    draw_state: Callable[[], State]
    upcoming: Shape | None
    steps: list[Step] = field(default_factory=list)

    @property
    def choices(self) -> Choices:
        """What steps are drawn from."""
        return self.claimed.choices


# Forwards


def forward(history: History) -> None:
    """Draw an input."""
    history.steps.append(Forward(_input(history)))


def forward_with_gradients(history: History) -> None:
    """Draw an input, and the tensors whose gradients will be asked."""
    history.steps.append(Forward(_input(history), _asked(history)))


def repeat_step(history: History) -> None:
    """Repeat the last step."""
    history.steps.append(history.steps[-1])


def same_input_with_gradients(history: History) -> None:
    """Hand over the last input once more, and ask for other gradients."""
    history.steps.append(Forward(_batches(history)[-1].x, _asked(history)))


def each_sample_alone(history: History) -> None:
    """Hand over each sample of the last input by itself."""
    batch = _batches(history)[-1].x
    history.steps += [Forward(batch[i : i + 1]) for i in range(min(len(batch), 4))]


def special_element(history: History) -> None:
    """Hand over the last input once more, with one element that is no ordinary number."""
    history.steps.append(Forward(_spoilt(history, _batches(history)[-1].x)))


def empty_forward(history: History, *, recorded: bool = False) -> None:
    """Hand over a batch without samples, or without pixels."""
    without = history.random.choice(((0, 1, 1), (1, 0, 1), (1, 1, 0)))
    n, h, w = (size * some for size, some in zip((2, 3, 5), without, strict=True))
    nothing = np.zeros((n, history.config.num_features, h, w), history.config.arithmetic.data.dtype)
    history.steps.append(Forward(nothing, _asked(history) if recorded else ()))


def refused_forward(history: History, way: Callable[[Array], Sequence[Array]]) -> None:
    """Hand over what must be refused."""
    history.steps += [Forward(x) for x in way(_input(history))]


# The same input in another way


def changed_by_law(history: History, law: str) -> None:
    """Hand over the last input as a law changes it, with what else the law changes."""
    rule, last = LAWS[law], _batches(history)[-1].x
    if rule.parameters and history.config.affine:
        parameters = {
            name: a[::-1].copy()
            for name, a in history.stored.tensors().items()
            if name in DIFFERENTIABLE
        }
        _load(history, {**parameters, "strict": False})
    if rule.eps_factor != 1:
        _set(history, "eps", history.config.eps * rule.eps_factor)
    with np.errstate(over="ignore"):  # what no longer fits is not judged
        changed = rule.change(last)
    history.steps.append(Forward(_laid_out(history, changed, history.claimed.layouts)))


def unscaled_input(history: History) -> None:
    """Hand over the last input once more, with weight 1 and bias 0."""
    if history.config.affine:
        fresh = initial_state(history.config)
        history.steps.append(Load(fresh.weight, fresh.bias, strict=False))
    history.steps.append(_batches(history)[-1])


def sum_of_inputs(history: History) -> None:
    """Hand over the sum of the last two inputs, and zeros."""
    first, second = (step.x.astype(np.float64) for step in _batches(history)[-2:])
    with np.errstate(over="ignore", invalid="ignore"):
        total = (first + second).astype(history.config.arithmetic.data.dtype)
    history.steps += [
        Forward(_laid_out(history, x, history.claimed.layouts))
        for x in (total, np.zeros_like(total))
    ]


def forward_of_same_shape(history: History) -> None:
    """Draw an input of the shape of the last, if there was one."""
    if batches := _batches(history):
        history.upcoming = batches[-1].x.shape
    forward(history)


def inputs_joined(history: History) -> None:
    """Hand over the last two inputs as one batch."""
    batch = np.concatenate([step.x for step in _batches(history)[-2:]])
    history.steps.append(Forward(_laid_out(history, batch, history.claimed.layouts)))


# Backwards


def backward(history: History, of: int = -1) -> None:
    """Draw a gradient for the last forward, or for another."""
    history.steps.append(Backward(_gradient(history, _forwards(history)[of].x.shape), of))


def backward_if_possible(history: History) -> None:
    """Draw a gradient for the last forward that was recorded, unless tensors that it needs have moved since.

    PyTorch refuses gradients of what has been changed in place; other frameworks keep copies.
    What becomes of the statistics of an eval forward is judged by itself (GRD-15).
    """
    recorded, forwards, in_eval, training = None, 0, False, True
    for step in history.steps:
        training = training_after(step, training)
        if isinstance(step, Load | Restore | ResetParameters | ResetRunningStats):
            recorded = None
        elif isinstance(step, Forward):
            if step.wrt:
                recorded, in_eval = forwards, not training
            elif training and in_eval:
                recorded = None
            forwards += 1
    if recorded is not None:
        backward(history, recorded)


def backward_with_stride_zero(history: History) -> None:
    """Hand over one number for all elements, as the gradient of a sum is: every stride is zero."""
    shape = _forwards(history)[-1].x.shape
    number = history.choices.gradient(history.random).make((1, 1, 1, 1), history.config.arithmetic)
    history.steps.append(Backward(np.broadcast_to(number, shape)))


def backward_of_zeros(history: History) -> None:
    """Hand over a gradient of zeros."""
    zeros = np.zeros(_forwards(history)[-1].x.shape, history.config.arithmetic.data.dtype)
    history.steps.append(Backward(_laid_out(history, zeros, history.claimed.gradient_layouts)))


def backward_of_the_sum(history: History) -> None:
    """Hand over the sum of the gradients of the last two steps."""
    first, second = _last_backwards(history, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        total = (first.dy + second.dy).astype(first.dy.dtype)
    history.steps.append(
        Backward(_laid_out(history, total, history.claimed.gradient_layouts), second.of)
    )


def backward_with_special_element(history: History) -> None:
    """Hand over the gradient of the last step once more, with one element that is no ordinary number."""
    (last,) = _last_backwards(history)
    history.steps.append(Backward(_spoilt(history, last.dy), last.of))


def backward_of_another_shape(history: History) -> None:
    """Hand over a gradient that has a sample too many, or twice as many."""
    n, *others = _forwards(history)[-1].x.shape
    history.steps.append(
        Backward(_gradient(history, (history.random.choice((n + 1, 2 * n)), *others)))
    )


def double_backward(history: History) -> None:
    """Draw a gradient, and the cotangents of what it gives."""
    shape, held = _forwards(history)[-1].x.shape, history.config.arithmetic.parameters.dtype
    dy, v = _gradient(history, shape), _gradient(history, shape)
    rng = np.random.default_rng(history.random.choice(SEEDS))
    of_parameters = (
        rng.integers(-3, 4, (2, shape[1])).astype(held) if history.config.affine else (None, None)
    )
    history.steps.append(DoubleBackward(dy, v, *of_parameters))


# State


def restore_checkpoint(history: History, of: int = -1, *, fresh: bool = False) -> None:
    """Load a checkpoint."""
    history.steps.append(Restore(of, fresh=fresh))


def restore_some_tensors(history: History) -> None:
    """Load some tensors of a checkpoint, if there are any."""
    if names := tuple(initial_state(history.config).tensors()):
        wanted = history.random.choice(names), history.random.choice(names)
        history.steps.append(Restore(only=tuple(name for name in names if name in wanted)))


def load_state(history: History) -> None:
    """Draw a state, and load it."""
    if tensors := history.draw_state().tensors():
        _load(history, tensors)


def _load(history: History, tensors: Mapping[str, Any]) -> None:
    history.steps.append(Load(**tensors))


def load_unknown_tensors(history: History, *, strict: bool) -> None:
    """Draw a state, and load it with the tensors that other layers have and this one has not."""
    others = initial_state(replace(history.config, affine=True, track_running_stats=True)).tensors()
    _load(history, {**others, **history.draw_state().tensors(), "strict": strict})


def load_wrong_tensor(
    history: History, way: Callable[[dict[str, Array], str], dict[str, Array]]
) -> None:
    """Draw a state, and load it with one tensor that is wrong."""
    tensors = history.draw_state().tensors()
    if names := tuple(name for name in tensors if name != "num_batches_tracked"):
        _load(history, way(tensors, history.random.choice(names)))


def set_eps(history: History) -> None:
    """Draw another eps."""
    _set(history, "eps", history.random.choice(history.choices.eps))


def set_momentum(history: History) -> None:
    """Draw another momentum."""
    _set(history, "momentum", history.random.choice(history.choices.momentum))


def _set(history: History, name: str, value: float | None) -> None:
    history.steps.append(Set(name, value))
    history.config = history.config.changed(name, value)


def fold_convolution(history: History) -> None:
    """Draw a convolution."""
    inputs, h, w = history.random.choice(((1, 1, 1), (2, 3, 3), (3, 1, 2)))
    shape = inputs, history.config.num_features, h, w
    weight = (
        history.choices.gradient(history.random)
        .make(shape, history.config.arithmetic)
        .swapaxes(0, 1)
        .copy()
    )
    bias = (
        history.choices.value(history.random)
        .make((1, len(weight), 1, 1), history.config.arithmetic)
        .ravel()
    )
    history.steps.append(Fold(weight, history.random.choice((None, bias))))


# What a word may refer to


def has_step(history: History) -> bool:
    """Whether there was a step."""
    return bool(history.steps)


def has_input(history: History) -> bool:
    """Whether there was an input with numbers, of the shape that the layer is for."""
    return bool(_batches(history))


def has_inputs_alike(history: History, but_for: int = 0) -> bool:
    """Whether there were two of these and the last two agree in shape, but for so many axes."""
    shapes = [step.x.shape[but_for:] for step in _batches(history)[-2:]]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def has_recorded_forward(history: History, of: int = -1) -> bool:
    """Whether there was a forward and the last, or another, was recorded."""
    return any(step.wrt for step in _forwards(history)[of:][:1])


def has_backwards(history: History, count: int) -> bool:
    """Whether the last steps, so many, were backwards of one shape, and not of empty batches."""
    found = _last_backwards(history, count)
    return len({step.dy.shape for step in found}) == 1 and found[-1].dy.size > 0


def has_checkpoint(history: History) -> bool:
    """Whether there is a checkpoint."""
    return any(isinstance(step, Save) for step in history.steps)


def has_tensors(history: History) -> bool:
    """Whether anything in the layer has the size of its channels; otherwise it may answer any number of them."""
    return history.config.affine or history.config.track_running_stats


def lacks_tensors(history: History) -> bool:
    """Whether there is a tensor that other layers have and this one has not."""
    return not (history.config.affine and history.config.track_running_stats)


def can_fold(history: History) -> bool:
    """Whether the layer is in eval mode and has running statistics."""
    training = reduce(lambda mode, step: training_after(step, mode), history.steps, True)
    return history.config.track_running_stats and not training


def _forwards(history: History) -> list[Forward]:
    return [step for step in history.steps if isinstance(step, Forward)]


def _batches(history: History) -> list[Forward]:
    channels = history.config.num_features
    return [
        s for s in _forwards(history) if s.x.ndim == 4 and s.x.shape[1] == channels and s.x.size
    ]


def _last_backwards(history: History, count: int = 1) -> list[Backward]:
    found = [step for step in history.steps[-count:] if isinstance(step, Backward)]
    return found if len(found) == count else []


# Arrays


def _input(history: History) -> Array:
    choices, channels = history.choices, history.config.num_features
    n, _, h, w = history.upcoming or choices.shape(history.random)
    history.upcoming = None
    x = choices.value(history.random).make(
        with_values((n, channels, h, w), choices.least), history.config.arithmetic
    )
    return _laid_out(history, choices.change(x) if choices.change else x, history.claimed.layouts)


def _asked(history: History) -> tuple[str, ...]:
    known = DIFFERENTIABLE if history.config.affine else DIFFERENTIABLE[:1]
    asked = tuple(name for name in history.random.choice(history.choices.wrt) if name in known)
    return asked or known[:1]


def _gradient(history: History, shape: Shape) -> Array:
    if 0 in shape:
        return np.zeros(shape, history.config.arithmetic.data.dtype)
    array = history.choices.gradient(history.random).make(shape, history.config.arithmetic)
    return _laid_out(history, array, history.claimed.gradient_layouts)


def _laid_out(history: History, array: Array, layouts: Sequence[str]) -> Array:
    return PLACED[history.random.choice(layouts)](array)


def _spoilt(history: History, array: Array) -> Array:
    spoilt = private_copy(array)
    place = np.random.default_rng(history.random.choice(SEEDS)).integers(array.size)
    spoilt[np.unravel_index(place, array.shape)] = history.random.choice(history.choices.special)
    return spoilt


def without(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return {other: a for other, a in tensors.items() if other != name}


def longer(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return tensors | {name: np.append(tensors[name], tensors[name][:1])}


def doubled(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return tensors | {name: np.stack([tensors[name]] * 2)}
