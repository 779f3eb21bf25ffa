"""Laws as observables: answers are compared with each other, within the bounds of both.

Each law has two parts: whether it applies to the last forwards of a case, and what it then expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, State
from bn_spec.case.dialect import PYTORCH
from bn_spec.case.dtypes import Array, Floats
from bn_spec.case.laws import LAWS, Law, doubled, is_exact, two_values
from bn_spec.case.steps import Forward
from bn_spec.judge.observables.judged_step import Judge, JudgedStep, well_formed
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.reference import Extended

TENSORS, STATISTICS = STATE_FIELDS[:4], STATE_FIELDS[2:4]
"""Names of the tensors on which an output depends, and of those that a training forward changes."""

FACTOR_ERROR = 2.0**-50
"""Relative error of the factors that laws compute in float64."""


class Answered(NamedTuple):
    """A forward that gave an output of the right form."""

    step: JudgedStep
    y: Array
    bound: Floats
    """Bound of the absolute error of each element of y."""

    @property
    def x(self) -> Array:
        """Input of the forward (N, C, H, W)."""
        assert isinstance(self.step.answer.step, Forward)
        return self.step.answer.step.x

    @property
    def training(self) -> bool:
        """Whether the layer was in training mode."""
        return self.step.answer.training

    @property
    def before(self) -> State:
        """State of the layer before the forward."""
        return self.step.answer.before

    @property
    def momentum(self) -> float | None:
        """Momentum of the layer, None for a cumulative mean."""
        return self.step.config.momentum


class LawExpectation(NamedTuple):
    """One comparison.

    Attributes:
        step: Index of the step.
        got: The answer.
        value: What the law expects.

    """

    step: int
    got: Array
    value: Bounded


Forwards: TypeAlias = Sequence[Answered]
"""The forwards that a law is about, in order."""


@dataclass(frozen=True)
class FollowedLaw:
    """A law about the last forwards of a case.

    Attributes:
        forwards: How many forwards it is about.
        applies: Whether these forwards are of the kind that the law speaks of.
        expected: What the law expects of forwards to which it applies.

    """

    forwards: int
    applies: Callable[[Forwards], bool]
    expected: Callable[[Forwards], Iterator[LawExpectation]]


def law(name: str) -> Judge:
    """Return a judge of a law; where the law does not apply, it judges nothing."""
    rule = FOLLOWED_LAWS[name]

    def judge_law(verdict: Verdict, step: JudgedStep) -> None:
        forwards = _last_forwards(step, rule.forwards)
        if not forwards or not rule.applies(forwards):
            return
        for each in rule.expected(forwards):
            verdict.bounded(name, each.step, each.got, each.value)

    return judge_law


def _last_forwards(step: JudgedStep, count: int) -> list[Answered]:
    """Return the last forwards, this step included; nothing unless all gave an output."""
    forwards = [s for s in (*step.previous, step) if isinstance(s.answer.step, Forward)][-count:]
    if len(forwards) < count or forwards[-1] is not step:
        return []
    answered = []
    for each in forwards:
        expected, got = each.expected.output, each.answer.output
        if expected is None or not expected.bound.size:
            return []
        if not well_formed(got, expected.bound.shape):
            return []
        answered.append(Answered(each, got, expected.bound))
    return answered


# A change of the input ----------------------------------------------------------------------------


def _change(rule: Law) -> FollowedLaw:
    """Return a law of one training forward and the next, whose input is the first one changed."""

    def applies(forwards: Forwards) -> bool:
        first, second = forwards
        return (
            first.training
            and second.training
            and same_bits(rule.change(first.x), second.x)
            and is_exact(rule, first.x, second.x)
            and second.step.config.eps == first.step.config.eps * rule.eps_factor
            and _parameters_follow(rule.parameters, first, second)
        )

    def expected(forwards: Forwards) -> Iterator[LawExpectation]:
        first, second = forwards
        room = rule.image(first.bound) + second.bound
        value = Bounded(Extended(rule.image(first.y)), room)
        yield LawExpectation(second.step.index, second.y, value)

    return FollowedLaw(2, applies, expected)


def _parameters_follow(reversed_: bool, first: Answered, second: Answered) -> bool:
    """Whether weight and bias are the same before both forwards, or reversed before the second."""
    order = slice(None, None, -1 if reversed_ else 1)
    for name in TENSORS[:2]:
        a, b = getattr(first.before, name), getattr(second.before, name)
        if not _same(None if a is None else a[order], b):
            return False
    return True


# Weight 1 and bias 0 ------------------------------------------------------------------------------


def _unscaled_applies(forwards: Forwards) -> bool:
    """Whether the same input comes once more, with weight 1 and bias 0 this time."""
    scaled, plain = forwards
    if not same_bits(scaled.x, plain.x) or scaled.training is not plain.training:
        return False
    if not _unchanged(forwards, () if plain.training else STATISTICS):
        return False
    if scaled.before.weight is None or scaled.before.bias is None:
        return False
    weight, bias = plain.before.weight, plain.before.bias
    if weight is None or bias is None:
        return False
    return bool((weight == 1).all() and (bias == 0).all())


def _unscaled_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """The first output is weight · second output + bias."""
    scaled, plain = forwards
    assert scaled.before.weight is not None
    assert scaled.before.bias is not None
    weight, bias = _per_channel(scaled.before.weight), _per_channel(scaled.before.bias)
    value = weight * Extended(plain.y) + bias
    room = scaled.bound + np.abs(weight.hi) * plain.bound
    yield LawExpectation(scaled.step.index, scaled.y, Bounded(value, room))


# Eval mode ----------------------------------------------------------------------------------------


def _all_in_eval(forwards: Forwards) -> bool:
    """Whether running statistics normalise all the forwards, and nothing changes between them."""
    for each in forwards:
        if each.training or each.before.running_mean is None:
            return False
    return _unchanged(forwards, TENSORS)


def _additive_applies(forwards: Forwards) -> bool:
    """Whether the third input is the sum of the first two, and the fourth is zero."""
    a, b, total, zero = (each.x.astype(np.float64) for each in forwards)
    if a.shape != b.shape or not np.array_equal(a + b, total) or zero.any():
        return False
    return _all_in_eval(forwards)


def _additive_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """y(a + b) = y(a) + y(b) − y(0)."""
    a, b, total, zero = forwards
    value = Extended(a.y) + Extended(b.y) - Extended(zero.y)
    room = np.sum([each.bound for each in forwards], axis=0)
    yield LawExpectation(total.step.index, total.y, Bounded(value, room))


def _joined_applies(forwards: Forwards) -> bool:
    """Whether the third input is the first two as one batch."""
    a, b, both = forwards
    if a.x.shape[1:] != b.x.shape[1:] or not same_bits(_joined(a.x, b.x), both.x):
        return False
    return _all_in_eval(forwards)


def _joined_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """Two batches as one give what they give apart."""
    a, b, both = forwards
    room = _joined(a.bound, b.bound) + both.bound
    value = Bounded(Extended(_joined(a.y, b.y)), room)
    yield LawExpectation(both.step.index, both.y, value)


def _joined(a: Array, b: Array) -> Array:
    return np.concatenate([a, b])


# One training forward -----------------------------------------------------------------------------


def _in_training(forwards: Forwards) -> bool:
    """Whether all forwards are in training mode."""
    return all(each.training for each in forwards)


def _centred_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """Σ (y − bias) = 0 per channel: the outputs of a channel have its bias as mean."""
    (only,) = forwards
    bias = only.before.bias
    shift = _per_channel(np.zeros(1) if bias is None else bias)
    rows = (Extended(only.y) - shift).transpose(1, 0, 2, 3).reshape(only.y.shape[1], -1)
    room = only.bound.swapaxes(0, 1).reshape(only.y.shape[1], -1).sum(axis=1)
    total = rows.total()[:, 0]
    value = Bounded(Extended(np.zeros(len(room))), room)
    yield LawExpectation(only.step.index, total.hi, value)


def _two_values_apply(forwards: Forwards) -> bool:
    """Whether half the values of each channel are c + a, and the other half c − a."""
    (only,) = forwards
    return only.training and two_values(only.x) is not None


def _two_values_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """Outputs are ±weight · a / √(a² + eps) + bias.

    With momentum 1, running_mean is c, and running_var a² n / (n − 1); in a dialect of biased
    estimates, running_var is a².
    """
    (only,) = forwards
    found = two_values(only.x)
    assert found is not None
    centre, half, signs = found
    step, y = only.step, only.y
    weight, bias = only.before.weight, only.before.bias
    scale = _per_channel(np.ones(1) if weight is None else weight)
    shift = _per_channel(np.zeros(1) if bias is None else bias)
    a = Extended(half)
    height = (a / (a * a + step.config.eps).sqrt()).reshape(1, -1, 1, 1)
    value = Bounded(scale * height * Extended(signs) + shift, only.bound)
    yield LawExpectation(step.index, y, value)
    tracked = isinstance(step.answer.after, State) and step.expected.running_mean is not None
    if not tracked or only.momentum != 1:
        return
    n = y.size // y.shape[1]
    var = a * a
    if step.claims.dialect.running_var != "biased":
        var = var * float(n) / float(n - 1)
    yield from _of_statistic(step, "running_mean", Extended(centre), 0.0)
    yield from _of_statistic(step, "running_var", var, 0.0)


# The same batch again -----------------------------------------------------------------------------


def _contraction_applies(forwards: Forwards) -> bool:
    """Whether the same batch comes twice in training, and its weights are exact."""
    first, second = forwards
    if first.step.config != second.step.config or not same_bits(first.x, second.x):
        return False
    if not _in_training(forwards) or not _goes_on(first, second):
        return False
    # The factors of a cumulative mean grow otherwise if they are rounded to a narrower format.
    attributes = second.step.claims.dialect.attributes
    exact = second.momentum is not None or attributes == PYTORCH.attributes
    return exact and second.before.num_batches_tracked is not None


def _contraction_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """The same batch moves running statistics by (1 − w) w' / w of what it moved them before.

    w and w' are its weights: both are the momentum, or 1 / k and 1 / (k + 1) in a cumulative mean.
    """
    first, second = forwards
    step = second.step
    assert second.before.num_batches_tracked is not None
    k = int(second.before.num_batches_tracked.item())
    averages = step.claims.dialect.averages
    once, again = (_weight(second.momentum, max(n, 1), averages) for n in (k, k + 1))
    grows = again / once if once else 1.0  # how the weight grows from one batch to the next
    left = 1.0 - once  # what the first batch leaves of the value before it
    for name in STATISTICS:
        start, middle = getattr(first.before, name), getattr(second.before, name)
        bounded = getattr(first.step.expected, name)
        if start is None or bounded is None:
            continue
        old, new = Extended(start.astype(np.float64)), Extended(middle.astype(np.float64))
        moved = new - old
        room = grows * bounded.bound + FACTOR_ERROR * np.abs(moved.hi)
        yield from _of_statistic(step, name, new + (grows * left) * moved, room)


def _weight(momentum: float | None, k: int, averages: str) -> float:
    """Return the weight of the k-th batch.

    The formula is repeated here on purpose: a law does not use the reference.
    """
    if momentum is None:
        return 1 / k
    if averages == "from the first batch" and k == 1:
        return 1.0
    if averages == "debiased":
        return momentum / (1 - (1 - momentum) ** k)
    return momentum


def _estimator_applies(forwards: Forwards) -> bool:
    """Whether a batch comes alone and then beside itself, in training with momentum 1."""
    once, twice = forwards
    if once.momentum != 1 or twice.momentum != 1 or not _in_training(forwards):
        return False
    return same_bits(doubled(once.x), twice.x) and _goes_on(once, twice)


def _estimator_expected(forwards: Forwards) -> Iterator[LawExpectation]:
    """The mean stays, and the variance changes by the ratio of its estimators for 2 n and n."""
    once, twice = forwards
    n = once.x.size // once.x.shape[1]
    estimator = twice.step.claims.dialect.estimator
    ratios = ("running_mean", 1.0), ("running_var", estimator(2 * n) / estimator(n))
    for name, ratio in ratios:
        bounded, before = getattr(once.step.expected, name), getattr(twice.before, name)
        if bounded is None or before is None:
            continue
        value = Extended(before.astype(np.float64)) * ratio
        room = bounded.bound + FACTOR_ERROR * np.abs(value.hi)
        yield from _of_statistic(twice.step, name, value, room)


# Shared -------------------------------------------------------------------------------------------


def _of_statistic(
    step: JudgedStep, name: str, value: Extended, room: Floats | float
) -> Iterator[LawExpectation]:
    """Expect a value of a running statistic after a step; the value is off by ``room`` at most."""
    bounded, got = getattr(step.expected, name), getattr(step.answer.after, name, None)
    if bounded is not None and well_formed(got, bounded.bound.shape):
        yield LawExpectation(step.index, got, Bounded(value, bounded.bound + room))


def _per_channel(tensor: Array) -> Extended:
    """Return a tensor (C,) as one that broadcasts over (N, C, H, W)."""
    return Extended(tensor.astype(np.float64).reshape(1, -1, 1, 1))


def _unchanged(forwards: Forwards, names: Sequence[str]) -> bool:
    """Whether eps and these tensors are the same before all of the forwards."""
    first, *others = forwards
    for each in others:
        if each.step.config.eps != first.step.config.eps:
            return False
        if not all(_same(getattr(first.before, n), getattr(each.before, n)) for n in names):
            return False
    return True


def _goes_on(first: Answered, second: Answered) -> bool:
    """Whether the second forward starts from the running statistics that the first one left."""
    left, found = first.step.answer.after, second.before
    return all(_same(getattr(left, name, None), getattr(found, name)) for name in STATISTICS)


def _same(a: Array | None, b: Array | None) -> bool:
    """Return whether two tensors are absent, or are the same bit by bit."""
    return a is b if a is None or b is None else same_bits(a, b)


FOLLOWED_LAWS: Mapping[str, FollowedLaw] = MappingProxyType(
    {
        **{name: _change(rule) for name, rule in LAWS.items()},
        "unscaled": FollowedLaw(2, _unscaled_applies, _unscaled_expected),
        "additive": FollowedLaw(4, _additive_applies, _additive_expected),
        "joined": FollowedLaw(3, _joined_applies, _joined_expected),
        "centred": FollowedLaw(1, _in_training, _centred_expected),
        "two values": FollowedLaw(1, _two_values_apply, _two_values_expected),
        "contraction": FollowedLaw(2, _contraction_applies, _contraction_expected),
        "estimator": FollowedLaw(2, _estimator_applies, _estimator_expected),
    }
)
"""The laws, by the name of their observable."""
