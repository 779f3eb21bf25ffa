"""A block of channels: its data, the statistics that normalise it, and what is expected of a kernel there.

This is where the formulas of the reference and the bounds meet: each method computes a result,
bounds a kernel's error in it, and says where the bound is a theorem.
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
    """The weight of the new value in running statistics; with momentum, and the number of batches with this one."""

    value: Extended
    momentum: float | None
    batches: int


@dataclass(frozen=True, eq=False)
class Block:
    """Some channels: their data and parameters, the statistics that normalise them, and where these are in range.

    Their output is rounded to the format ``held``.
    """

    model: Model
    eps: float
    held: Format
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
    given: bool

    @staticmethod
    def of(
        config: Config,
        before: State,
        model: Model,
        x: Array,
        channels: slice,
        batch_statistics: bool,
    ) -> Block:
        """Take the statistics of the batch, or those that the layer holds."""
        # Double-double where the kernel works in float64; float64 has twice the precision of
        # everything else.
        number = Extended if model.dtype.accumulation.name == "float64" else Double
        part = x[:, channels]

        def column(tensor: Array | None, default: float) -> Extended:
            return f.column(
                None if tensor is None else tensor[channels], default, part.shape[1], number
            )

        rows = f.by_channel(part, number)
        values = rows.hi
        highest = values.max(axis=-1, keepdims=True, initial=-np.inf)
        lowest = values.min(axis=-1, keepdims=True, initial=np.inf)
        largest = np.maximum(highest, -lowest)
        mean, var = column(before.running_mean, 0.0), column(before.running_var, 1.0)
        tensors = column(before.weight, 1.0), column(before.bias, 0.0), mean, var
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
        domain = largest, summable, squarable, not batch_statistics
        held = model.accuracy.dialect.output(config)
        return Block(
            model, config.eps, held, part.shape, rows, *tensors, mean, var, moments, *domain
        )

    @cached_property
    def exact(self) -> f.Normalised:
        """What derivatives take of the forward, without a kernel's errors."""
        s = f.inverse_std(self.var, self.eps)
        return f.Normalised(self.weight, s, f.normalise(self.rows, self.mean, s), self.given)

    @property
    def x_hat(self) -> Extended:
        """The normalised data."""
        return self.exact.x_hat

    @cached_property
    def normalisable(self) -> Bools:
        """Where the statistics and what they normalise are in the domain of the bounds."""
        return (
            self.summable
            & self.squarable
            & bounds.variance_in_range(self.model, self.moments, self.eps)
        )

    @property
    def no_nan(self) -> Bools:
        """Where the statistics of finite data may overflow, but must not be NaN."""
        return self.summable & (self.squarable | self.model.accuracy.overflow_safe)

    def output(self) -> Bounded:
        """Return the normalised data."""
        model, moments, eps, weight, bias = (
            self.model,
            self.moments,
            self.eps,
            self.weight,
            self.bias,
        )
        y = f.affine(self.x_hat, weight, bias)
        bound = bounds.output_bound(
            model, moments, eps, self.largest, self.x_hat.hi, weight.hi, bias.hi, held=self.held
        )
        sizes = bounds.normalised_sizes(moments, eps, self.largest, weight.hi, bias.hi)
        in_domain = self.normalisable & bounds.in_range(model.elementwise, *sizes)
        # Whatever the statistics, s is at most 1 / sqrt(eps): as if the variance were zero.
        constant = bounds.given_moments(model, moments.mean, np.zeros_like(moments.var))
        steepest = bounds.normalised_sizes(constant, eps, 2 * self.largest, weight.hi, bias.hi)
        number = (
            self.no_nan
            & bounds.eps_in_range(model, eps)
            & bounds.in_range(model.elementwise, *steepest)
        )
        finite = number & (sum(steepest[1:]) <= self.held.largest)
        demand = np.broadcast_to(_demand(number, finite).reshape(1, -1, 1, 1), self.shape)
        return self._by_sample(y, bound, in_domain, demand, self.held)

    @cached_property
    def normalised(self) -> gb.Normalised:
        """What a backward pass has of this forward."""
        return gb.Normalised.of(self.model, self.moments, self.eps, self.x_hat.hi, self.given)

    def direction(self, dy: Extended) -> gb.Direction:
        """Bound what a kernel has of the components of dy."""
        return gb.Direction.of(self.normalised, dy.hi, f.mean(dy).hi, f.mean(dy * self.x_hat).hi)

    def gradients(self, dy: Array) -> tuple[Bounded, Bounded, Bounded]:
        """Return the gradients with respect to input, weight and bias; ``dy`` has the shape of the block."""
        rows, row = f.by_channel(dy, type(self.rows)), self.model.dtype
        known = self.direction(rows)
        inside = self.normalisable & gb.gradient_in_range(known, self.largest, self.weight.hi)
        dx, dweight, dbias = f.gradients(self.exact, rows)
        return (
            self._by_sample(dx, gb.input_bound(known, self.weight.hi), inside),
            _by_channel(dweight, gb.weight_bound(known), inside, row.parameters),
            _by_channel(dbias, gb.bias_bound(known), inside, row.parameters),
        )

    def double_gradients(
        self, dy: Array, v: Array, of_weight: Extended, of_bias: Extended
    ) -> tuple[Bounded, Bounded, Bounded]:
        """Return the gradients of Σ v dx + Σ ẇ dweight + Σ ḃ dbias with respect to dy, input and weight."""
        g, v_rows = (f.by_channel(a, type(self.rows)) for a in (dy, v))
        weight = self.weight
        dy_known, v_known = self.direction(g), self.direction(v_rows)
        product = f.mean(v_rows * g).hi
        inside = self.normalisable & gb.double_gradient_in_range(
            dy_known, v_known, self.largest, weight.hi
        )
        inside = inside & gb.gradient_in_range(dy_known, self.largest, of_weight.hi)
        ddy, dx, dweight = f.double_gradients(self.exact, g, v_rows, of_weight, of_bias)
        dy_bound = gb.double_dy_bound(v_known, weight.hi, of_weight.hi, of_bias.hi)
        dx_bound = gb.double_input_bound(dy_known, v_known, product, weight.hi, of_weight.hi)
        dw_bound = gb.double_weight_bound(dy_known, v_known, product)
        return (
            self._by_sample(ddy, dy_bound, inside),
            self._by_sample(dx, dx_bound, inside),
            _by_channel(dweight, dw_bound, inside, self.model.dtype.parameters),
        )

    def _by_sample(
        self,
        rows: Extended,
        bound: Floats,
        inside: Bools,
        demand: Array | None = None,
        held: Format | None = None,
    ) -> Bounded:
        """Lay rows out in the shape of the block, with an infinite bound outside the domain of the theorem."""
        bound[~(inside & (np.abs(rows.hi) + bound <= (held or self.model.dtype.data).largest))] = (
            np.inf
        )
        return Bounded(
            f.by_sample(rows, self.shape), f.by_sample(Double(bound), self.shape).hi, demand
        )

    def running_mean(self, weight: Weight, off: Floats | None = None) -> Bounded:
        """Return the updated running mean; what a kernel held may have been ``off`` by so much, shape (C, 1)."""
        domain = self.summable, self.summable
        return self._blended(self.old_mean, self.mean, self.moments.dmean, weight, *domain, off)

    def running_var(self, weight: Weight, off: Floats | None = None) -> Bounded:
        """Return the updated running variance; what a kernel held may have been ``off`` by so much."""
        model, n = self.model, self.model.n
        # An infinite variance times a momentum of 0, or times the complement of one that rounds to
        # 1, is NaN.
        moved = float(weight.value.hi) > model.statistics.u
        dialect = model.accuracy.dialect
        var = f.unbiased_variance(self.var, n) if dialect.running_var == "unbiased" else self.var
        error = self.moments.dvar * dialect.estimator(n)
        inside = self.summable & self.squarable
        return self._blended(self.old_var, var, error, weight, inside, self.no_nan & moved, off)

    def moved(self, weight: Weight) -> Block:
        """Return the block as the running statistics normalise it that it has moved, each as far off as it may be."""
        mean, var = self.running_mean(weight), self.running_var(weight)
        moments = Moments(
            *(a[:, None] for a in (mean.value.hi, var.value.hi, mean.bound, var.bound))
        )
        known = self.squarable & np.isfinite(moments.dmean + moments.dvar)
        new_mean, new_var = mean.value[:, None], var.value[:, None]
        return replace(self, mean=new_mean, var=new_var, moments=moments, squarable=known)

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
        model, size = self.model, np.abs(old.hi)
        new, m = f.blend(old, batch, weight.value), float(weight.value.hi)
        if off is None:
            on_top = self._besides(weight, old.hi, batch.hi, new.hi)
            bound = bounds.running_bound(model, old.hi, batch.hi, error, m, new.hi, on_top)
        else:  # the bound is convex in the old value, and so largest at one end of where that may be
            carried = abs(1 - m) * off
            ends, furthest = (old.hi - off, old.hi + off), np.abs(new.hi) + carried
            more = [self._besides(weight, r, batch.hi, furthest) for r in ends]
            of_ends = [
                bounds.running_bound(model, r, batch.hi, error, m, furthest, besides)
                for r, besides in zip(ends, more, strict=True)
            ]
            bound, size = np.maximum(*of_ends) + bounds.OWN_ERROR * carried, size + off
        small = bounds.in_range(model.statistics, size, np.abs(batch.hi) + error)
        held = small & (np.abs(new.hi) + bound <= model.dtype.parameters.largest)
        demand = _demand(number & bounds.in_range(model.dtype.accumulation, size))
        return Bounded(new[:, 0], np.where(inside & held, bound, np.inf)[:, 0], demand[:, 0])

    def _besides(self, weight: Weight, old: Floats, batch: Floats, new: Floats) -> Floats | float:
        """Bound what the averages of a dialect add to a kernel's error."""
        if weight.momentum is None or self.model.accuracy.dialect.averages != "debiased":
            return 0.0
        return bounds.debiasing_error(self.model, weight.momentum, weight.batches, old, batch, new)


def _by_channel(column: Extended, bound: Floats, inside: Bools, held: Format) -> Bounded:
    inside = inside & (np.abs(column.hi) + bound <= held.largest)
    return Bounded(column[:, 0], np.where(inside, bound, np.inf)[:, 0])


def _demand(number: Bools, finite: Bools | bool = False) -> Array:
    return np.where(finite, Demand.FINITE, np.where(number, Demand.NUMBER, Demand.NOTHING)).astype(
        np.int8
    )
