"""Laws as observables: answers against each other, with no more room than the bounds of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, State
from bn_spec.case.dialect import PYTORCH
from bn_spec.case.dtypes import Array, Floats
from bn_spec.case.laws import LAWS, doubled, is_exact, two_values
from bn_spec.case.steps import Forward
from bn_spec.judge.observables.judged_step import Observable, Step, well_formed
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.reference import Extended

TENSORS, STATISTICS = STATE_FIELDS[:4], STATE_FIELDS[2:4]
"""What an output may depend on, and what of it a training forward moves."""


def law(name: str) -> Observable:
    """Judge a law of one forward and the next; where the steps are none of it, there is nothing to judge."""
    rule = LAWS[name]

    def judge_law(verdict: Verdict, step: Step) -> None:
        both = _answered(step, 2)
        if not both or not (previous := both[0])[0].answer.training or not step.answer.training:
            return
        (before, y, y_bound), (_, changed, bound) = previous, both[1]
        x = _input(before)
        if not same_bits(rule.change(x), _input(step)) or not is_exact(rule, x, _input(step)):
            return
        if step.config.eps != before.config.eps * rule.eps_factor:
            return
        if not _parameters_follow(rule.parameters, before, step):
            return
        expected = Bounded(Extended(rule.image(y)), rule.image(y_bound) + bound)
        verdict.bounded(name, step.index, changed, expected)

    return judge_law


def unscaled(verdict: Verdict, step: Step) -> None:
    """With weight 1 and bias 0, x gives what must be scaled and shifted to give what it gave before."""
    both = _answered(step, 2)
    if not both or not same_bits(_input(both[0][0]), _input(step)):
        return
    (before, y, y_bound), (_, plain, bound) = both
    if not _stay((before, step), () if step.answer.training else STATISTICS):
        return
    now, held = step.answer.before, before.answer.before
    if held.weight is None or held.bias is None or now.weight is None or now.bias is None:
        return
    if (
        before.answer.training is not step.answer.training
        or (now.weight != 1).any()
        or (now.bias != 0).any()
    ):
        return
    weight, bias = (
        Extended(a.astype(np.float64).reshape(1, -1, 1, 1)) for a in (held.weight, held.bias)
    )
    value = weight * Extended(plain) + bias
    verdict.bounded(
        "unscaled", before.index, y, Bounded(value, y_bound + np.abs(weight.hi) * bound)
    )


def additive(verdict: Verdict, step: Step) -> None:
    """In eval mode, what two inputs give makes up what their sum and zero give."""
    four = _answered(step, 4)
    if not four or any(
        s.answer.training or s.answer.before.running_mean is None for s, _, _ in four
    ):
        return
    a, b, total, zero = (_input(s).astype(np.float64) for s, _, _ in four)
    if a.shape != b.shape or not np.array_equal(a + b, total) or zero.any():
        return
    if not _stay([s for s, _, _ in four], TENSORS):
        return
    (_, of_a, _), (_, of_b, _), (_, of_total, _), (_, of_zero, _) = four
    value = Extended(of_a) + Extended(of_b) - Extended(of_zero)
    room = np.sum([bound for _, _, bound in four], axis=0)
    verdict.bounded("additive", four[2][0].index, of_total, Bounded(value, room))


def joined(verdict: Verdict, step: Step) -> None:
    """In eval mode, two batches as one give what they give apart."""
    three = _answered(step, 3)
    if not three or any(
        s.answer.training or s.answer.before.running_mean is None for s, _, _ in three
    ):
        return
    (a, of_a, a_bound), (b, of_b, b_bound), (_, y, bound) = three
    if _input(a).shape[1:] != _input(b).shape[1:] or not same_bits(
        _joined(_input(a), _input(b)), _input(step)
    ):
        return
    if not _stay((a, b, step), TENSORS):
        return
    expected = Bounded(Extended(_joined(of_a, of_b)), _joined(a_bound, b_bound) + bound)
    verdict.bounded("joined", step.index, y, expected)


def centred(verdict: Verdict, step: Step) -> None:
    """The training outputs of a channel have its bias as mean: Σ (y − β) = 0."""
    alone = _answered(step, 1)
    if not alone or not step.answer.training:
        return
    _, y, bound = alone[0]
    bias = step.answer.before.bias
    shift = Extended(np.zeros(1) if bias is None else bias.astype(np.float64)).reshape(1, -1, 1, 1)
    rows = (Extended(y) - shift).transpose(1, 0, 2, 3).reshape(y.shape[1], -1)
    limits = bound.swapaxes(0, 1).reshape(y.shape[1], -1).sum(axis=1)
    total = rows.total()[:, 0]
    verdict.bounded(
        "centred", step.index, total.hi, Bounded(Extended(np.zeros(len(limits))), limits)
    )


def two_valued(verdict: Verdict, step: Step) -> None:
    """Half the values c + a, half c − a: outputs ±γ a / √(a² + ε) + β, running statistics c and a² n / (n − 1).

    In a dialect of biased estimates, the latter is a².
    """
    alone = _answered(step, 1)
    if not alone or not step.answer.training or (found := two_values(_input(step))) is None:
        return
    centre, half, signs = found
    _, y, bound = alone[0]
    before, after, expected = step.answer.before, step.answer.after, step.expected
    weight, bias = (
        Extended(neutral if a is None else a.astype(np.float64)).reshape(1, -1, 1, 1)
        for a, neutral in ((before.weight, np.ones(1)), (before.bias, np.zeros(1)))
    )
    a = Extended(half)
    height = (a / (a * a + step.config.eps).sqrt()).reshape(1, -1, 1, 1)
    verdict.bounded(
        "two values", step.index, y, Bounded(weight * height * Extended(signs) + bias, bound)
    )
    if not isinstance(after, State) or expected.running_mean is None or step.config.momentum != 1:
        return
    n = y.size // y.shape[1]
    var = a * a if step.claims.dialect.running_var == "biased" else a * a * float(n) / float(n - 1)
    statistics = ("running_mean", Extended(centre)), ("running_var", var)
    for name, value in statistics:
        _of_statistic(verdict, "two values", step, name, value, 0.0)


def contraction(verdict: Verdict, step: Step) -> None:
    """The same batch twice moves running statistics by (1 − w) w' / w of what it moved them before.

    w and w' are its weights: both are the momentum, or 1 / k and 1 / (k + 1) in a cumulative mean.
    """
    both = _answered(step, 2)
    if (
        not both
        or both[0][0].config != step.config
        or not same_bits(_input(both[0][0]), _input(step))
    ):
        return
    before, (first, after) = both[0][0], (both[0][0].answer.before, step.answer.before)
    if not before.answer.training or not step.answer.training or not _goes_on(before, step):
        return
    held = step.config.momentum is not None or step.claims.dialect.attributes == PYTORCH.attributes
    if (
        after.num_batches_tracked is None or not held
    ):  # factors of a cumulative mean that are rounded grow otherwise
        return
    k, averages = int(after.num_batches_tracked.item()), step.claims.dialect.averages
    once, again = (_weight(step.config.momentum, max(n, 1), averages) for n in (k, k + 1))
    # How the weight of a batch grows from one to the next, and what the first leaves of the value
    # before.
    grows, left = again / once if once else 1.0, 1.0 - once
    for name in STATISTICS:
        r0, r1, bounded = getattr(first, name), getattr(after, name), getattr(before.expected, name)
        if r0 is not None and bounded is not None:
            old, new = Extended(r0.astype(np.float64)), Extended(r1.astype(np.float64))
            moved = new - old
            room = grows * bounded.bound + 2.0**-50 * np.abs(moved.hi)  # of the factors
            _of_statistic(verdict, "contraction", step, name, new + (grows * left) * moved, room)


def _weight(momentum: float | None, k: int, averages: str) -> float:
    """Return the weight of the k-th batch; said here once more, since a law needs no reference."""
    if momentum is None:
        return 1 / k
    if averages == "from the first batch" and k == 1:
        return 1.0
    return momentum / (1 - (1 - momentum) ** k) if averages == "debiased" else momentum


def estimator(verdict: Verdict, step: Step) -> None:
    """With momentum 1, a batch beside itself has the same mean, and the same variance but for its estimator."""
    both = _answered(step, 2)
    if (
        not both
        or step.config.momentum != 1
        or not step.answer.training
        or not both[0][0].answer.training
    ):
        return
    before = both[0][0]
    if not same_bits(doubled(_input(before)), _input(step)):
        return
    if before.config.momentum != 1 or not _goes_on(before, step):
        return
    n = _input(before).size // _input(before).shape[1]
    estimator = step.claims.dialect.estimator
    ratios = ("running_mean", 1.0), ("running_var", estimator(2 * n) / estimator(n))
    for name, ratio in ratios:
        once, held = getattr(before.expected, name), getattr(step.answer.before, name)
        if once is not None and held is not None:
            value = Extended(held.astype(np.float64)) * ratio
            room = once.bound + 2.0**-50 * np.abs(value.hi)  # of the ratio
            _of_statistic(verdict, "estimator", step, name, value, room)


OTHERS: Mapping[str, Observable] = MappingProxyType(
    {
        "unscaled": unscaled,
        "additive": additive,
        "joined": joined,
        "centred": centred,
        "two values": two_valued,
        "contraction": contraction,
        "estimator": estimator,
    }
)
"""Laws that are no change from one input to the next."""

OF_STATISTICS = ("two values", "contraction", "estimator")
"""Those that look at running statistics."""


def _of_statistic(
    verdict: Verdict, law: str, step: Step, name: str, value: Extended, room: Floats | float
) -> None:
    """Judge a running statistic against what a law says, which is off by ``room`` at most."""
    expected, got = getattr(step.expected, name), getattr(step.answer.after, name, None)
    if expected is not None and well_formed(got, expected.bound.shape):
        verdict.bounded(law, step.index, got, Bounded(value, expected.bound + room))


def _answered(step: Step, count: int) -> list[tuple[Step, Array, Floats]] | None:
    """Return the last forwards, this step being one, with outputs and bounds, if so many gave some."""
    forwards = [s for s in (*step.previous, step) if isinstance(s.answer.step, Forward)][-count:]
    if len(forwards) < count or forwards[-1] is not step:
        return None
    found = []
    for s in forwards:
        expected, got = s.expected.output, s.answer.output
        if (
            expected is None
            or not expected.bound.size
            or not well_formed(got, expected.bound.shape)
        ):
            return None
        found.append((s, got, expected.bound))
    return found


def _input(step: Step) -> Array:
    assert isinstance(step.answer.step, Forward)
    return step.answer.step.x


def _joined(a: Array, b: Array) -> Array:
    return np.concatenate([a, b])


def _parameters_follow(reversed_: bool, before: Step, step: Step) -> bool:
    """Whether weight and bias are those of the step before, or those reversed."""
    order = slice(None, None, -1 if reversed_ else 1)
    pairs = (
        (getattr(before.answer.before, name), getattr(step.answer.before, name))
        for name in TENSORS[:2]
    )
    return all(_same(None if a is None else a[order], b) for a, b in pairs)


def _stay(steps: Sequence[Step], names: Sequence[str]) -> bool:
    """Whether eps and these tensors are the same before all of the steps."""
    first, *others = steps
    return all(
        s.config.eps == first.config.eps
        and all(
            _same(getattr(first.answer.before, name), getattr(s.answer.before, name))
            for name in names
        )
        for s in others
    )


def _goes_on(before: Step, step: Step) -> bool:
    """Whether the step starts from the running statistics that the one before left."""
    left, found = before.answer.after, step.answer.before
    return all(_same(getattr(left, name, None), getattr(found, name)) for name in STATISTICS)


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b if a is None or b is None else same_bits(a, b)
