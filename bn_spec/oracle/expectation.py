"""What the reference answers to a step, with an error bound per element.

The expectation for a step starts from the state that the layer itself reported before it, so that
bounds stay one step deep and one fault gives one finding, not a cascade.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dialect import PYTORCH, Dialect
from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    FOLDED,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Step,
    config_after,
    training_after,
)
from bn_spec.oracle.block import Block, Weight
from bn_spec.oracle.bounded import Bounded, Joined
from bn_spec.oracle.bounds import Accuracy, Model
from bn_spec.oracle.reference import Extended
from bn_spec.oracle.reference import formulas as f


@dataclass(frozen=True, eq=False)
class Refusal:
    """The step must raise one of these kinds of exception, because of ``reason``."""

    kinds: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a step must give: an output, results, and each tensor of the state within a bound or exactly.

    ``results`` has the names of :data:`GRADIENTS`, :data:`DOUBLE_GRADIENTS` or :data:`FOLDED`; None
    for one that must not be answered. ``checkpoint`` must be saved bit for bit. ``refusal``
    replaces all other fields but the state, which then must be the one before. ``tolerated`` is a
    state that is as good.
    """

    state: State
    output: Bounded | None = None
    running_mean: Bounded | None = None
    running_var: Bounded | None = None
    results: Mapping[str, Bounded | None] = field(default_factory=dict)
    checkpoint: State | None = None
    tolerated: State | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, eq=False)
class Context:
    """What a forward started from; its gradients depend on nothing else."""

    config: Config
    before: State
    training: bool
    step: Forward
    refused: bool = False
    """There was nothing to differentiate."""

    @property
    def batch_statistics(self) -> bool:
        """Whether the statistics of the batch normalise it."""
        return self.training or self.before.running_mean is None


@dataclass(frozen=True, eq=False)
class Past:
    """The forwards and the checkpoints of a case so far, which later steps refer to."""

    forwards: list[Context] = field(default_factory=list)
    checkpoints: list[State] = field(default_factory=list)


OUTPUT, STATISTICS, RESULTS = "output", "running statistics", "results"
PARTS = (OUTPUT, STATISTICS, RESULTS)
"""The parts of an expectation that take time."""


def refusal_of(
    config: Config, x: Array, batch_statistics: bool, dialect: Dialect = PYTORCH
) -> Refusal | None:
    """Return why a BatchNorm2d must refuse ``x``, or None.

    The kinds are those of torch.nn.BatchNorm2d: ValueError for the rank and for a single value per
    channel, RuntimeError (or ValueError) for the number of channels.
    """
    if x.ndim != 4:
        return Refusal(
            ("ValueError",), f"the input is {x.ndim}-dimensional, not 4-dimensional (N, C, H, W)"
        )
    holds_tensors = config.affine or config.track_running_stats
    if holds_tensors and x.shape[1] != config.num_features:
        return Refusal(
            ("ValueError", "RuntimeError"),
            f"the input has {x.shape[1]} channels, the layer {config.num_features}",
        )
    if batch_statistics and x.size == x.shape[1] and dialect.single_value == "refused":
        return Refusal(("ValueError",), "batch statistics need more than one value per channel")
    return None


def refusal_to_load(held: State, step: Load) -> Refusal | None:
    """Return why a layer must refuse to load the tensors of ``step``, or None.

    The kind is that of torch.nn.Module.load_state_dict, RuntimeError; other frameworks say
    ValueError or KeyError.
    """
    kinds = ("RuntimeError", "ValueError", "KeyError")
    own, given = held.tensors(), step.tensors()
    if step.strict and (unexpected := sorted(given.keys() - own.keys())):
        return Refusal(kinds, f"the layer has no {' and '.join(unexpected)}")
    if step.strict and (missing := sorted(own.keys() - given.keys())):
        return Refusal(kinds, f"{' and '.join(missing)} is missing")
    for name, tensor in given.items():
        if name in own and tensor.shape != own[name].shape:
            return Refusal(kinds, f"{name} has shape {tensor.shape}, the layer's {own[name].shape}")
    return None


@np.errstate(all="ignore")  # infinities and NaN in the data are answered, not announced
def expect(
    config: Config,
    before: State,
    training: bool,
    step: Step,
    accuracy: Accuracy,
    past: Past = Past(),
    parts: Collection[str] = PARTS,
) -> Expectation:
    """Return the expectation of ``step`` for a layer in state ``before``, whose kernel claims ``accuracy``.

    ``config`` is what the layer has, its eps and momentum as they are held
    (:meth:`bn_spec.case.dialect.Dialect.as_stored`). ``past`` holds the forwards and checkpoints to
    which the step may refer; ``parts`` are those of :data:`PARTS` that are asked for, others are
    left out.
    """
    if isinstance(step, Forward):
        return _expect_forward(Context(config, before, training, step), accuracy, parts)
    if isinstance(step, Backward | DoubleBackward):
        return _expect_backward(before, step, past.forwards[step.of], accuracy, parts)
    if isinstance(step, Fold):
        return _expect_fold(config, before, step, accuracy, parts)
    if isinstance(step, Save):
        return Expectation(before, checkpoint=before)
    if isinstance(step, Load) and (refusal := refusal_to_load(before, step)):
        return Expectation(before, refusal=refusal)
    return Expectation(_moved(config, before, step, past))


