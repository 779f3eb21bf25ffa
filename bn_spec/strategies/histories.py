"""Histories: what is done to a layer, in words, and the steps that each word draws.

A word that a backend does not claim, or that has nothing to refer to, adds no step; so any list of
words is a history, and one word less is one too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.case.arrays import private_copy
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS
from bn_spec.case.layouts import LAYOUTS, PLACED
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
    training_after,
)
from bn_spec.strategies.choices import Choose
from bn_spec.strategies.misuse import of_single_values, of_wrong_channels, of_wrong_rank
from bn_spec.strategies.shapes import Shape, with_values
from bn_spec.strategies.values import SEEDS, Recipe

SPECIAL = (np.nan, np.inf, -np.inf, -0.0)
"""What is no ordinary number."""


@dataclass
class Choices:
    """What the steps of a history are drawn from; those of :func:`bn_spec.strategies.cases`."""

    claims: Capabilities
    layouts: tuple[str, ...]
    """Of inputs."""
    gradient_layouts: tuple[str, ...]
    shape: Choose[Shape]
    value: Choose[Recipe]
    gradient: Choose[Recipe]
    wrt: tuple[tuple[str, ...], ...]
    least: int
    eps: tuple[float, ...]
    momentum: tuple[float | None, ...]
    special: tuple[float, ...]
    change: Callable[[Array], Array] | None
    state: Callable[[], State]
    """Draws a state."""


@dataclass
class Script:
    """The steps of a history, drawn one after the other."""

    random: Random
    config: Config
    held: State
    """The state of the layer before the first step."""
    choices: Choices
    upcoming: Shape | None
    """The shape of the first input."""
    steps: list[Step] = field(default_factory=list)

    def add(self, word: str) -> None:
        """Draw the steps of a word of :data:`WORDS`."""
        needs, action, refers = WORDS[word]
        if all(map(self._claims, needs)) and refers(self):
            action(self)

    def _claims(self, name: str) -> bool:
        """Whether a flag is claimed, in the dtype of the case, or a layout."""
        claims = self.choices.claims
        return name in claims.layouts if name in LAYOUTS else claims.has(name, self.config.dtype)

    # Forwards

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
        self.steps.append(Forward(self._batches()[-1].x, self._asked()))

    def alone(self) -> None:
        """Hand over each sample of the last input by itself."""
        batch = self._batches()[-1].x
        self.steps += [Forward(batch[i : i + 1]) for i in range(min(len(batch), 4))]

    def spoilt(self) -> None:
        """Hand over the last input once more, with one element that is no ordinary number."""
        self.steps.append(Forward(self._spoilt(self._batches()[-1].x)))

    def empty(self, *, recorded: bool = False) -> None:
        """Hand over a batch without samples, or without pixels."""
        without = self.random.choice(((0, 1, 1), (1, 0, 1), (1, 1, 0)))
        n, h, w = (size * some for size, some in zip((2, 3, 5), without, strict=True))
        nothing = np.zeros((n, self.config.num_features, h, w), self.config.arithmetic.data.dtype)
        self.steps.append(Forward(nothing, self._asked() if recorded else ()))

    def wrong(self, way: Callable[[Array], Sequence[Array]]) -> None:
        """Hand over what must be refused."""
        self.steps += [Forward(x) for x in way(self._input())]

    # The same input in another way

    def changed(self, law: str) -> None:
        """Hand over the last input as a law changes it, with what else the law changes."""
        rule, last = LAWS[law], self._batches()[-1].x
        if rule.parameters and self.config.affine:
            parameters = {
                name: a[::-1].copy()
                for name, a in self.held.tensors().items()
                if name in DIFFERENTIABLE
            }
            self._load({**parameters, "strict": False})
        if rule.eps_factor != 1:
            self._set("eps", self.config.eps * rule.eps_factor)
        with np.errstate(over="ignore"):  # what no longer fits is not judged
            changed = rule.change(last)
        self.steps.append(Forward(self._laid_out(changed, self.choices.layouts)))

    def unscaled(self) -> None:
        """Hand over the last input once more, with weight 1 and bias 0."""
        if self.config.affine:
            fresh = initial_state(self.config)
            self.steps.append(Load(fresh.weight, fresh.bias, strict=False))
        self.steps.append(self._batches()[-1])

    def sum(self) -> None:
        """Hand over the sum of the last two inputs, and zeros."""
        first, second = (step.x.astype(np.float64) for step in self._batches()[-2:])
        with np.errstate(over="ignore", invalid="ignore"):
            total = (first + second).astype(self.config.arithmetic.data.dtype)
        self.steps += [
            Forward(self._laid_out(x, self.choices.layouts)) for x in (total, np.zeros_like(total))
        ]

    def same_shape(self) -> None:
        """Draw an input of the shape of the last, if there was one."""
        if batches := self._batches():
            self.upcoming = batches[-1].x.shape
        self.forward()

    def joined(self) -> None:
        """Hand over the last two inputs as one batch."""
        batch = np.concatenate([step.x for step in self._batches()[-2:]])
        self.steps.append(Forward(self._laid_out(batch, self.choices.layouts)))

    # Backwards

    def backward(self, of: int = -1) -> None:
        """Draw a gradient for the last forward, or for another."""
        self.steps.append(Backward(self._gradient(self._forwards()[of].x.shape), of))

    def backward_if_recorded(self) -> None:
        """Draw a gradient for the last forward that was recorded, unless tensors that it needs have moved since.

        PyTorch refuses gradients of what has been changed in place; other frameworks keep copies.
        What becomes of the statistics of an eval forward is judged by itself (GRD-15).
        """
        recorded, forwards, in_eval, training = None, 0, False, True
        for step in self.steps:
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
            self.backward(recorded)

    def backward_expanded(self) -> None:
        """Hand over one number for all elements, as the gradient of a sum is: every stride is zero."""
        shape = self._forwards()[-1].x.shape
        number = self.choices.gradient(self.random).make((1, 1, 1, 1), self.config.arithmetic)
        self.steps.append(Backward(np.broadcast_to(number, shape)))

    def backward_of_zeros(self) -> None:
        """Hand over a gradient of zeros."""
        zeros = np.zeros(self._forwards()[-1].x.shape, self.config.arithmetic.data.dtype)
        self.steps.append(Backward(self._laid_out(zeros, self.choices.gradient_layouts)))

    def backward_of_the_sum(self) -> None:
        """Hand over the sum of the gradients of the last two steps."""
        first, second = self._last_backwards(2)
        with np.errstate(over="ignore", invalid="ignore"):
            total = (first.dy + second.dy).astype(first.dy.dtype)
        self.steps.append(Backward(self._laid_out(total, self.choices.gradient_layouts), second.of))

    def backward_spoilt(self) -> None:
        """Hand over the gradient of the last step once more, with one element that is no ordinary number."""
        (last,) = self._last_backwards()
        self.steps.append(Backward(self._spoilt(last.dy), last.of))

    def backward_of_another_shape(self) -> None:
        """Hand over a gradient that has a sample too many, or twice as many."""
        n, *others = self._forwards()[-1].x.shape
        self.steps.append(Backward(self._gradient((self.random.choice((n + 1, 2 * n)), *others))))

    def double_backward(self) -> None:
        """Draw a gradient, and the cotangents of what it gives."""
        shape, held = self._forwards()[-1].x.shape, self.config.arithmetic.parameters.dtype
        dy, v = self._gradient(shape), self._gradient(shape)
        rng = np.random.default_rng(self.random.choice(SEEDS))
        of_parameters = (
            rng.integers(-3, 4, (2, shape[1])).astype(held) if self.config.affine else (None, None)
        )
        self.steps.append(DoubleBackward(dy, v, *of_parameters))

    # State

    def restore(self, of: int = -1, *, fresh: bool = False) -> None:
        """Load a checkpoint."""
        self.steps.append(Restore(of, fresh=fresh))

    def restore_some(self) -> None:
        """Load some tensors of a checkpoint, if there are any."""
        if names := tuple(initial_state(self.config).tensors()):
            wanted = self.random.choice(names), self.random.choice(names)
            self.steps.append(Restore(only=tuple(name for name in names if name in wanted)))

    def load(self) -> None:
        """Draw a state, and load it."""
        if tensors := self.choices.state().tensors():
            self._load(tensors)

    def _load(self, tensors: Mapping[str, Any]) -> None:
        self.steps.append(Load(**tensors))

    def load_another(self, *, strict: bool) -> None:
        """Draw a state, and load it with the tensors that other layers have and this one has not."""
        others = initial_state(
            replace(self.config, affine=True, track_running_stats=True)
        ).tensors()
        self._load({**others, **self.choices.state().tensors(), "strict": strict})

    def load_wrong(self, way: Callable[[dict[str, Array], str], dict[str, Array]]) -> None:
        """Draw a state, and load it with one tensor that is wrong."""
        tensors = self.choices.state().tensors()
        if names := tuple(name for name in tensors if name != "num_batches_tracked"):
            self._load(way(tensors, self.random.choice(names)))

    def set_eps(self) -> None:
        """Draw another eps."""
        self._set("eps", self.random.choice(self.choices.eps))

    def set_momentum(self) -> None:
        """Draw another momentum."""
        self._set("momentum", self.random.choice(self.choices.momentum))

    def _set(self, name: str, value: float | None) -> None:
        self.steps.append(Set(name, value))
        self.config = self.config.changed(name, value)

    def fold(self) -> None:
        """Draw a convolution."""
        inputs, h, w = self.random.choice(((1, 1, 1), (2, 3, 3), (3, 1, 2)))
        shape = inputs, self.config.num_features, h, w
        weight = (
            self.choices.gradient(self.random)
            .make(shape, self.config.arithmetic)
            .swapaxes(0, 1)
            .copy()
        )
        bias = (
            self.choices.value(self.random)
            .make((1, len(weight), 1, 1), self.config.arithmetic)
            .ravel()
        )
        self.steps.append(Fold(weight, self.random.choice((None, bias))))

    # What a word may refer to

    def has_step(self) -> bool:
        """Whether there was a step."""
        return bool(self.steps)

    def has_batch(self) -> bool:
        """Whether there was an input with numbers, of the shape that the layer is for."""
        return bool(self._batches())

    def has_batches_alike(self, but_for: int = 0) -> bool:
        """Whether there were two of these and the last two agree in shape, but for so many axes."""
        shapes = [step.x.shape[but_for:] for step in self._batches()[-2:]]
        return len(shapes) == 2 and shapes[0] == shapes[1]

    def has_record(self, of: int = -1) -> bool:
        """Whether there was a forward and the last, or another, was recorded."""
        return any(step.wrt for step in self._forwards()[of:][:1])

    def has_backwards(self, count: int) -> bool:
        """Whether the last steps, so many, were backwards of one shape, and not of empty batches."""
        found = self._last_backwards(count)
        return len({step.dy.shape for step in found}) == 1 and found[-1].dy.size > 0

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint."""
        return any(isinstance(step, Save) for step in self.steps)

    def has_tensors(self) -> bool:
        """Whether anything in the layer has the size of its channels; otherwise it may answer any number of them."""
        return self.config.affine or self.config.track_running_stats

    def lacks_tensors(self) -> bool:
        """Whether there is a tensor that other layers have and this one has not."""
        return not (self.config.affine and self.config.track_running_stats)

    def can_fold(self) -> bool:
        """Whether the layer is in eval mode and has running statistics."""
        training = reduce(lambda mode, step: training_after(step, mode), self.steps, True)
        return self.config.track_running_stats and not training

    def _forwards(self) -> list[Forward]:
        return [step for step in self.steps if isinstance(step, Forward)]

    def _batches(self) -> list[Forward]:
        channels = self.config.num_features
        return [
            s for s in self._forwards() if s.x.ndim == 4 and s.x.shape[1] == channels and s.x.size
        ]

    def _last_backwards(self, count: int = 1) -> list[Backward]:
        found = [step for step in self.steps[-count:] if isinstance(step, Backward)]
        return found if len(found) == count else []

    # Arrays

    def _input(self) -> Array:
        choices, channels = self.choices, self.config.num_features
        n, _, h, w = self.upcoming or choices.shape(self.random)
        self.upcoming = None
        x = choices.value(self.random).make(
            with_values((n, channels, h, w), choices.least), self.config.arithmetic
        )
        return self._laid_out(choices.change(x) if choices.change else x, choices.layouts)

    def _asked(self) -> tuple[str, ...]:
        known = DIFFERENTIABLE if self.config.affine else DIFFERENTIABLE[:1]
        asked = tuple(name for name in self.random.choice(self.choices.wrt) if name in known)
        return asked or known[:1]

    def _gradient(self, shape: Shape) -> Array:
        if 0 in shape:
            return np.zeros(shape, self.config.arithmetic.data.dtype)
        array = self.choices.gradient(self.random).make(shape, self.config.arithmetic)
        return self._laid_out(array, self.choices.gradient_layouts)

    def _laid_out(self, array: Array, layouts: tuple[str, ...]) -> Array:
        return PLACED[self.random.choice(layouts)](array)

    def _spoilt(self, array: Array) -> Array:
        spoilt = private_copy(array)
        place = np.random.default_rng(self.random.choice(SEEDS)).integers(array.size)
        spoilt[np.unravel_index(place, array.shape)] = self.random.choice(self.choices.special)
        return spoilt


