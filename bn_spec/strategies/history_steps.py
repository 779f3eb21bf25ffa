"""The steps that each word of a history draws, and the conditions under which a word applies.

Each function adds steps to a :class:`History`, or says whether the earlier steps allow a word.
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
        claimed: The claimed part of the choices.
        draw_state: Draws a state in the styles of the layer.
        upcoming: Shape of the next input, if it is already chosen.
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
        """What the steps are drawn from."""
        return self.claimed.choices


# Forwards


def forward(history: History) -> None:
    """Draw an input."""
    history.steps.append(Forward(_input(history)))


def forward_with_gradients(history: History) -> None:
    """Draw an input, and the tensors whose gradients are needed later."""
    history.steps.append(Forward(_input(history), _asked(history)))


def repeat_step(history: History) -> None:
    """Repeat the last step."""
    history.steps.append(history.steps[-1])


def same_input_with_gradients(history: History) -> None:
    """Hand over the last input again, and draw the tensors whose gradients are needed."""
    history.steps.append(Forward(_batches(history)[-1].x, _asked(history)))


def each_sample_alone(history: History) -> None:
    """Hand over the first samples of the last input, each in a batch of its own."""
    batch = _batches(history)[-1].x
    history.steps += [Forward(batch[i : i + 1]) for i in range(min(len(batch), 4))]


def special_element(history: History) -> None:
    """Hand over the last input again, with one special element."""
    history.steps.append(Forward(_spoilt(history, _batches(history)[-1].x)))


def empty_forward(history: History, *, recorded: bool = False) -> None:
    """Hand over a batch without samples, or without pixels."""
    n, h, w = history.random.choice(((0, 3, 5), (2, 0, 5), (2, 3, 0)))
    nothing = np.zeros((n, history.config.num_features, h, w), history.config.arithmetic.data.dtype)
    history.steps.append(Forward(nothing, _asked(history) if recorded else ()))


def refused_forward(history: History, way: Callable[[Array], Sequence[Array]]) -> None:
    """Draw an input, and hand it over made wrong, so that the layer must refuse it."""
    history.steps += [Forward(x) for x in way(_input(history))]


# The same input in another way


def changed_by_law(history: History, law: str) -> None:
    """Hand over the last input as a law changes it; change parameters and eps as the law says."""
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
    # A changed value may overflow; elements that do are not judged.
    with np.errstate(over="ignore"):
        changed = rule.change(last)
    history.steps.append(Forward(_laid_out(history, changed, history.claimed.layouts)))


def unscaled_input(history: History) -> None:
    """Set weight to 1 and bias to 0, and hand over the last input again."""
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
    """Draw an input of the shape of the last one, or of any shape if there is none."""
    batches = _batches(history)
    if batches:
        history.upcoming = batches[-1].x.shape
    forward(history)


def inputs_joined(history: History) -> None:
    """Hand over the last two inputs as one batch."""
    batch = np.concatenate([step.x for step in _batches(history)[-2:]])
    history.steps.append(Forward(_laid_out(history, batch, history.claimed.layouts)))


# Backwards


def backward(history: History, of: int = -1) -> None:
    """Draw a gradient for the last forward, or for the one with index ``of``."""
    history.steps.append(Backward(_gradient(history, _forwards(history)[of].x.shape), of))


def backward_if_possible(history: History) -> None:
    """Draw a gradient for the last recorded forward, unless tensors that it needs have changed.

    PyTorch refuses to differentiate through tensors that were changed in place since the forward;
    other frameworks keep copies. GRD-15 alone judges statistics that moved after an eval forward.
    """
    recorded: int | None = None
    forwards, in_eval, training = 0, False, True
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
    """Hand over a gradient with stride 0 on every axis, as that of a sum has."""
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
    """Hand over the gradient of the last step again, with one special element."""
    (last,) = _last_backwards(history)
    history.steps.append(Backward(_spoilt(history, last.dy), last.of))


def backward_of_another_shape(history: History) -> None:
    """Hand over a gradient with one sample more than the output, or twice as many."""
    n, *others = _forwards(history)[-1].x.shape
    samples = history.random.choice((n + 1, 2 * n))
    history.steps.append(Backward(_gradient(history, (samples, *others))))


def double_backward(history: History) -> None:
    """Draw a gradient, and the cotangents of the gradients that follow from it."""
    shape = _forwards(history)[-1].x.shape
    dy, v = _gradient(history, shape), _gradient(history, shape)
    rng = np.random.default_rng(history.random.choice(SEEDS))
    v_weight = v_bias = None
    if history.config.affine:
        small = rng.integers(-3, 4, (2, shape[1]))
        v_weight, v_bias = small.astype(history.config.arithmetic.parameters.dtype)
    history.steps.append(DoubleBackward(dy, v, v_weight, v_bias))


# State


def restore_checkpoint(history: History, of: int = -1, *, fresh: bool = False) -> None:
    """Load the last checkpoint, or the one with index ``of``, possibly into a new layer."""
    history.steps.append(Restore(of, fresh=fresh))


def restore_some_tensors(history: History) -> None:
    """Load one or two tensors of a checkpoint, unless the layer has none."""
    names = tuple(initial_state(history.config).tensors())
    if names:
        wanted = history.random.choice(names), history.random.choice(names)
        history.steps.append(Restore(only=tuple(name for name in names if name in wanted)))


def load_state(history: History) -> None:
    """Draw a state, and load it, unless the layer has no tensors."""
    tensors = history.draw_state().tensors()
    if tensors:
        _load(history, tensors)


def _load(history: History, tensors: Mapping[str, Any]) -> None:
    history.steps.append(Load(**tensors))


def load_unknown_tensors(history: History, *, strict: bool) -> None:
    """Draw a state, and load it together with tensors that only other layers have."""
    others = initial_state(replace(history.config, affine=True, track_running_stats=True)).tensors()
    _load(history, {**others, **history.draw_state().tensors(), "strict": strict})


def load_wrong_tensor(
    history: History, way: Callable[[dict[str, Array], str], dict[str, Array]]
) -> None:
    """Draw a state, and load it with one wrong tensor, unless the layer has none."""
    tensors = history.draw_state().tensors()
    names = tuple(name for name in tensors if name != "num_batches_tracked")
    if names:
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
    """Draw weight and bias of a convolution, and fold the layer into it."""
    inputs, h, w = history.random.choice(((1, 1, 1), (2, 3, 3), (3, 1, 2)))
    outputs, arithmetic = history.config.num_features, history.config.arithmetic
    # A recipe treats the second axis as channels; those of the layer are the first axis here.
    recipe = history.choices.gradient(history.random)
    weight = recipe.make((inputs, outputs, h, w), arithmetic).swapaxes(0, 1).copy()
    recipe = history.choices.value(history.random)
    bias = recipe.make((1, outputs, 1, 1), arithmetic).ravel()
    history.steps.append(Fold(weight, history.random.choice((None, bias))))


# Conditions under which a word applies


def has_step(history: History) -> bool:
    """Whether there is an earlier step."""
    return bool(history.steps)


def has_input(history: History) -> bool:
    """Whether there is an earlier input that is valid and not empty."""
    return bool(_batches(history))


def has_inputs_alike(history: History, but_for: int = 0) -> bool:
    """Whether the last two valid inputs agree in shape, apart from their first ``but_for`` axes."""
    shapes = [step.x.shape[but_for:] for step in _batches(history)[-2:]]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def has_recorded_forward(history: History, of: int = -1) -> bool:
    """Whether the last forward, or the one with index ``of``, is recorded for a backward."""
    return any(step.wrt for step in _forwards(history)[of:][:1])


def has_backwards(history: History, count: int) -> bool:
    """Whether the last ``count`` steps are backwards whose dy have one shape and are not empty."""
    found = _last_backwards(history, count)
    return len({step.dy.shape for step in found}) == 1 and found[-1].dy.size > 0


def has_checkpoint(history: History) -> bool:
    """Whether there is a checkpoint."""
    return any(isinstance(step, Save) for step in history.steps)


def has_tensors(history: History) -> bool:
    """Whether the layer has a tensor of its number of channels.

    A layer without one may accept inputs of any number of channels.
    """
    return history.config.affine or history.config.track_running_stats


def lacks_tensors(history: History) -> bool:
    """Whether the layer lacks a tensor that other layers have."""
    return not (history.config.affine and history.config.track_running_stats)


def can_fold(history: History) -> bool:
    """Whether the layer is in eval mode and has running statistics."""
    training = reduce(lambda mode, step: training_after(step, mode), history.steps, True)
    return history.config.track_running_stats and not training


def _forwards(history: History) -> list[Forward]:
    return [step for step in history.steps if isinstance(step, Forward)]


def _batches(history: History) -> list[Forward]:
    """Return the forwards whose inputs are valid and not empty."""
    channels = history.config.num_features
    return [
        s for s in _forwards(history) if s.x.ndim == 4 and s.x.shape[1] == channels and s.x.size
    ]


def _last_backwards(history: History, count: int = 1) -> list[Backward]:
    """Return the last steps, if they are all backwards; otherwise nothing."""
    found = [step for step in history.steps[-count:] if isinstance(step, Backward)]
    return found if len(found) == count else []


# Arrays


def _input(history: History) -> Array:
    choices, channels = history.choices, history.config.num_features
    n, _, h, w = history.upcoming or choices.shape(history.random)
    history.upcoming = None
    shape = with_values((n, channels, h, w), choices.least)
    x = choices.value(history.random).make(shape, history.config.arithmetic)
    if choices.change is not None:
        x = choices.change(x)
    return _laid_out(history, x, history.claimed.layouts)


def _asked(history: History) -> tuple[str, ...]:
    """Draw the tensors that require a gradient; at least one of those that the layer has."""
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
    """Return a copy of an array with a special element in a drawn place."""
    spoilt = private_copy(array)
    place = np.random.default_rng(history.random.choice(SEEDS)).integers(array.size)
    spoilt[np.unravel_index(place, array.shape)] = history.random.choice(history.choices.special)
    return spoilt


def without(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    """Return the tensors without one of them."""
    return {other: a for other, a in tensors.items() if other != name}


def longer(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    """Return the tensors with one of them longer by one element."""
    return tensors | {name: np.append(tensors[name], tensors[name][:1])}


def doubled(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    """Return the tensors with one of them twice in a matrix, shape (2, C)."""
    return tensors | {name: np.stack([tensors[name]] * 2)}
