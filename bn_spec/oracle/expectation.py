"""The expected answer to each step: that of the reference, with an error bound per element.

The expectation for a step starts from the state that the layer itself reported before the step.
Bounds therefore stay one step deep, and one fault gives one finding, not a cascade.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

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
    """An exception that a step must raise: its possible kinds, and the reason for it."""

    kinds: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Expectation:
    """The expected answer to a step, and the expected state of the layer after it."""

    state: State
    """Tensors after the step; the running statistics have bounds instead where those are set."""
    output: Bounded | None = None
    running_mean: Bounded | None = None
    running_var: Bounded | None = None
    results: Mapping[str, Bounded | None] = field(default_factory=dict)
    """Results by name; None for a result that the layer must not return.

    The names are :data:`bn_spec.case.steps.GRADIENTS`,
    :data:`bn_spec.case.steps.DOUBLE_GRADIENTS` or :data:`bn_spec.case.steps.FOLDED`.
    """
    checkpoint: State | None = None
    """Tensors that the layer must save, bit for bit."""
    tolerated: State | None = None
    """A state after the step that is as good as ``state``."""
    refusal: Refusal | None = None
    """The expected exception; if set, only it and an unchanged state are expected."""


@dataclass(frozen=True, eq=False)
class Context:
    """A forward with the config, state and mode from which it started.

    Its gradients depend on nothing else. ``config`` has eps and momentum as the layer stores them.
    """

    config: Config
    before: State
    training: bool
    step: Forward
    refused: bool = False
    """The layer must refuse the forward, which then has no gradients."""

    @property
    def batch_statistics(self) -> bool:
        """Whether the batch statistics normalise the input."""
        return self.training or self.before.running_mean is None


@dataclass(frozen=True, eq=False)
class Past:
    """The forwards and the checkpoints of a case so far, to which later steps refer by index."""

    forwards: list[Context] = field(default_factory=list)
    checkpoints: list[State] = field(default_factory=list)


OUTPUT, STATISTICS, RESULTS = "output", "running statistics", "results"
PARTS = (OUTPUT, STATISTICS, RESULTS)
"""Parts of an expectation that take time to compute."""

BLOCK = 2**16
"""Number of values in a block: as many whole channels as fit the cache, at least one."""


@dataclass(frozen=True, eq=False)
class Situation:
    """Everything that an expectation depends on, beside the step."""

    config: Config
    """Config of the layer, with eps and momentum as the layer stores them."""
    before: State
    """State of the layer before the step."""
    training: bool
    """Whether the layer is in training mode before the step."""
    accuracy: Accuracy
    """Claims of the kernel."""
    past: Past
    """Forwards and checkpoints so far."""
    parts: Collection[str]
    """The ``PARTS`` to compute."""


@np.errstate(all="ignore")  # infinities and NaN in the data are valid input
def expect(
    config: Config,
    before: State,
    training: bool,
    step: Step,
    accuracy: Accuracy,
    past: Past = Past(),
    parts: Collection[str] = PARTS,
) -> Expectation:
    """Return the expectation for a step.

    Args:
        config: the config of the layer, with eps and momentum as the layer stores them
            (:meth:`bn_spec.case.dialect.Dialect.as_stored`).
        before: the state of the layer before the step.
        training: whether the layer is in training mode before the step.
        step: the step.
        accuracy: the claims of the kernel about its arithmetic.
        past: the forwards and checkpoints to which the step may refer.
        parts: the ``PARTS`` to compute; the expectation leaves out the others.

    """
    situation = Situation(config, before, training, accuracy, past, parts)
    return EXPECTATIONS[type(step)](situation, step)


# Forwards


def _expect_forward(situation: Situation, step: Forward) -> Expectation:
    """Expect an output, and running statistics that move by one batch in training mode."""
    config, before, accuracy = situation.config, situation.before, situation.accuracy
    context = Context(config, before, situation.training, step)
    refusal = refusal_of(config, step.x, context.batch_statistics, accuracy.dialect)
    if refusal:
        return Expectation(before, refusal=refusal)
    if not step.x.size:
        return _expect_empty_output(context)
    state, weight = before, None
    if context.training and before.running_mean is not None:
        state = _counted(before)
        counter = state.num_batches_tracked
        batches = 1 if counter is None else counter.item()
        weight = update_weight(config, accuracy.dialect, batches)
    output, mean, var = _expect_values(context, accuracy, weight, situation.parts)
    return Expectation(state, output, mean, var)


def _expect_values(
    context: Context, accuracy: Accuracy, weight: Weight | None, parts: Collection[str]
) -> tuple[Bounded | None, Bounded | None, Bounded | None]:
    """Return the output and the running statistics after a forward, block by block.

    ``weight`` is that of the batch, None without running statistics to update.
    """
    if OUTPUT not in parts and STATISTICS not in parts:
        return None, None, None
    shape = context.step.x.shape
    output, mean, var = Joined(shape), Joined(shape[1:2]), Joined(shape[1:2])
    by_running_statistics = accuracy.dialect.training_output == "running"
    for channels, block in _blocks(context, accuracy):
        if OUTPUT in parts:
            normalised = block
            if weight is not None and by_running_statistics:
                normalised = block.moved(weight)
            output.add(channels, normalised.output())
        if STATISTICS in parts and weight is not None:
            mean.add(channels, block.running_mean(weight))
            var.add(channels, block.running_var(weight))
    return output.whole, mean.whole, var.whole


def _expect_empty_output(context: Context) -> Expectation:
    """Expect an output as empty as the input, and an unchanged state.

    A counter that counts the empty batch is tolerated, because PyTorch counts it.
    """
    before, nothing = context.before, np.zeros(context.step.x.shape)
    tolerated = _counted(before) if context.training else None
    return Expectation(before, Bounded(Extended(nothing), nothing), tolerated=tolerated)


def refusal_of(
    config: Config, x: Array, batch_statistics: bool, dialect: Dialect = PYTORCH
) -> Refusal | None:
    """Return the reason for which a BatchNorm2d must refuse ``x``, or None.

    The kinds of exception are those of torch.nn.BatchNorm2d: ValueError for the rank and for a
    single value per channel, RuntimeError (or ValueError) for the number of channels.
    """
    if x.ndim != 4:
        return Refusal(
            ("ValueError",), f"the input is {x.ndim}-dimensional, not 4-dimensional (N, C, H, W)"
        )
    has_tensors = config.affine or config.track_running_stats
    if has_tensors and x.shape[1] != config.num_features:
        return Refusal(
            ("ValueError", "RuntimeError"),
            f"the input has {x.shape[1]} channels, the layer {config.num_features}",
        )
    if batch_statistics and x.size == x.shape[1] and dialect.single_value == "refused":
        return Refusal(("ValueError",), "batch statistics need more than one value per channel")
    return None


def update_weight(config: Config, dialect: Dialect, batches: int) -> Weight:
    """Return the weight of the new value in running statistics.

    ``batches`` is the number of batches tracked, the new one included. The weight of a cumulative
    mean, 1 / batches, has the format in which the dialect stores attributes.
    """
    factor = f.update_factor(config.momentum, batches, dialect.averages)
    if config.momentum is None and dialect.attributes != PYTORCH.attributes:
        factor = Extended(dialect.weight(1 / batches))
    return Weight(factor, config.momentum, batches)


def _counted(state: State) -> State:
    """Return the state with one more batch in its counter, if it has a counter."""
    counter = state.num_batches_tracked
    if counter is None:
        return state
    return replace(state, num_batches_tracked=np.asarray(counter + 1))


# Gradients


def _expect_backward(situation: Situation, step: Backward) -> Expectation:
    """Expect the gradients of an earlier forward, and an unchanged state."""
    context = situation.past.forwards[step.of]
    shape = context.step.x.shape
    if (expectation := _without_gradients(situation, step.dy, shape)) is not None:
        return expectation

    def compute(block: Block, channels: slice) -> tuple[Bounded, ...]:
        return block.gradients(step.dy[:, channels])

    shapes = (shape, shape[1:2], shape[1:2])
    computed = _differentiated(context, situation.accuracy, shapes, compute)
    required = [name in context.step.wrt for name in DIFFERENTIABLE]
    return Expectation(situation.before, results=_named(GRADIENTS, computed, required))


def _expect_double_backward(situation: Situation, step: DoubleBackward) -> Expectation:
    """Expect the second derivatives of an earlier forward, and an unchanged state."""
    context = situation.past.forwards[step.of]
    shape = context.step.x.shape
    if (expectation := _without_gradients(situation, step.dy, shape)) is not None:
        return expectation

    def compute(block: Block, channels: slice) -> tuple[Bounded, ...]:
        number = type(block.rows)
        of_weight = _column_of(step.weight, channels, number)
        of_bias = _column_of(step.bias, channels, number)
        dy, v = step.dy[:, channels], step.input[:, channels]
        return block.double_gradients(dy, v, of_weight, of_bias)

    shapes = (shape, shape, shape[1:2])
    computed = _differentiated(context, situation.accuracy, shapes, compute)
    required = [True, True, context.config.affine]
    return Expectation(situation.before, results=_named(DOUBLE_GRADIENTS, computed, required))


def _without_gradients(
    situation: Situation, dy: Array, shape: tuple[int, ...]
) -> Expectation | None:
    """Return the expectation of a backward that has no gradients to compute, or None.

    ``dy`` may not have the shape of the output, or ``situation.parts`` may leave results out.
    """
    if dy.shape != shape:
        reason = f"dy has shape {dy.shape}, the output {shape}"
        refusal = Refusal(("RuntimeError", "ValueError"), reason)
        return Expectation(situation.before, refusal=refusal)
    if RESULTS not in situation.parts:
        return Expectation(situation.before)
    return None


def _column_of(cotangent: Array | None, channels: slice, number: type[Extended]) -> Extended:
    """Return some channels of a cotangent (C,) as a column; None stands for zeros."""
    part = None if cotangent is None else cotangent[channels]
    return f.column(part, 0.0, channels.stop - channels.start, number)


def _differentiated(
    context: Context,
    accuracy: Accuracy,
    shapes: tuple[tuple[int, ...], ...],
    compute: Callable[[Block, slice], tuple[Bounded, ...]],
) -> list[Bounded]:
    """Return gradients of these shapes; those of an empty batch are empty, or sums of nothing."""
    if not context.step.x.size:
        return [Bounded(Extended(np.zeros(shape)), np.zeros(shape)) for shape in shapes]
    return _side_by_side(context, accuracy, shapes, compute)


# Folding


def _expect_fold(situation: Situation, step: Fold) -> Expectation:
    """Expect a convolution that has the output of the original convolution and the layer.

    Its weight is weight · s · w. That is the gradient of the input for a dy of w, and has the same
    bound. Its bias is the output of the layer for the original bias. An adapter folds, not a
    kernel: in the dtype of the parameters, whatever the kernel claims.
    """
    config, now = situation.config, situation.before
    if RESULTS not in situation.parts:
        return Expectation(now)
    accuracy = replace(situation.accuracy, statistics="parameters", elementwise="parameters")
    weight = step.weight.swapaxes(0, 1)
    bias = np.zeros(config.num_features, weight.dtype) if step.bias is None else step.bias
    bias = bias.reshape(1, -1, 1, 1)
    of_weight = Context(config, now, training=False, step=Forward(weight))
    of_bias = Context(config, now, training=False, step=Forward(bias))
    (scaled,) = _side_by_side(
        of_weight,
        accuracy,
        (weight.shape,),
        lambda block, channels: block.gradients(weight[:, channels])[:1],
    )
    (shifted,) = _side_by_side(of_bias, accuracy, (bias.shape,), lambda block, _: (block.output(),))
    folded = [scaled.map(lambda a: a.swapaxes(0, 1)), shifted.map(np.ravel)]
    return Expectation(now, results=_named(FOLDED, folded, [True, True]))


# Steps that move tensors or change nothing


def _expect_no_change(situation: Situation, _: Step) -> Expectation:
    """Expect an unchanged state: of a step that changes the mode or an attribute."""
    return Expectation(situation.before)


def _expect_reset_of_parameters(situation: Situation, _: ResetParameters) -> Expectation:
    """Expect the state of a new layer."""
    return Expectation(initial_state(situation.config))


def _expect_reset_of_statistics(situation: Situation, _: ResetRunningStats) -> Expectation:
    """Expect the running statistics and the counter of a new layer."""
    before = situation.before
    fresh = initial_state(situation.config)
    return Expectation(replace(fresh, weight=before.weight, bias=before.bias))


def _expect_save(situation: Situation, _: Save) -> Expectation:
    """Expect a checkpoint of the state."""
    return Expectation(situation.before, checkpoint=situation.before)


def _expect_restore(situation: Situation, step: Restore) -> Expectation:
    """Expect the tensors of an earlier checkpoint, in the same layer or in a new one."""
    saved = situation.past.checkpoints[step.of].tensors()
    names = step.only or tuple(saved)
    restored = {name: tensor for name, tensor in saved.items() if name in names}
    start = initial_state(situation.config) if step.fresh else situation.before
    return Expectation(replace(start, **restored))


def _expect_load(situation: Situation, step: Load) -> Expectation:
    """Expect the loaded tensors in the dtypes of the layer, or a refusal."""
    before = situation.before
    refusal = refusal_to_load(before, step)
    if refusal:
        return Expectation(before, refusal=refusal)
    own, loaded = before.tensors(), step.tensors()
    changes = {name: a.astype(own[name].dtype) for name, a in loaded.items() if name in own}
    return Expectation(replace(before, **changes))


def refusal_to_load(state: State, step: Load) -> Refusal | None:
    """Return the reason for which a layer in ``state`` must refuse to load tensors, or None.

    The kind of exception is that of torch.nn.Module.load_state_dict, RuntimeError, or one of other
    frameworks: ValueError or KeyError.
    """
    kinds = ("RuntimeError", "ValueError", "KeyError")
    own, loaded = state.tensors(), step.tensors()
    unexpected = sorted(loaded.keys() - own.keys())
    missing = sorted(own.keys() - loaded.keys())
    if step.strict and unexpected:
        return Refusal(kinds, f"the layer has no {' and '.join(unexpected)}")
    if step.strict and missing:
        return Refusal(kinds, f"{' and '.join(missing)} is missing")
    for name, tensor in loaded.items():
        if name in own and tensor.shape != own[name].shape:
            return Refusal(kinds, f"{name} has shape {tensor.shape}, the layer's {own[name].shape}")
    return None


EXPECTATIONS: Mapping[type[Any], Callable[[Situation, Any], Expectation]] = MappingProxyType(
    {
        Train: _expect_no_change,
        Eval: _expect_no_change,
        Forward: _expect_forward,
        Backward: _expect_backward,
        DoubleBackward: _expect_double_backward,
        ResetRunningStats: _expect_reset_of_statistics,
        ResetParameters: _expect_reset_of_parameters,
        Save: _expect_save,
        Restore: _expect_restore,
        Load: _expect_load,
        Set: _expect_no_change,
        Fold: _expect_fold,
    }
)
"""The expectation of each class of steps: a function of the situation and the step."""


# Drift: many steps, without a look at the state between them


def drift(case: Case, initial: State, accuracy: Accuracy) -> Expectation:
    """Return the expected running statistics and counter after all steps of a case.

    They follow from the initial state alone, by the recurrence of the formula without rounding. The
    error e of a kernel before a step becomes |1 − m| e plus the error of the step, rounding to the
    buffers included. The error of the step is that for the worse end of the interval in which the
    kernel's statistic may lie by then.
    """
    config, training, batches = case.config, True, initial.num_batches_tracked
    means, variances = _exactly(initial.running_mean), _exactly(initial.running_var)
    for step in case.steps:
        config, training = config_after(config, step), training_after(step, training)
        if isinstance(step, ResetRunningStats | ResetParameters):
            fresh = initial_state(config)
            means, variances = _exactly(fresh.running_mean), _exactly(fresh.running_var)
            batches = fresh.num_batches_tracked
        if not isinstance(step, Forward) or not training or batches is None:
            continue
        batches = np.asarray(batches + 1)
        stored_config = accuracy.dialect.as_stored(config)
        weight = update_weight(stored_config, accuracy.dialect, batches.item())
        channels = (step.x.shape[1],)
        means, variances = _side_by_side(
            Context(stored_config, initial, training, step),
            accuracy,
            (channels, channels),
            partial(_moved_on, means, variances, weight),
        )
    state = replace(initial, num_batches_tracked=batches)
    return Expectation(state, running_mean=means, running_var=variances)


def _moved_on(
    means: Bounded, variances: Bounded, weight: Weight, block: Block, channels: slice
) -> tuple[Bounded, Bounded]:
    """Return the running statistics of a block after one more batch.

    ``means`` and ``variances`` are the running statistics of all channels before it.
    """
    number = type(block.rows)
    old_mean, off_mean = _column_before(means, channels, number)
    old_var, off_var = _column_before(variances, channels, number)
    moved = replace(block, old_mean=old_mean, old_var=old_var)
    return moved.running_mean(weight, off_mean), moved.running_var(weight, off_var)


def _column_before(
    statistic: Bounded, channels: slice, number: type[Extended]
) -> tuple[Extended, Array]:
    """Return some channels of a running statistic as a column, with the bounds of their errors."""
    high = statistic.value.hi[channels, None]
    off = statistic.bound[channels, None]
    if number is not Extended:
        return number(high), off
    low = np.broadcast_to(statistic.value.lo, statistic.value.hi.shape)
    return Extended(high, low[channels, None]), off


def _exactly(tensor: Array | None) -> Bounded:
    """Return a tensor with a bound of zero."""
    assert tensor is not None
    return Bounded(Extended(tensor.astype(np.float64)), np.zeros(tensor.shape))


# Blocks of channels


def _blocks(context: Context, accuracy: Accuracy) -> Iterator[tuple[slice, Block]]:
    """Yield the blocks of a forward's input, each with the slice of its channels."""
    config, x = context.config, context.step.x
    model = Model(config.arithmetic, x.size // x.shape[1], accuracy)
    width = max(BLOCK // max(model.n, 1), 1)
    for start in range(0, x.shape[1], width):
        channels = slice(start, min(start + width, x.shape[1]))
        block = Block.of(config, context.before, model, x, channels, context.batch_statistics)
        yield channels, block


def _side_by_side(
    context: Context,
    accuracy: Accuracy,
    shapes: tuple[tuple[int, ...], ...],
    compute: Callable[[Block, slice], tuple[Bounded, ...]],
) -> list[Bounded]:
    """Return the results of ``compute`` for each block, joined in arrays of these shapes."""
    whole = [Joined(shape) for shape in shapes]
    for channels, block in _blocks(context, accuracy):
        for joined, part in zip(whole, compute(block, channels), strict=True):
            joined.add(channels, part)
    return [joined.whole for joined in whole if joined.whole]


def _named(
    names: tuple[str, ...], computed: list[Bounded], required: list[bool]
) -> dict[str, Bounded | None]:
    """Return results by name, with None for those that are not required."""
    results: dict[str, Bounded | None] = {}
    for name, bounded, is_required in zip(names, computed, required, strict=True):
        results[name] = bounded if is_required else None
    return results