def _moved(config: Config, before: State, step: Step, past: Past) -> State:
    """Return the state after a step that moves tensors and computes nothing."""
    fresh, held = initial_state(config), before.tensors()
    if isinstance(step, ResetParameters):
        return fresh
    if isinstance(step, ResetRunningStats):
        return State(before.weight, before.bias, *(a for _, a in fresh.items()[2:]))
    if isinstance(step, Restore):
        saved = past.checkpoints[step.of].tensors()
        changes = {name: a for name, a in saved.items() if name in (step.only or saved)}
        return replace(fresh if step.fresh else before, **changes)
    if isinstance(step, Load):
        loaded = {
            name: a.astype(held[name].dtype) for name, a in step.tensors().items() if name in held
        }
        return replace(before, **loaded)
    return before


def drift(case: Case, initial: State, accuracy: Accuracy) -> Expectation:
    """Expect the running statistics and the counter after all steps of a case, from its initial state alone.

    The recurrence is that of the formula, without rounding; a kernel's error e becomes |1 − m| e +
    the error of one step, rounding to the buffers included, at the worse end of where what it holds
    may be by then.
    """
    config, training, batches = case.config, True, initial.num_batches_tracked
    means, variances = (
        _exactly(getattr(initial, name)) for name in ("running_mean", "running_var")
    )
    for step in case.steps:
        config, training = config_after(config, step), training_after(step, training)
        if isinstance(step, ResetRunningStats | ResetParameters):
            fresh = initial_state(config)
            means, variances = _exactly(fresh.running_mean), _exactly(fresh.running_var)
            batches = fresh.num_batches_tracked
        if not isinstance(step, Forward) or not training or batches is None:
            continue
        batches = np.asarray(batches + 1)
        held = accuracy.dialect.as_stored(config)
        weight = update_weight(held, accuracy.dialect, batches.item())
        context = Context(held, initial, training, step)
        channels = (step.x.shape[1],)
        means, variances = _side_by_side(
            context,
            accuracy,
            (channels, channels),
            partial(_moved_on, means, variances, weight),
        )
    state = replace(initial, num_batches_tracked=batches)
    return Expectation(state, running_mean=means, running_var=variances)


def _moved_on(
    means: Bounded, variances: Bounded, weight: Weight, block: Block, some: slice
) -> tuple[Bounded, Bounded]:
    """Return running statistics after one more batch, from what they are by now."""
    held = [
        Extended(r.value.hi[some, None], _lows(r.value)[some, None]) for r in (means, variances)
    ]
    number = type(block.rows)
    old_mean, old_var = (number(r.hi) if number is not Extended else r for r in held)
    moved = replace(block, old_mean=old_mean, old_var=old_var)
    off_mean, off_var = (r.bound[some, None] for r in (means, variances))
    return moved.running_mean(weight, off_mean), moved.running_var(weight, off_var)


def _lows(value: Extended) -> Array:
    return np.broadcast_to(value.lo, value.hi.shape)


def _exactly(tensor: Array | None) -> Bounded:
    assert tensor is not None
    return Bounded(Extended(tensor.astype(np.float64)), np.zeros(tensor.shape))


BLOCK = 2**16
"""Values that are looked at together: whole channels, as many as stay in the cache, or one."""


def _expect_forward(context: Context, accuracy: Accuracy, parts: Collection[str]) -> Expectation:
    config, before, x = context.config, context.before, context.step.x
    if refusal := refusal_of(config, x, context.batch_statistics, accuracy.dialect):
        return Expectation(before, refusal=refusal)
    if not x.size:
        return _expect_nothing(context)
    tracking = context.training and before.running_mean is not None
    state = _counted(before) if tracking else before
    batches = state.num_batches_tracked
    counted = 1 if batches is None else batches.item()
    weight = update_weight(config, accuracy.dialect, counted) if tracking else None
    channels = x.shape[1]
    output, mean, var = Joined(x.shape), Joined((channels,)), Joined((channels,))
    moving = weight if accuracy.dialect.training_output == "running" else None
    for some, block in (
        _blocks(context, accuracy) if {OUTPUT, STATISTICS}.intersection(parts) else ()
    ):
        if OUTPUT in parts:
            output.add(some, (block.moved(moving) if moving else block).output())
        if STATISTICS in parts and weight is not None:
            mean.add(some, block.running_mean(weight))
            var.add(some, block.running_var(weight))
    return Expectation(state, output.whole, mean.whole, var.whole)


def update_weight(config: Config, dialect: Dialect, batches: int) -> Weight:
    """Return the weight of the new value; that of a cumulative mean may be held in a format of its own."""
    factor = f.update_factor(config.momentum, batches, dialect.averages)
    if config.momentum is None and dialect.attributes != PYTORCH.attributes:
        factor = Extended(dialect.weight(1 / batches))
    return Weight(factor, config.momentum, batches)