def _without(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return {other: a for other, a in tensors.items() if other != name}


def _longer(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return tensors | {name: np.append(tensors[name], tensors[name][:1])}


def _doubled(tensors: dict[str, Array], name: str) -> dict[str, Array]:
    return tensors | {name: np.stack([tensors[name]] * 2)}


class Word(NamedTuple):
    """The claims without which a word adds no step, what it adds, and whether there is what it refers to.

    Claims are flags, or layouts.
    """

    needs: tuple[str, ...]
    action: Callable[[Script], None]
    refers: Callable[[Script], bool] = lambda _: True


def _step(step: Step) -> Callable[[Script], None]:
    return lambda script: script.steps.append(step)


_NOTHING: tuple[str, ...] = ()
_GRADIENTS = ("gradients",)
_CHECKPOINTS = ("checkpoints",)
_LIVE = ("live_attributes",)
_CHECKS = ("input_checks",)

WORDS: Mapping[str, Word] = MappingProxyType(
    {
        "train": Word(_NOTHING, _step(Train())),
        "eval": Word(("inference",), _step(Eval())),
        "reset": Word(_NOTHING, _step(ResetRunningStats())),
        "reset all": Word(_NOTHING, _step(ResetParameters())),
        "forward": Word(_NOTHING, Script.forward),
        "forward of the same shape": Word(_NOTHING, Script.same_shape),
        "forward of nothing": Word(("empty_batch",), Script.empty),
        "forward of single values": Word(
            ("refuses_single_values",), partial(Script.wrong, way=of_single_values)
        ),
        "forward of another rank": Word(_CHECKS, partial(Script.wrong, way=of_wrong_rank)),
        "forward of other channels": Word(
            _CHECKS, partial(Script.wrong, way=of_wrong_channels), Script.has_tensors
        ),
        "record": Word(_GRADIENTS, Script.record),
        "record nothing": Word(("gradients", "empty_batch"), partial(Script.empty, recorded=True)),
        "again": Word(_NOTHING, Script.again, Script.has_step),
        "record again": Word(_GRADIENTS, Script.record_again, Script.has_batch),
        "alone": Word(_NOTHING, Script.alone, Script.has_batch),
        "spoilt": Word(_NOTHING, Script.spoilt, Script.has_batch),
        "unscaled": Word(_CHECKPOINTS, Script.unscaled, Script.has_batch),
        "sum": Word(_NOTHING, Script.sum, Script.has_batches_alike),
        "joined": Word(_NOTHING, Script.joined, partial(Script.has_batches_alike, but_for=1)),
        **{
            name: Word(
                (
                    *(_CHECKPOINTS if law.parameters else ()),
                    *(_LIVE if law.eps_factor != 1 else ()),
                ),
                partial(Script.changed, law=name),
                Script.has_batch,
            )
            for name, law in LAWS.items()
        },
        "backward": Word(_GRADIENTS, Script.backward, Script.has_record),
        "backward of the first": Word(
            _GRADIENTS, partial(Script.backward, of=0), partial(Script.has_record, of=0)
        ),
        "backward if recorded": Word(_GRADIENTS, Script.backward_if_recorded),
        "backward expanded": Word(
            (*_GRADIENTS, "expanded"), Script.backward_expanded, Script.has_record
        ),
        "backward of zeros": Word(_GRADIENTS, Script.backward_of_zeros, Script.has_record),
        "backward of the sum": Word(
            _GRADIENTS, Script.backward_of_the_sum, partial(Script.has_backwards, count=2)
        ),
        "backward spoilt": Word(
            _GRADIENTS, Script.backward_spoilt, partial(Script.has_backwards, count=1)
        ),
        "backward of another shape": Word(
            _GRADIENTS, Script.backward_of_another_shape, Script.has_record
        ),
        "double backward": Word(("double_backward",), Script.double_backward, Script.has_record),
        "save": Word(_CHECKPOINTS, _step(Save())),
        "restore": Word(_CHECKPOINTS, Script.restore, Script.has_checkpoint),
        "restore the first": Word(
            _CHECKPOINTS, partial(Script.restore, of=0), Script.has_checkpoint
        ),
        "restore into a new layer": Word(
            _CHECKPOINTS, partial(Script.restore, fresh=True), Script.has_checkpoint
        ),
        "restore some": Word(_CHECKPOINTS, Script.restore_some, Script.has_checkpoint),
        "load": Word(_CHECKPOINTS, Script.load),
        "load one too few": Word(_CHECKPOINTS, partial(Script.load_wrong, way=_without)),
        "load too many": Word(
            _CHECKPOINTS, partial(Script.load_another, strict=True), Script.lacks_tensors
        ),
        "load what it has of too many": Word(
            _CHECKPOINTS, partial(Script.load_another, strict=False), Script.lacks_tensors
        ),
        "load another size": Word(_CHECKPOINTS, partial(Script.load_wrong, way=_longer)),
        "load another rank": Word(_CHECKPOINTS, partial(Script.load_wrong, way=_doubled)),
        "set eps": Word(_LIVE, Script.set_eps),
        "set momentum": Word(_LIVE, Script.set_momentum),
        "fold": Word(("folding", "inference"), Script.fold, Script.can_fold),
    }
)
"""The words of a history."""

LONGEST = 20
"""Words in a history that is drawn."""

USUAL = (
    *("forward", "eval", "train", "record", "backward if recorded", "save", "restore"),
    *("reset", "reset all", "restore into a new layer", "restore some", "restore the first"),
    *("load", "set eps", "set momentum", "forward of nothing", "forward of single values"),
    *("forward of another rank", "forward", "forward", "record", "backward if recorded"),
    *("eval", "train", "record", "backward if recorded", "backward if recorded", "save", "restore"),
)
"""Words for a history of anything: those that come more often stand here more than once."""


def histories(
    *words: str,
    least: int = 1,
    most: int = LONGEST,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> Choose[list[str]]:
    """Choose some of the given words, in any order (of :data:`USUAL` by default); shrinks towards fewer of them.

    Every second history is long: what happens late shows after enough of a past. Other words may
    come ``before`` all of these, and ``after``.
    """

    def choose(random: Random) -> list[str]:
        usual_length, some = random.choice((most // 2, 5 * most)), list[str]()
        while len(some) < least or (len(some) < most and random.randrange(usual_length)):
            some.append(random.choice(words or USUAL))
        return [*before, *some, *after]

    return choose
