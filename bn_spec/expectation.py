"""What the reference answers to a step, with an error bound per element.

The expectation for a step starts from the state that the layer itself reported before it, so that bounds stay
one step deep and one fault gives one finding, not a cascade.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .backend import DOUBLE_GRADIENTS, GRADIENTS
from .block import Block
from .bounded import Bounded, Joined
from .bounds import Accuracy, Model
from .case import DIFFERENTIABLE, Backward, DoubleBackward, Forward, ResetParameters, ResetRunningStats, Step
from .config import Config, State, initial_state
from .dtypes import Array
from .reference import Extended
from .reference import formulas as f


@dataclass(frozen=True, eq=False)
class Refusal:
    """The step must raise one of these kinds of exception, because of ``reason``."""

    kinds: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a step must give: an output, gradients, and each tensor of the state within a bound or exactly.

    ``gradients`` has the names of :data:`GRADIENTS` or :data:`DOUBLE_GRADIENTS`; None for one that must not be
    answered. ``refusal`` replaces all other fields but the state, which then must be the one before.
    """

    state: State
    output: Bounded | None = None
    running_mean: Bounded | None = None
    running_var: Bounded | None = None
    gradients: Mapping[str, Bounded | None] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(frozen=True, eq=False)
class Context:
    """What a forward started from; its gradients depend on nothing else."""

    before: State
    training: bool
    step: Forward
    refused: bool = False
    """There was nothing to differentiate."""

    @property
    def batch_statistics(self) -> bool:
        """Whether the statistics of the batch normalise it."""
        return self.training or self.before.running_mean is None


def refusal_of(config: Config, x: Array, batch_statistics: bool) -> Refusal | None:
    """Return why a BatchNorm2d must refuse ``x``, or None.

    The kinds are those of torch.nn.BatchNorm2d: ValueError for the rank and for a single value per channel,
    RuntimeError (or ValueError) for the number of channels.
    """
    if x.ndim != 4:
        return Refusal(("ValueError",), f"the input is {x.ndim}-dimensional, not 4-dimensional (N, C, H, W)")
    holds_tensors = config.affine or config.track_running_stats
    if holds_tensors and x.shape[1] != config.num_features:
        return Refusal(
            ("ValueError", "RuntimeError"),
            f"the input has {x.shape[1]} channels, the layer {config.num_features}",
        )
    if batch_statistics and x.size == x.shape[1]:
        return Refusal(("ValueError",), "batch statistics need more than one value per channel")
    return None


@np.errstate(all="ignore")  # infinities and NaN in the data are answered, not announced
def expect(
    config: Config,
    before: State,
    training: bool,
    step: Step,
    accuracy: Accuracy,
    forwards: Sequence[Context] = (),
) -> Expectation:
    """Return the expectation of ``step`` for a layer in state ``before``, whose kernel claims ``accuracy``.

    ``forwards`` are those of the case so far, of which a backward step names one.
    """
    if isinstance(step, Forward):
        return _expect_forward(config, Context(before, training, step), accuracy)
    if isinstance(step, Backward | DoubleBackward):
        return _expect_backward(config, before, step, forwards[step.of], accuracy)
    fresh = initial_state(config)
    if isinstance(step, ResetParameters):
        return Expectation(fresh)
    if isinstance(step, ResetRunningStats):
        return Expectation(State(before.weight, before.bias, *(a for _, a in fresh.items()[2:])))
    return Expectation(before)


BLOCK = 2**16
"""Values that are looked at together: whole channels, as many as stay in the cache, or one."""


def _expect_forward(config: Config, context: Context, accuracy: Accuracy) -> Expectation:
    before, x = context.before, context.step.x
    if refusal := refusal_of(config, x, context.batch_statistics):
        return Expectation(before, refusal=refusal)
    tracked = before.num_batches_tracked if context.training else None
    counter = None if tracked is None else np.asarray(tracked + 1)
    tracking = context.training and before.running_mean is not None
    momentum = f.update_factor(config.momentum, 1 if counter is None else counter.item()) if tracking else None
    channels = x.shape[1]
    output, mean, var = Joined(x.shape), Joined((channels,)), Joined((channels,))
    for some, block in _blocks(config, context, accuracy):
        output.add(some, block.output())
        if momentum is not None:
            mean.add(some, block.running_mean(momentum))
            var.add(some, block.running_var(momentum))
    if momentum is None:
        return Expectation(before, output.whole)
    state = State(before.weight, before.bias, before.running_mean, before.running_var, counter)
    return Expectation(state, output.whole, mean.whole, var.whole)


def _expect_backward(
    config: Config, now: State, step: Backward | DoubleBackward, context: Context, accuracy: Accuracy
) -> Expectation:
    """Expect what the forward alone decides, and a state that stays as it is."""
    shape = context.step.x.shape
    single = isinstance(step, Backward)
    whole = Joined(shape), Joined(shape[1:2] if single else shape), Joined(shape[1:2])
    for some, block in _blocks(config, context, accuracy):
        parts = block.gradients(step.dy[:, some]) if isinstance(step, Backward) else _second_order(block, step, some)
        for joined, part in zip(whole, parts, strict=True):
            joined.add(some, part)
    names = GRADIENTS if single else DOUBLE_GRADIENTS
    asked = [name in context.step.wrt for name in DIFFERENTIABLE] if single else [True, True, config.affine]
    gradients = {name: joined.whole if it else None for name, joined, it in zip(names, whole, asked, strict=True)}
    return Expectation(now, gradients=gradients)


def _second_order(block: Block, step: DoubleBackward, some: slice) -> tuple[Bounded, ...]:
    def column(cotangent: Array | None) -> Extended:
        return f.column(None if cotangent is None else cotangent[some], 0.0, some.stop - some.start, type(block.rows))

    return block.double_gradients(step.dy[:, some], step.input[:, some], column(step.weight), column(step.bias))


def _blocks(config: Config, context: Context, accuracy: Accuracy) -> Iterator[tuple[slice, Block]]:
    x = context.step.x
    model = Model(config.arithmetic, x.size // x.shape[1], accuracy)
    width = max(BLOCK // max(model.n, 1), 1)
    for start in range(0, x.shape[1], width):
        some = slice(start, min(start + width, x.shape[1]))
        yield some, Block.of(config, context.before, model, x, some, context.batch_statistics)
