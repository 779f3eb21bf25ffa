"""Specimens in other dialects than PyTorch's.

The sound ones compute what their dialect claims; the faulty ones do not. As in
:mod:`bn_spec.specimens.faulty`, the first line of a docstring explains the mistake.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import Array
from bn_spec.specimens.catalogue import faulty, sound
from bn_spec.specimens.kernel import Kernel

DIALECT = Dialect(
    momentum_weighs="old", running_var="biased", single_value="answered", attributes="float32"
)


@sound("another-dialect", grade="two-pass", overflow_safe=True, dialect=DIALECT)
class AnotherDialect(Kernel):
    """momentum weighs the old value, running_var is biased, and attributes are float32.

    A single value per channel is answered in training, not refused.
    """

    def check(self, x: Array) -> None:
        if x.ndim == 4 and x.size == x.shape[1]:
            x = np.concatenate([x, x])  # a batch that the kernel does not refuse
        super().check(x)

    def blend(self, old: Array, new: Array, m: float) -> Array:
        weight_of_old = DIALECT.momentum(m)
        return old * weight_of_old + new * (1 - weight_of_old)

    def inverse_std(self, var: Array) -> Array:
        s: Array = 1 / np.sqrt(var + var.dtype.type(DIALECT.eps(self.config.eps)))
        return s

    def estimated_var(self, var: Array, n: int) -> Array:
        return var


@faulty(
    "biased-variance-claimed",
    fault="runvar-bias",
    history=("ml-explore/mlx#3817",),
    caught_by=("RUN-03", "MET-13", "MET-11"),
    dialect=DIALECT,
)
class BiasedVarianceClaimed(AnotherDialect):
    """running_var is updated with the unbiased variance, but the biased one is claimed."""

    def estimated_var(self, var: Array, n: int) -> Array:
        return var * (n / max(n - 1, 1))


@faulty(
    "weight-of-the-new-value-claimed",
    fault="momentum-inverted",
    history=(),
    caught_by=("RUN-01",),
    dialect=DIALECT,
)
class WeightOfTheNewValueClaimed(AnotherDialect):
    """momentum weighs the new value, but the framework passes the weight of the old value."""

    def factor(self) -> float:
        if self.config.momentum is None:
            return super().factor()
        return 1 - super().factor()


@faulty(
    "single-value-divided-by-zero",
    fault="n1-bessel",
    history=(),
    caught_by=("TRN-10",),
    dialect=DIALECT,
)
class SingleValueDividedByZero(AnotherDialect):
    """A single value per channel is answered, and running_var becomes 0 · 1 / 0, which is NaN."""

    def estimated_var(self, var: Array, n: int) -> Array:
        return var if n > 1 else var * np.nan


@faulty(
    "attributes-held-in-double",
    fault="attribute-precision",
    history=(),
    caught_by=("TRN-03",),
    dialect=DIALECT,
    dtypes=("float64",),
)
class AttributesHeldInDouble(AnotherDialect):
    """eps is used in double precision, but float32 is claimed."""

    def inverse_std(self, var: Array) -> Array:
        s: Array = 1 / np.sqrt(var + self.config.eps)
        return s


DEBIASED = Dialect(running_var="biased", averages="debiased")


@sound("debiased-averages", grade="two-pass", overflow_safe=True, dialect=DEBIASED)
class DebiasedAverages(Kernel):
    """Running statistics are averages from zero, divided by 1 − (1 − momentum)^k.

    k is the number of batches, this one included.
    """

    def remaining(self, batches: int) -> float:
        """Return the weight, after that number of batches, of the value before them."""
        rest = 1 - self.factor()
        return float(rest**batches)

    def hidden(self, running: Array, initial: float) -> Array:
        """Return the average (C,) from zero, of which a running statistic is the debiased value.

        ``initial`` is the initial value of the running statistic.
        """
        return self.widened(running) * (1 - self.remaining(self.batches() - 1))

    def track(self, mean: Array, var: Array, n: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        self.count()
        if self.config.momentum is None:  # the mean of all batches has no bias
            self.running_mean[...] = self.blend(
                self.widened(self.running_mean), mean, self.factor()
            )
            self.running_var[...] = self.blend(self.widened(self.running_var), var, self.factor())
            return
        weights = 1 - self.remaining(self.batches())
        m = self.factor()
        for running, batch, initial in (
            (self.running_mean, mean, 0.0),
            (self.running_var, var, 1.0),
        ):
            running[...] = self.blend(self.hidden(running, initial), batch, m) / weights


@faulty(
    "debiased-from-one",
    fault="initial-value-weighed",
    history=("patrick-kidger/equinox#955",),
    caught_by=("RUN-02", "RUN-03"),
    dialect=DEBIASED,
)
class DebiasedFromOne(DebiasedAverages):
    """The average of running_var starts at one, but is debiased as if it started at zero."""

    def hidden(self, running: Array, initial: float) -> Array:
        if self.batches() > 1:
            return super().hidden(running, initial)
        return np.full_like(self.widened(running), initial)


@faulty(
    "bias-left-in",
    fault="initial-value-weighed",
    history=(),
    caught_by=("RUN-01", "RUN-02"),
    dialect=DEBIASED,
)
class BiasLeftIn(DebiasedAverages):
    """Running statistics are averages that are never divided by 1 − (1 − momentum)^k."""

    def remaining(self, batches: int) -> float:
        return 0.0


FIRST = Dialect(averages="from the first batch")


@sound("averages-from-the-first-batch", grade="two-pass", overflow_safe=True, dialect=FIRST)
class AveragesFromTheFirstBatch(Kernel):
    """The first batch replaces the initial running statistics."""

    def factor(self) -> float:
        return 1.0 if self.batches() == 1 else super().factor()


@faulty(
    "first-batch-blended",
    fault="initial-value-weighed",
    history=(),
    caught_by=("RUN-01", "RUN-02"),
    dialect=FIRST,
)
class FirstBatchBlended(AveragesFromTheFirstBatch):
    """The first batch is blended with the initial values, but replacement is claimed."""

    def factor(self) -> float:
        return Kernel.factor(self)


PROMOTED = Dialect(mixed_output="parameters")


@sound("promoted-output", grade="two-pass", overflow_safe=True, dialect=PROMOTED)
class PromotedOutput(Kernel):
    """The output has the dtype of weight and bias, also in mixed precision."""

    def forward(self, x: Array) -> Array:
        if self.weight is None or x.dtype == self.weight.dtype or x.ndim != 4:
            return super().forward(x)
        y = super().forward(x.astype(self.weight.dtype))
        self.saved = replace(self.saved, x=x)
        return y


@faulty(
    "output-narrowed",
    fault="mixed-dtype",
    history=(),
    caught_by=("TRN-05", "DTY-03"),
    dialect=PROMOTED,
    dtypes=("mixed_float16", "mixed_bfloat16"),
)
class OutputNarrowed(Kernel):
    """The output is rounded to the dtype of the data, but that of the parameters is claimed."""


RUNNING = Dialect(running_var="biased", averages="from the first batch", training_output="running")


@sound(
    "running-statistics-normalise",
    grade="two-pass",
    overflow_safe=True,
    dialect=RUNNING,
    gradients=False,
)
class RunningStatisticsNormalise(AveragesFromTheFirstBatch):
    """In training, the running statistics normalise the batch that has updated them."""

    def estimated_var(self, var: Array, n: int) -> Array:
        return var

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        if not self.tracks():
            return super().normalise(x, mean, s)
        assert self.running_mean is not None
        assert self.running_var is not None
        return super().normalise(
            x, self.widened(self.running_mean), self.inverse_std(self.widened(self.running_var))
        )


@faulty(
    "batch-statistics-normalise",
    fault="running-not-blended",
    history=("patrick-kidger/equinox#659",),
    caught_by=("TRN-01",),
    dialect=RUNNING,
    gradients=False,
)
class BatchNormalises(RunningStatisticsNormalise):
    """The batch statistics normalise in training, but the running ones are claimed to."""

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        return Kernel.normalise(self, x, mean, s)
