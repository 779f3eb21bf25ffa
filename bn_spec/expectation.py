"""What the reference answers to a step, with an error bound per element.

The expectation for a step starts from the state that the layer itself reported before it, so that bounds stay
one step deep and one fault gives one finding, not a cascade.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from . import bounds
from .bounds import Accuracy, Model, Moments
from .case import Forward, ResetParameters, ResetRunningStats, Step
from .config import Config, State, initial_state
from .dtypes import Array, Bools, Floats
from .reference import Double, Extended
from .reference import formulas as f


class Demand(IntEnum):
    """What is asked of an element as a number, outside the domain of the bounds too."""

    NOTHING = 0
    NUMBER = 1
    """It is not NaN."""
    FINITE = 2


@dataclass(frozen=True, eq=False)
class Bounded:
    """A reference value and a bound on any correct kernel's distance from it, element by element.

    An infinite bound marks elements outside the domain of the theorem. Of those, ``demand`` (of the shape of the
    bound; nothing by default) says what is asked all the same.
    """

    value: Extended
    bound: Floats
    demand: Array | None = None

    @cached_property
    def inside(self) -> Bools:
        """Where the bound is a theorem."""
        return np.isfinite(self.bound)

    @property
    def asked(self) -> Array:
        """The demand on every element."""
        return np.full(self.bound.shape, Demand.NOTHING, np.int8) if self.demand is None else self.demand

    @cached_property
    def demanded(self) -> Array:
        """What is asked of each element as a number; a finite bound leaves room for finite ones alone."""
        return np.where(self.inside, Demand.FINITE, self.asked)

    def map(self, view: Callable[[Array], Array]) -> Bounded:
        """Return the same values and bounds in another shape."""
        low = np.broadcast_to(self.value.lo, self.bound.shape)
        return Bounded(Extended(view(self.value.hi), view(low)), view(self.bound))

    @np.errstate(all="ignore")
    def signed_share(self, got: Array) -> Floats:
        """Return the signed err / bound: positive where too large, 0 outside the domain."""
        error = (got.astype(np.float64) - self.value.hi) - self.value.lo
        share = np.where(np.isnan(error), np.inf, error) / self.bound
        return np.where(self.inside, share, 0.0)

    def share(self, got: Array) -> Floats:
        """Return err / bound: the share of the error budget used, 0 outside the domain."""
        return np.abs(self.signed_share(got))

    def unmet(self, got: Array) -> Bools:
        """Where ``got`` is not the number that it is asked to be."""
        unmet: Bools = np.where(
            self.demanded == Demand.FINITE, ~np.isfinite(got), np.isnan(got) & (self.demanded == Demand.NUMBER)
        )
        return unmet


@dataclass(frozen=True, eq=False)
class Refusal:
    """The step must raise one of these kinds of exception, because of ``reason``."""

    kinds: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a step must give: an output, and each tensor of the state within a bound or exactly.

    ``refusal`` replaces all other fields but the state, which then must be the one before.
    """

    state: State
    output: Bounded | None = None
    running_mean: Bounded | None = None
    running_var: Bounded | None = None
    refusal: Refusal | None = None


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
def expect(config: Config, before: State, training: bool, step: Step, accuracy: Accuracy) -> Expectation:
    """Return the expectation of ``step`` for a layer in state ``before``, whose kernel claims ``accuracy``."""
    if isinstance(step, Forward):
        return _expect_forward(config, before, training, step.x, accuracy)
    fresh = initial_state(config)
    if isinstance(step, ResetParameters):
        return Expectation(fresh)
    if isinstance(step, ResetRunningStats):
        return Expectation(State(before.weight, before.bias, *(a for _, a in fresh.items()[2:])))
    return Expectation(before)


BLOCK = 2**16
"""Values that are looked at together: whole channels, as many as stay in the cache, or one."""


