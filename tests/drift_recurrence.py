"""The recurrence of the running statistics in rational arithmetic, exact or rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np

from bn_spec import Case, Config, State
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    Forward,
    ResetParameters,
    ResetRunningStats,
    config_after,
    training_after,
)
from bn_spec.oracle.bounds import (
    Accuracy,
    Model,
    batch_moments,
    running_bound,
    sums_exactly,
)
from bn_spec.oracle.expectation import Expectation
from tests.arithmetic import RULES, statistics
from tests.drift_cases import (
    STATISTICS,
    TWO_PASS,
    state_of,
)


class Batch(NamedTuple):
    """A statistic of one channel of a batch, and a bound on a kernel's error in it."""

    value: Fraction
    off: Fraction


Blend: TypeAlias = Callable[[Fraction, Batch, Fraction], Fraction]
"""From the old running statistic, the batch and the momentum to the new running statistic."""


def exactly(old: Fraction, batch: Batch, m: Fraction) -> Fraction:
    return (1 - m) * old + m * batch.value


@dataclass
class Unlucky:
    """A kernel that rounds every result by as much as a model allows, by a rule of signs."""

    model: Model
    rule: str
    seed: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def sign(self, number: Fraction) -> Fraction:
        return Fraction(RULES[self.rule](self.rng, np.array([float(number)]))[0])

    def fl(self, number: Fraction, u: float = 0.0) -> Fraction:
        return number + Fraction(u or self.model.statistics.u) * abs(number) * self.sign(number)

    def seen(self, batch: Batch) -> Fraction:
        return self.fl(self.fl(batch.value + batch.off * self.sign(batch.value)))

    def __call__(self, old: Fraction, batch: Batch, m: Fraction) -> Fraction:
        return self.fl(self.fl(self.new(old, batch, m)), self.model.dtype.parameters.u)

    def new(self, old: Fraction, batch: Batch, m: Fraction) -> Fraction:
        m = self.fl(m)
        return self.fl(self.fl(1 - m) * old) + self.fl(m * self.seen(batch))


class ByDifference(Unlucky):
    def new(self, old: Fraction, batch: Batch, m: Fraction) -> Fraction:
        return old + self.fl(self.fl(m) * self.fl(self.seen(batch) - old))


class ByComplement(Unlucky):
    def new(self, old: Fraction, batch: Batch, m: Fraction) -> Fraction:
        d = self.fl(1 - m)
        return self.fl(d * old) + self.fl(self.fl(1 - d) * self.seen(batch))


class ByTheWholeBound(Unlucky):
    """A kernel whose error in each step is the whole bound of the step."""

    def __call__(self, old: Fraction, batch: Batch, m: Fraction) -> Fraction:
        right = exactly(old, batch, m)
        stored, value, off, new = (np.array([[float(number)]]) for number in (old, *batch, right))
        bound = running_bound(self.model, stored, value, off, float(m), new)
        return right + Fraction(bound.item()) * (1 - Fraction(1, 2**40)) * self.sign(right)


KERNELS = (Unlucky, ByDifference, ByComplement, ByTheWholeBound)


def blended(case: Case, blend: Blend, accuracy: Accuracy = TWO_PASS) -> dict[str, list[Fraction]]:
    """Return the running statistics after all steps of a case, channel by channel."""
    config, training = case.config, True
    batches, stored = tensors_of(state_of(case))
    for step in case.steps:
        config, training = config_after(config, step), training_after(step, training)
        if isinstance(step, ResetRunningStats | ResetParameters):
            batches, stored = tensors_of(initial_state(config))
        if isinstance(step, Forward) and training:
            batches += 1
            m = Fraction(1, batches) if config.momentum is None else Fraction(config.momentum)
            for name, channels in batch_statistics_of(config, step.x, accuracy).items():
                pairs = zip(stored[name], channels, strict=True)
                stored[name] = [blend(old, batch, m) for old, batch in pairs]
    return stored


def tensors_of(state: State) -> tuple[int, dict[str, list[Fraction]]]:
    """Return the counter and the running statistics of a state, as fractions by name."""
    tensors = state.tensors()
    numbers = {name: fractions(tensors[name]) for name in STATISTICS}
    return int(tensors["num_batches_tracked"]), numbers


def fractions(numbers: Array) -> list[Fraction]:
    return [Fraction(float(number)) for number in numbers]


def batch_statistics_of(config: Config, x: Array, accuracy: Accuracy) -> dict[str, list[Batch]]:
    """Return the exact statistics of a batch and the bounds of their errors, per channel."""
    rows = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)
    n = rows.shape[1]
    model = Model(config.arithmetic, n, accuracy)
    mean, var, mean_abs = statistics(rows)
    bound = batch_moments(model, mean, var, mean_abs, sums_exactly(model, rows, mean))
    means, variances = [], []
    off_means, off_variances = fractions(bound.dmean[:, 0]), fractions(bound.dvar[:, 0])
    for row, off_mean, off_var in zip(rows, off_means, off_variances, strict=True):
        numbers = fractions(row)
        exact_mean = sum(numbers, Fraction(0)) / n
        squares = sum(((number - exact_mean) ** 2 for number in numbers), Fraction(0))
        means.append(Batch(exact_mean, off_mean))
        variances.append(Batch(squares / (n - 1), off_var * n / (n - 1)))
    return {"running_mean": means, "running_var": variances}


def expected_numbers(due: Expectation, name: str) -> list[Fraction]:
    """Return the expected values of a statistic; 0 stands for values that are not finite."""
    value = getattr(due, name).value
    low = np.broadcast_to(value.lo, value.hi.shape)
    numbers = []
    for a, b in zip(value.hi, low, strict=True):
        numbers.append(Fraction(a) + Fraction(b) if np.isfinite(a) else Fraction(0))
    return numbers


def largest_share(
    due: Expectation, name: str, got: list[Fraction], right: list[Fraction]
) -> Fraction:
    """Return the largest error as a share of its bound; an infinite bound does not count."""
    bounds = getattr(due, name).bound.tolist()
    largest = Fraction(0)
    for a, b, bound in zip(got, right, bounds, strict=True):
        if np.isfinite(bound):
            largest = max(largest, abs(a - b) / Fraction(bound))
    return largest
