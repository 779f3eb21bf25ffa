"""Specimens that speak another dialect than PyTorch's: one that does what it claims, and some that do not."""

from __future__ import annotations

import numpy as np

from ..dialect import Dialect
from ..dtypes import Array
from .catalogue import faulty, sound
from .kernel import Kernel

DIALECT = Dialect(momentum_weighs="old", running_var="biased", single_value="answered", attributes="float32")


@sound("another-dialect", grade="two-pass", overflow_safe=True, dialect=DIALECT)
class AnotherDialect(Kernel):
    """Momentum weighs the old value, the variance is biased, a single value is answered, attributes are float32."""

    def check(self, x: Array) -> None:
        super().check(x if x.ndim != 4 or x.size != x.shape[1] else np.concatenate([x, x]))

    def blend(self, old: Array, new: Array, m: float) -> Array:
        weight_of_old = DIALECT.momentum(m)
        return old * weight_of_old + new * (1 - weight_of_old)

    def inverse_std(self, var: Array) -> Array:
        s: Array = 1 / np.sqrt(var + var.dtype.type(DIALECT.eps(self.config.eps)))
        return s

    def estimated_var(self, var: Array, n: int) -> Array:  # noqa: ARG002 - other estimators need n
        return var


@faulty(
    "biased-variance-claimed",
    fault="runvar-bias",
    history=("ml-explore/mlx#3817",),
    caught_by=("RUN-03", "MET-13", "MET-11"),
    dialect=DIALECT,
)
class BiasedVarianceClaimed(AnotherDialect):
    """running_var is updated with the unbiased variance, where the biased one is claimed."""

    def estimated_var(self, var: Array, n: int) -> Array:
        return var * (n / max(n - 1, 1))


@faulty(
    "weight-of-the-new-value-claimed", fault="momentum-inverted", history=(), caught_by=("RUN-01",), dialect=DIALECT
)
class WeightOfTheNewValueClaimed(AnotherDialect):
    """momentum is taken for the weight of the new value, where the framework hands over that of the old one."""

    def factor(self) -> float:
        return super().factor() if self.config.momentum is None else 1 - super().factor()


@faulty("single-value-divided-by-zero", fault="n1-bessel", history=(), caught_by=("TRN-10",), dialect=DIALECT)
class SingleValueDividedByZero(AnotherDialect):
    """A single value per channel is answered, and running_var becomes 0 · 1 / 0."""

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
    """eps is used as it is given, where it is claimed to be held in float32."""

    def inverse_std(self, var: Array) -> Array:
        s: Array = 1 / np.sqrt(var + self.config.eps)
        return s
