"""A block of channels: its data and statistics, and the results of the layer with their bounds.

The formulas of the reference and the bounds meet here. Each method computes a result, bounds a
kernel's error in it, and marks the elements for which the bound is a theorem.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array, Bools, Floats, Format
from bn_spec.oracle import bounds
from bn_spec.oracle import gradient_bounds as gb
from bn_spec.oracle.bounded import Bounded, Demand
from bn_spec.oracle.bounds import Model, Moments
from bn_spec.oracle.reference import Double, Extended
from bn_spec.oracle.reference import formulas as f


class Weight(NamedTuple):
    """The weight of the new value in running statistics, and its origin.

    ``momentum`` is that of the config, None for a cumulative mean. ``batches`` is the number of
    batches tracked, the current one included.
    """

    value: Extended
    momentum: float | None
    batches: int


@dataclass(frozen=True, eq=False)
class Block:
    """Some channels of a batch, their parameters, and the statistics that normalise them.

    ``shape`` is that of the block, (N, C, H, W). ``rows`` has the shape (C, n), all other arrays
    have the shape (C, 1).
    """

    model: Model
    eps: float
    output_format: Format
    """Format to which the output is rounded."""
    shape: tuple[int, ...]
    rows: Extended
    weight: Extended
    bias: Extended
    old_mean: Extended
    """Running mean before the step."""
    old_var: Extended
    """Running variance before the step."""
    mean: Extended
    var: Extended
    moments: Moments
    """``mean`` and ``var`` in float64, with bounds on a kernel's errors in them."""
    largest: Floats
    """max|x|."""
    summable: Bools
    """No sum of values can overflow."""
    squarable: Bools
    """No sum of squares can overflow."""
    constant_statistics: bool
    """``mean`` and ``var`` are the running statistics stored in the layer."""

    @staticmethod
    def of(
        config: Config,
        before: State,
        model: Model,
        x: Array,
        channels: slice,
        batch_statistics: bool,
    ) -> Block:
        """Return the block of some channels of ``x`` (N, C, H, W).

        It is normalised by the batch statistics, or else by the running statistics of ``before``,
        the state of the layer before the step.
        """
        # float64 has more than twice the precision of every format but itself.
        number = Extended if model.dtype.accumulation.name == "float64" else Double
        part = x[:, channels]

        def column(tensor: Array | None, default: float) -> Extended:
            part_of_tensor = None if tensor is None else tensor[channels]
            return f.column(part_of_tensor, default, part.shape[1], number)

        rows = f.by_channel(part, number)
        values = rows.hi
        highest = values.max(axis=-1, keepdims=True, initial=-np.inf)
        lowest = values.min(axis=-1, keepdims=True, initial=np.inf)
        largest = np.maximum(highest, -lowest)
        old_mean, old_var = column(before.running_mean, 0.0), column(before.running_var, 1.0)
        if batch_statistics:
            mean = f.mean(rows)
            var = f.biased_variance(rows, mean)
            mean_abs = np.abs(values).mean(axis=-1, keepdims=True)
            exact = bounds.sums_exactly(model, values, mean.hi)
            moments = bounds.batch_moments(model, mean.hi, var.hi, mean_abs, exact)
            summable = bounds.sums_in_range(model, largest)
            squarable = bounds.squares_in_range(model, largest, highest - lowest, moments.dmean)
        else:
            mean, var = old_mean, old_var
            moments = bounds.stored_moments(model, mean.hi, var.hi)
            summable = squarable = np.isfinite(largest + mean.hi + var.hi) & (var.hi >= 0)
        return Block(
            model=model,
            eps=config.eps,
            output_format=model.accuracy.dialect.output(config),
            shape=part.shape,
            rows=rows,
            weight=column(before.weight, 1.0),
            bias=column(before.bias, 0.0),
            old_mean=old_mean,
            old_var=old_var,
            mean=mean,
            var=var,
            moments=moments,
            largest=largest,
            summable=summable,
            squarable=squarable,
            constant_statistics=not batch_statistics,
        )

    @cached_property
    def exact(self) -> f.Normalised:
        """The normalised data and the factors of their derivatives, without a kernel's errors."""
        s = f.inverse_std(self.var, self.eps)
        x_hat = f.normalise(self.rows, self.mean, s)
        return f.Normalised(self.weight, s, x_hat, self.constant_statistics)

    @property
    def x_hat(self) -> Extended:
        """The normalised data, shape (C, n)."""
        return self.exact.x_hat

    @cached_property
    def normalisable(self) -> Bools:
        """Whether the statistics and the normalised data are in the domain of the bounds."""
        variance_in_range = bounds.variance_in_range(self.model, self.moments, self.eps)
        return self.summable & self.squarable & variance_in_range

    @property
    def no_nan(self) -> Bools:
        """Whether the statistics must not be NaN; they may still overflow."""
        return self.summable & (self.squarable | self.model.accuracy.overflow_safe)

    def output(self) -> Bounded:
        """Return the normalised data after the affine map, in the shape of the block."""
        model, moments, eps = self.model, self.moments, self.eps
        weight, bias = self.weight, self.bias
        y = f.affine(self.x_hat, weight, bias)
        bound = bounds.output_bound(
            model,
            moments,
            eps,
            self.largest,
            self.x_hat.hi,
            weight.hi,
            bias.hi,
            output_format=self.output_format,
        )
        sizes = bounds.normalised_sizes(moments, eps, self.largest, weight.hi, bias.hi)
        in_domain = self.normalisable & bounds.in_range(model.elementwise, *sizes)
        # Whatever the statistics, s is at most 1 / sqrt(eps), as if the variance were zero.
        no_variance = bounds.stored_moments(model, moments.mean, np.zeros_like(moments.var))
        steepest = bounds.normalised_sizes(no_variance, eps, 2 * self.largest, weight.hi, bias.hi)
        number = (
            self.no_nan
            & bounds.eps_in_range(model, eps)
            & bounds.in_range(model.elementwise, *steepest)
        )
        finite = number & (sum(steepest[1:]) <= self.output_format.largest)
        demand = np.broadcast_to(_demand(number, finite).reshape(1, -1, 1, 1), self.shape)
        return self._by_sample(y, bound, in_domain, self.output_format, demand)

    @cached_property
    def bounded_forward(self) -> gb.BoundedForward:
        """The values that a backward uses, with bounds on a kernel's errors in them."""
        return gb.BoundedForward.of(
            self.model, self.moments, self.eps, self.x_hat.hi, self.constant_statistics
        )

    def direction(self, dy: Extended) -> gb.Direction:
        """Return dy (C, n) with its components along 1 and x̂, and bounds on their errors."""
        mean, correlation = f.mean(dy), f.mean(dy * self.x_hat)
        return gb.Direction.of(self.bounded_forward, dy.hi, mean.hi, correlation.hi)

    def gradients(self, dy: Array) -> tuple[Bounded, Bounded, Bounded]:
        """Return the gradients of Σ dy y with respect to input, weight and bias.

        ``dy`` has the shape of the block.
        """
        rows, formats = f.by_channel(dy, type(self.rows)), self.model.dtype
        direction = self.direction(rows)
        in_range = gb.gradient_in_range(direction, self.largest, self.weight.hi)
        inside = self.normalisable & in_range
        dx, dweight, dbias = f.gradients(self.exact, rows)
        dx_bound = gb.input_bound(direction, self.weight.hi)
        return (
            self._by_sample(dx, dx_bound, inside, formats.data),
            _by_channel(dweight, gb.weight_bound(direction), inside, formats.parameters),
            _by_channel(dbias, gb.bias_bound(direction), inside, formats.parameters),
        )

    def double_gradients(
        self, dy: Array, v: Array, of_weight: Extended, of_bias: Extended
    ) -> tuple[Bounded, Bounded, Bounded]:
        """Return the gradients of Σ v dx + Σ ẇ dweight + Σ ḃ dbias by dy, input and weight.

        ``dy`` and ``v`` have the shape of the block, ẇ ``of_weight`` and ḃ ``of_bias`` the shape
        (C, 1).
        """
        dy_rows, v_rows = (f.by_channel(a, type(self.rows)) for a in (dy, v))
        weight, formats = self.weight.hi, self.model.dtype
        along_dy, along_v = self.direction(dy_rows), self.direction(v_rows)
        product = f.mean(v_rows * dy_rows).hi
        inside = self.normalisable & gb.double_gradient_in_range(
            along_dy, along_v, self.largest, weight
        )
        inside = inside & gb.gradient_in_range(along_dy, self.largest, of_weight.hi)
        ddy, ddx, ddweight = f.double_gradients(self.exact, dy_rows, v_rows, of_weight, of_bias)
        ddy_bound = gb.double_dy_bound(along_v, weight, of_weight.hi, of_bias.hi)
        ddx_bound = gb.double_input_bound(along_dy, along_v, product, weight, of_weight.hi)
        ddweight_bound = gb.double_weight_bound(along_dy, along_v, product)
        return (
            self._by_sample(ddy, ddy_bound, inside, formats.data),
            self._by_sample(ddx, ddx_bound, inside, formats.data),
            _by_channel(ddweight, ddweight_bound, inside, formats.parameters),
        )

    def _by_sample(
        self,
        rows: Extended,
        bound: Floats,
        inside: Bools,
        format: Format,
        demand: Array | None = None,
    ) -> Bounded:
        """Return rows (C, n) in the shape of the block.

        The bound becomes infinite outside the domain, in place. ``format`` is that of the result,
        which must not overflow.
        """
        bound[~(inside & (np.abs(rows.hi) + bound <= format.largest))] = np.inf
        bound_by_sample = f.by_sample(Double(bound), self.shape).hi
        return Bounded(f.by_sample(rows, self.shape), bound_by_sample, demand)

    def running_mean(self, weight: Weight, off: Floats | None = None) -> Bounded:
        """Return the running mean after the batch, shape (C,).

        ``off`` (C, 1) bounds the distance of a kernel's running mean before the step from
        ``old_mean``; None stands for no distance.
        """
        error = self.moments.dmean
        return self._blended(
            self.old_mean, self.mean, error, weight, self.summable, self.summable, off
        )

    def running_var(self, weight: Weight, off: Floats | None = None) -> Bounded:
        """Return the running variance after the batch, shape (C,).

        ``off`` (C, 1) bounds the distance of a kernel's running variance before the step from
        ``old_var``; None stands for no distance.
        """
        model, n = self.model, self.model.n
        # An infinite variance times a momentum of 0, or times the complement of one that rounds to
        # 1, is NaN.
        moved = float(weight.value.hi) > model.statistics.u
        dialect = model.accuracy.dialect
        var = f.unbiased_variance(self.var, n) if dialect.running_var == "unbiased" else self.var
        error = self.moments.dvar * dialect.estimator(n)
        inside = self.summable & self.squarable
        number = self.no_nan & moved
        return self._blended(self.old_var, var, error, weight, inside, number, off)

    def moved(self, weight: Weight) -> Block:
        """Return the block normalised by the running statistics after the batch.

        The errors of these statistics are as large as their bounds.
        """
        mean, var = self.running_mean(weight), self.running_var(weight)
        moments = Moments(
            mean.value.hi[:, None], var.value.hi[:, None], mean.bound[:, None], var.bound[:, None]
        )
        squarable = self.squarable & np.isfinite(moments.dmean + moments.dvar)
        return replace(
            self,
            mean=mean.value[:, None],
            var=var.value[:, None],
            moments=moments,
            squarable=squarable,
        )

    def _blended(
        self,
        old: Extended,
        batch: Extended,
        error: Floats,
        weight: Weight,
        inside: Bools,
        number: Bools,
        off: Floats | None,
    ) -> Bounded:
        """Return a running statistic after the batch, shape (C,).

        ``error`` bounds the error of the batch's statistic. ``inside`` is the domain of the bound,
        as far as the batch decides it, and ``number`` the channels that must not be NaN.
        """
        model, size = self.model, np.abs(old.hi)
        new, m = f.blend(old, batch, weight.value), float(weight.value.hi)
        if off is None:
            besides = self._besides(weight, old.hi, batch.hi, new.hi)
            bound = bounds.running_bound(model, old.hi, batch.hi, error, m, new.hi, besides)
        else:
            # The bound is convex in the old value, and so largest at an end of its interval.
            carried = abs(1 - m) * off
            furthest = np.abs(new.hi) + carried
            at_ends = []
            for end in (old.hi - off, old.hi + off):
                besides = self._besides(weight, end, batch.hi, furthest)
                at_ends.append(
                    bounds.running_bound(model, end, batch.hi, error, m, furthest, besides)
                )
            bound = np.maximum(*at_ends) + bounds.OWN_ERROR * carried
            size = size + off
        in_range = bounds.in_range(model.statistics, size, np.abs(batch.hi) + error)
        in_range = in_range & (np.abs(new.hi) + bound <= model.dtype.parameters.largest)
        demand = _demand(number & bounds.in_range(model.dtype.accumulation, size))
        return Bounded(new[:, 0], np.where(inside & in_range, bound, np.inf)[:, 0], demand[:, 0])

    def _besides(self, weight: Weight, old: Floats, batch: Floats, new: Floats) -> Floats | float:
        """Return a bound on the error that the averages of a dialect add."""
        if weight.momentum is None or self.model.accuracy.dialect.averages != "debiased":
            return 0.0
        return bounds.debiasing_error(self.model, weight.momentum, weight.batches, old, batch, new)


def _by_channel(column: Extended, bound: Floats, inside: Bools, format: Format) -> Bounded:
    """Return a column (C, 1) in the shape (C,), with an infinite bound outside the domain.

    ``format`` is that of the result, which must not overflow.
    """
    inside = inside & (np.abs(column.hi) + bound <= format.largest)
    return Bounded(column[:, 0], np.where(inside, bound, np.inf)[:, 0])


def _demand(number: Bools, finite: Bools | bool = False) -> Array:
    """Return the ``Demand`` of each channel, as int8."""
    of_number = np.where(number, Demand.NUMBER, Demand.NOTHING)
    return np.where(finite, Demand.FINITE, of_number).astype(np.int8)