def _expect_nothing(context: Context) -> Expectation:
    """Expect an output as empty as the input, and a state that stays; PyTorch counts the batch all the same."""
    before, nothing = context.before, np.zeros(context.step.x.shape)
    return Expectation(
        before,
        Bounded(Extended(nothing), nothing),
        tolerated=_counted(before) if context.training else None,
    )


def _counted(state: State) -> State:
    """Return the state with one batch more in its counter, if it has one."""
    counter = state.num_batches_tracked
    return state if counter is None else replace(state, num_batches_tracked=np.asarray(counter + 1))


def _expect_backward(
    now: State,
    step: Backward | DoubleBackward,
    context: Context,
    accuracy: Accuracy,
    parts: Collection[str],
) -> Expectation:
    """Expect what the forward alone decides, and a state that stays as it is."""
    shape = context.step.x.shape
    if step.dy.shape != shape:
        reason = f"dy has shape {step.dy.shape}, the output {shape}"
        return Expectation(now, refusal=Refusal(("RuntimeError", "ValueError"), reason))
    if RESULTS not in parts:
        return Expectation(now)
    if isinstance(step, Backward):
        asked = [name in context.step.wrt for name in DIFFERENTIABLE]
        given = _differentiated(
            context,
            accuracy,
            (shape, shape[1:2], shape[1:2]),
            lambda block, some: block.gradients(step.dy[:, some]),
        )
        return Expectation(now, results=_named(GRADIENTS, given, asked))
    given = _differentiated(
        context,
        accuracy,
        (shape, shape, shape[1:2]),
        lambda block, some: _second_order(block, step, some),
    )
    return Expectation(
        now, results=_named(DOUBLE_GRADIENTS, given, [True, True, context.config.affine])
    )


def _expect_fold(
    config: Config, now: State, step: Fold, accuracy: Accuracy, parts: Collection[str]
) -> Expectation:
    """Expect weight · s · w and the layer's output for the bias: a convolution that gives what both gave.

    The first is what the gradient of the input is for a dy of w, and has the same bound. No kernel
    folds: it is done in the dtype of the parameters, whatever the kernels claim.
    """
    if RESULTS not in parts:
        return Expectation(now)
    accuracy = replace(accuracy, statistics="parameters", elementwise="parameters")
    weight = step.weight.swapaxes(0, 1)
    bias = (
        np.zeros(config.num_features, weight.dtype) if step.bias is None else step.bias
    ).reshape(1, -1, 1, 1)
    of_weight, of_bias = (
        Context(config, now, training=False, step=Forward(a)) for a in (weight, bias)
    )
    (scaled,) = _side_by_side(
        of_weight,
        accuracy,
        (weight.shape,),
        lambda block, some: block.gradients(weight[:, some])[:1],
    )
    (shifted,) = _side_by_side(of_bias, accuracy, (bias.shape,), lambda block, _: (block.output(),))
    given = [scaled.map(lambda a: a.swapaxes(0, 1)), shifted.map(np.ravel)]
    return Expectation(now, results=_named(FOLDED, given, [True, True]))


def _differentiated(
    context: Context,
    accuracy: Accuracy,
    shapes: tuple[tuple[int, ...], ...],
    compute: Callable[[Block, slice], tuple[Bounded, ...]],
) -> list[Bounded]:
    """Return gradients, which for an empty batch are empty, or sums of nothing."""
    if not context.step.x.size:
        return [Bounded(Extended(np.zeros(shape)), np.zeros(shape)) for shape in shapes]
    return _side_by_side(context, accuracy, shapes, compute)


def _side_by_side(
    context: Context,
    accuracy: Accuracy,
    shapes: tuple[tuple[int, ...], ...],
    compute: Callable[[Block, slice], tuple[Bounded, ...]],
) -> list[Bounded]:
    """Return what is computed of each block of channels, joined in arrays of these shapes."""
    whole = [Joined(shape) for shape in shapes]
    for some, block in _blocks(context, accuracy):
        for joined, part in zip(whole, compute(block, some), strict=True):
            joined.add(some, part)
    return [joined.whole for joined in whole if joined.whole]


def _named(
    names: tuple[str, ...], given: list[Bounded], asked: list[bool]
) -> dict[str, Bounded | None]:
    return {
        name: bounded if it else None for name, bounded, it in zip(names, given, asked, strict=True)
    }


def _second_order(block: Block, step: DoubleBackward, some: slice) -> tuple[Bounded, ...]:
    def column(cotangent: Array | None) -> Extended:
        return f.column(
            None if cotangent is None else cotangent[some],
            0.0,
            some.stop - some.start,
            type(block.rows),
        )

    return block.double_gradients(
        step.dy[:, some], step.input[:, some], column(step.weight), column(step.bias)
    )


def _blocks(context: Context, accuracy: Accuracy) -> Iterator[tuple[slice, Block]]:
    config, x = context.config, context.step.x
    model = Model(config.arithmetic, x.size // x.shape[1], accuracy)
    width = max(BLOCK // max(model.n, 1), 1)
    for start in range(0, x.shape[1], width):
        some = slice(start, min(start + width, x.shape[1]))
        yield some, Block.of(config, context.before, model, x, some, context.batch_statistics)