def _expect_forward(config: Config, before: State, training: bool, x: Array, accuracy: Accuracy) -> Expectation:
    batch_statistics = training or before.running_mean is None
    if refusal := refusal_of(config, x, batch_statistics):
        return Expectation(before, refusal=refusal)
    tracked = before.num_batches_tracked if training else None
    counter = None if tracked is None else np.asarray(tracked + 1)
    tracking = training and before.running_mean is not None
    momentum = f.update_factor(config.momentum, 1 if counter is None else counter.item()) if tracking else None
    channels = x.shape[1]
    model = Model(config.arithmetic, x.size // channels, accuracy)
    width = max(BLOCK // max(model.n, 1), 1)
    output, mean, var = _Joined(x.shape), _Joined((channels,)), _Joined((channels,))
    for start in range(0, channels, width):
        some = slice(start, min(start + width, channels))
        block = _Block.of(config, before, model, x, some, batch_statistics)
        output.add(some, block.output())
        if momentum is not None:
            mean.add(some, block.running_mean(momentum))
            var.add(some, block.running_var(momentum))
    if momentum is None:
        return Expectation(before, output.whole)
    state = State(before.weight, before.bias, before.running_mean, before.running_var, counter)
    return Expectation(state, output.whole, mean.whole, var.whole)


class _Joined:
    """Blocks of channels put side by side, one after the other, so that only one of them takes memory at a time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.whole: Bounded

    def add(self, channels: slice, part: Bounded) -> None:
        if part.bound.shape == self.shape:
            self.whole = part
            return
        if not channels.start:
            self.whole = self._empty(type(part.value))
        whole, place = self.whole, (slice(None), channels) if len(self.shape) > 1 else (channels,)
        whole.value.hi[place], whole.bound[place], whole.asked[place] = part.value.hi, part.bound, part.asked
        if whole.value.lo.ndim:
            whole.value.lo[place] = part.value.lo

    def _empty(self, number: type[Extended]) -> Bounded:
        value = number(np.empty(self.shape))
        return Bounded(value, np.empty(self.shape), np.empty(self.shape, np.int8))


@dataclass(frozen=True, eq=False)
class _Block:
    """Some channels: their data and parameters, the statistics that normalise them, and where these are in range."""

    model: Model
    eps: float
    shape: tuple[int, ...]
    rows: Extended
    weight: Extended
    bias: Extended
    old_mean: Extended
    old_var: Extended
    mean: Extended
    var: Extended
    moments: Moments
    largest: Floats
    summable: Bools
    squarable: Bools

    @staticmethod
    def of(config: Config, before: State, model: Model, x: Array, channels: slice, batch_statistics: bool) -> _Block:
        """Take the statistics of the batch, or those that the layer holds."""
        # Double-double where the kernel works in float64; float64 has twice the precision of everything else.
        number = Extended if model.dtype.accumulation.name == "float64" else Double
        part = x[:, channels]

        def column(tensor: Array | None, default: float) -> Extended:
            return f.column(None if tensor is None else tensor[channels], default, part.shape[1], number)

        rows = f.by_channel(part, number)
        values = rows.hi
        highest = values.max(axis=-1, keepdims=True, initial=-np.inf)
        lowest = values.min(axis=-1, keepdims=True, initial=np.inf)
        largest = np.maximum(highest, -lowest)
        mean, var = column(before.running_mean, 0.0), column(before.running_var, 1.0)
        held = column(before.weight, 1.0), column(before.bias, 0.0), mean, var
        if batch_statistics:
            mean = f.mean(rows)
            var = f.biased_variance(rows, mean)
            mean_abs = np.abs(values).mean(axis=-1, keepdims=True)
            exact = bounds.sums_exactly(model, values, mean.hi)
            moments = bounds.batch_moments(model, mean.hi, var.hi, mean_abs, exact)
            summable = bounds.sums_in_range(model, largest)
            squarable = bounds.squares_in_range(model, largest, highest - lowest, moments.dmean)
        else:
            moments = bounds.given_moments(model, mean.hi, var.hi)
            summable = squarable = np.isfinite(largest + mean.hi + var.hi) & (var.hi >= 0)
        return _Block(model, config.eps, part.shape, rows, *held, mean, var, moments, largest, summable, squarable)

    @property
    def no_nan(self) -> Bools:
        """Where the statistics of finite data may overflow, but must not be NaN."""
        return self.summable & (self.squarable | self.model.accuracy.overflow_safe)

    def output(self) -> Bounded:
        """Return the normalised data."""
        model, moments, eps, weight, bias = self.model, self.moments, self.eps, self.weight, self.bias
        x_hat = f.normalise(self.rows, self.mean, self.var, eps)
        y = f.affine(x_hat, weight, bias)
        bound = bounds.output_bound(model, moments, eps, self.largest, x_hat.hi, weight.hi, bias.hi)
        sizes = bounds.normalised_sizes(moments, eps, self.largest, weight.hi, bias.hi)
        in_domain = (
            self.summable
            & self.squarable
            & bounds.variance_in_range(model, moments, eps)
            & bounds.in_range(model.elementwise, *sizes)
        )
        inside = in_domain & (np.abs(y.hi) + bound <= model.dtype.data.largest)
        # Whatever the statistics, s is at most 1 / sqrt(eps): as if the variance were zero.
        constant = bounds.given_moments(model, moments.mean, np.zeros_like(moments.var))
        steepest = bounds.normalised_sizes(constant, eps, 2 * self.largest, weight.hi, bias.hi)
        number = self.no_nan & bounds.eps_in_range(model, eps) & bounds.in_range(model.elementwise, *steepest)
        finite = number & (sum(steepest[1:]) <= model.dtype.data.largest)
        demand = np.broadcast_to(_demand(number, finite).reshape(1, -1, 1, 1), self.shape)
        bound[~inside] = np.inf
        return Bounded(f.by_sample(y, self.shape), f.by_sample(Double(bound), self.shape).hi, demand)

    def running_mean(self, momentum: Extended) -> Bounded:
        """Return the updated running mean."""
        return self._blended(self.old_mean, self.mean, self.moments.dmean, momentum, self.summable, self.summable)

    def running_var(self, momentum: Extended) -> Bounded:
        """Return the updated running variance."""
        n = self.model.n
        # An infinite variance times a momentum of 0, or times the complement of one that rounds to 1, is NaN.
        moved = float(momentum.hi) > self.model.statistics.u
        unbiased, error = f.unbiased_variance(self.var, n), self.moments.dvar * (n / (n - 1))
        inside = self.summable & self.squarable
        return self._blended(self.old_var, unbiased, error, momentum, inside, self.no_nan & moved)

    def _blended(
        self, old: Extended, batch: Extended, error: Floats, momentum: Extended, inside: Bools, number: Bools
    ) -> Bounded:
        model, size = self.model, np.abs(old.hi)
        new = f.blend(old, batch, momentum)
        bound = bounds.running_bound(model, old.hi, batch.hi, error, float(momentum.hi), new.hi)
        small = bounds.in_range(model.statistics, size, np.abs(batch.hi) + error)
        held = small & (np.abs(new.hi) + bound <= model.dtype.parameters.largest)
        demand = _demand(number & bounds.in_range(model.dtype.accumulation, size))
        return Bounded(new[:, 0], np.where(inside & held, bound, np.inf)[:, 0], demand[:, 0])


def _demand(number: Bools, finite: Bools | bool = False) -> Array:
    return np.where(finite, Demand.FINITE, np.where(number, Demand.NUMBER, Demand.NOTHING)).astype(np.int8)
