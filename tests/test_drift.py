"""The bound of what rounding makes of running statistics over many batches is a theorem, and it is not empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, State
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES, Array, Floats
from bn_spec.case.steps import (
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Set,
    Step,
    Train,
    config_after,
    training_after,
)
from bn_spec.judge.judging import judge, judge_drift
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import (
    OWN_ERROR,
    Accuracy,
    Model,
    batch_moments,
    running_bound,
    sums_exactly,
)
from bn_spec.oracle.expectation import Expectation, drift, expect
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.kernel import Kernel
from bn_spec.strategies import FAMILIES, MIXED, RUNNING_STYLES, cases, histories, shapes, values

from .arithmetic import RULES, statistics
from .common import examples

STATISTICS = ("running_mean", "running_var")
MOMENTA = (0.1, 0.01, 1.0, 0.0, None, 0.5, 0.9)
TWO_PASS = Accuracy("two-pass")

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def state_of(case: Case) -> State:
    return case.state or initial_state(case.config)


@np.errstate(all="ignore")  # as the judge has it, where float16 overflows
def drifted(case: Case, accuracy: Accuracy = TWO_PASS) -> Expectation:
    return drift(case, state_of(case), accuracy)


# The theorem, in rational arithmetic


class Batch(NamedTuple):
    """A statistic of one channel of a batch, and how far a kernel may be from it."""

    value: Fraction
    off: Fraction


Blend: TypeAlias = Callable[[Fraction, Batch, Fraction], Fraction]
"""What is held, the batch, and the momentum; to what is held then."""


def exactly(old: Fraction, batch: Batch, m: Fraction) -> Fraction:
    return (1 - m) * old + m * batch.value


@dataclass
class Unlucky:
    """Rounds every result by as much as a model allows, in the direction of a rule."""

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
    """Errs at each step by what a step may err from what is held."""

    def __call__(self, old: Fraction, batch: Batch, m: Fraction) -> Fraction:
        right = exactly(old, batch, m)
        held, value, off, new = (np.array([[float(number)]]) for number in (old, *batch, right))
        bound = running_bound(self.model, held, value, off, float(m), new)
        return right + Fraction(bound.item()) * (1 - Fraction(1, 2**40)) * self.sign(right)


KERNELS = (Unlucky, ByDifference, ByComplement, ByTheWholeBound)


def blended(case: Case, blend: Blend, accuracy: Accuracy = TWO_PASS) -> dict[str, list[Fraction]]:
    """Return the running statistics after all steps of a case: the recurrence, channel by channel."""
    config, training = case.config, True
    batches, held = _read(state_of(case))
    for step in case.steps:
        config, training = config_after(config, step), training_after(step, training)
        if isinstance(step, ResetRunningStats | ResetParameters):
            batches, held = _read(initial_state(config))
        if isinstance(step, Forward) and training:
            batches += 1
            m = Fraction(1, batches) if config.momentum is None else Fraction(config.momentum)
            for name, channels in _of_batch(config, step.x, accuracy).items():
                held[name] = [
                    blend(old, batch, m) for old, batch in zip(held[name], channels, strict=True)
                ]
    return held


def _read(state: State) -> tuple[int, dict[str, list[Fraction]]]:
    tensors = state.tensors()
    numbers = {name: [Fraction(float(number)) for number in tensors[name]] for name in STATISTICS}
    return int(tensors["num_batches_tracked"]), numbers


def _of_batch(config: Config, x: Array, accuracy: Accuracy) -> dict[str, list[Batch]]:
    rows = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)
    n = rows.shape[1]
    model = Model(config.arithmetic, n, accuracy)
    mean, var, mean_abs = statistics(rows)
    bound = batch_moments(model, mean, var, mean_abs, sums_exactly(model, rows, mean))
    channels = [[Fraction(x) for x in row] for row in rows.tolist()]
    means = [sum(row, Fraction(0)) / n for row in channels]
    squares = [
        sum(((x - m) ** 2 for x in row), Fraction(0))
        for row, m in zip(channels, means, strict=True)
    ]
    dmean, dvar = ([Fraction(off) for off in a[:, 0].tolist()] for a in (bound.dmean, bound.dvar))
    return {
        "running_mean": list(map(Batch, means, dmean)),
        "running_var": [
            Batch(s / (n - 1), off * n / (n - 1)) for s, off in zip(squares, dvar, strict=True)
        ],
    }


def expected_numbers(due: Expectation, name: str) -> list[Fraction]:
    value = getattr(due, name).value
    low = np.broadcast_to(value.lo, value.hi.shape)
    return [
        Fraction(a) + Fraction(b) if np.isfinite(a) else Fraction(0)
        for a, b in zip(value.hi, low, strict=True)
    ]


def largest_share(
    due: Expectation, name: str, got: list[Fraction], right: list[Fraction]
) -> Fraction:
    """Return the largest error as a share of its bound, where there is one: not where float16 overflows."""
    bounds = getattr(due, name).bound.tolist()
    shares = [
        abs(a - b) / Fraction(d)
        for a, b, d in zip(got, right, bounds, strict=True)
        if np.isfinite(d)
    ]
    return max(shares, default=Fraction(0))


def drifting(dtype: str, most: int) -> st.SearchStrategy[Case]:
    """Cases of several batches, of every momentum, with resets, changes of momentum and eval forwards between."""
    words = (
        "forward",
        "forward",
        "forward",
        "eval",
        "train",
        "train",
        "set momentum",
        "reset",
        "reset all",
    )
    return cases(
        dtype=dtype,
        history=histories(*words, most=most, before=("forward",), after=("train", "forward")),
        shape=shapes("tiny"),
        layouts=("contiguous",),
        value=values((*FAMILIES, MIXED), scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0, 100.0)),
        momentum=MOMENTA,
        running=RUNNING_STYLES,
    )


IN_HALF = Accuracy("two-pass", statistics="parameters")

each_row = pytest.mark.parametrize(
    ("dtype", "accuracy"),
    [
        *(pytest.param(dtype, TWO_PASS, id=dtype) for dtype in DTYPES),
        *(
            pytest.param(dtype, IN_HALF, id=f"{dtype}, statistics in half")
            for dtype in ("float16", "bfloat16")
        ),
    ],
)


@each_row
@pytest.mark.parametrize("rule", RULES)
def test_a_kernel_stays_within_the_bound_however_each_operation_is_rounded(
    rule: str, dtype: str, accuracy: Accuracy
) -> None:
    worst = Fraction(0)

    @examples(10)
    @given(drifting(dtype, 10), st.sampled_from(KERNELS), st.integers(0, 99))
    def stays(case: Case, kernel: type[Unlucky], seed: int) -> None:
        nonlocal worst
        unlucky = kernel(Model(case.config.arithmetic, 2, accuracy), rule, seed)
        due = drifted(case, accuracy)
        got, right = blended(case, unlucky, accuracy), blended(case, exactly, accuracy)
        share = max(largest_share(due, name, got[name], right[name]) for name in STATISTICS)
        assert share <= 1
        worst = max(worst, share)

    stays()
    assert worst > 0.7


@each_dtype
def test_the_expected_statistics_are_those_of_the_recurrence(dtype: str) -> None:
    @examples(15)
    @given(drifting(dtype, 16))
    def are(case: Case) -> None:
        due, exact = drifted(case), blended(case, exactly)
        for name in STATISTICS:
            assert (
                largest_share(due, name, expected_numbers(due, name), exact[name]) <= OWN_ERROR - 1
            )

    are()


@each_dtype
@pytest.mark.parametrize("subnormals", [True, False])
def test_the_bound_of_one_step_is_largest_at_an_end_of_where_the_held_value_may_be(
    subnormals: bool, dtype: str
) -> None:
    model = Model(DTYPES[dtype], 4, replace(TWO_PASS, subnormals=subnormals))
    numbers, share = st.floats(-1e3, 1e3), st.floats(0, 1)

    @examples(60)
    @given(old=numbers, off=st.floats(0, 1e3), inside=share, batch=numbers, dbatch=share, m=share)
    def is_largest(
        old: float, off: float, inside: float, batch: float, dbatch: float, m: float
    ) -> None:
        new = abs((1 - m) * old + m * batch) + (1 - m) * off
        held = np.array([[old - off], [old + off], [old + (2 * inside - 1) * off]])
        *ends, between = running_bound(
            model, held, np.array(batch), np.array(dbatch), m, np.array(new)
        ).ravel()
        assert between <= max(ends) * (1 + 2.0**-40)

    is_largest()


# What the bound amounts to

X = np.array([[0, 2, 4, 6, 8], [-2, 0, 1, 3, 8]]).T.reshape(5, 2, 1, 1)
HELD = np.array([[4, 2], [10, 14.5]])
"""The running statistics that the batch ``X`` leaves as they are."""


def repeated(
    *steps: Step, momentum: float | None = 0.1, dtype: str = "float32", held: Array = HELD
) -> Case:
    """Return a case that starts from what ``X`` leaves as it is, in a dtype."""
    row = DTYPES[dtype]
    weight, bias, mean, var = np.array([[1, 1], [0, 0], *held]).astype(row.parameters.dtype)
    moved = (
        replace(s, x=s.x.astype(row.data.dtype)) if isinstance(s, Forward) else s for s in steps
    )
    return Case(
        Config(2, momentum=momentum, dtype=dtype),
        State(weight, bias, mean, var, np.array(0)),
        tuple(moved),
    )


def bound_of(case: Case, accuracy: Accuracy = TWO_PASS) -> Floats:
    return np.array([getattr(drifted(case, accuracy), name).bound for name in STATISTICS])


STEP = Forward(X)


@each_dtype
def test_the_bound_of_a_single_step_is_that_of_the_step(dtype: str) -> None:
    @examples(20)
    @given(
        cases(
            dtype=dtype, momentum=MOMENTA, running=RUNNING_STYLES, shape=shapes("tiny", "different")
        )
    )
    def is_that(case: Case) -> None:
        once = expect(case.config, state_of(case), True, case.steps[0], TWO_PASS)
        for name in STATISTICS:
            due, step = getattr(drifted(case), name), getattr(once, name)
            assert np.array_equal(due.bound, step.bound)
            assert np.array_equal(due.value.hi, step.value.hi, equal_nan=True)

    is_that()


@pytest.mark.parametrize(
    ("momentum", "steps", "growth"),
    [
        pytest.param(0.1, 1000, 10.0, id="a momentum divides the bound of a step"),
        pytest.param(0.01, 1000, 100.0, id="a small momentum divides it likewise"),
        pytest.param(0.1, 7, (1 - 0.9**7) / 0.1, id="or by less, after few steps"),
        pytest.param(1.0, 30, 1.0, id="a whole momentum forgets"),
        pytest.param(0.0, 100, 100.0, id="a momentum of zero adds up"),
    ],
)
def test_the_bound_grows_as_the_sum_of_what_is_left_of_each_step(
    momentum: float, steps: int, growth: float
) -> None:
    once, many = (bound_of(repeated(*(STEP,) * k, momentum=momentum)) for k in (1, steps))
    assert many == pytest.approx(growth * once, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_bound_of_a_cumulative_mean_grows_with_half_the_number_of_batches(dtype: str) -> None:
    """What is left of the error of batch j after k batches is j / k."""
    many = bound_of(repeated(*(STEP,) * 60, momentum=None, dtype=dtype))
    of_first, of_last = (bound_of(repeated(STEP, momentum=m, dtype=dtype)) for m in (1.0, 1 / 60))
    halves = 61 / 2 * np.array([of_first, of_last])
    assert (0.99 * halves.min(axis=0) <= many).all()
    assert (many <= 1.05 * halves.max(axis=0)).all()


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 60), (0.01, 400), (0.5, 20), (0.9, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_bound_stays_below_that_of_a_step_divided_by_momentum_less_the_roundoff_of_the_buffers(
    dtype: str, momentum: float, steps: int
) -> None:
    """Of what is held, errors grow by a roundoff of the buffers and a few of the accumulation at each step."""
    row = DTYPES[dtype]
    slope = (1 - momentum) * row.parameters.u + 8 * row.accumulation.u + (OWN_ERROR - 1)
    once, many = (
        bound_of(repeated(*(STEP,) * k, momentum=momentum, dtype=dtype)) for k in (1, steps)
    )
    assert (many <= once / (momentum - slope)).all()
    assert (many >= 0.97 * (1 - (1 - momentum) ** steps) * once / momentum).all()


@each_row
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize(
    ("kernel", "least"),
    [(ByTheWholeBound, 0.999), (Unlucky, 0.45), (ByComplement, 0.3), (ByDifference, 0.2)],
)
def test_a_kernel_that_always_rounds_up_uses_its_share_of_the_bound_after_many_steps(
    kernel: type[Unlucky], least: float, momentum: float | None, dtype: str, accuracy: Accuracy
) -> None:
    case = repeated(*(STEP,) * 20, momentum=momentum, dtype=dtype)
    up = kernel(Model(case.config.arithmetic, X.shape[0], accuracy), "up")
    due = drifted(case, accuracy)
    got, right = blended(case, up, accuracy), blended(case, exactly, accuracy)
    assert all(least < largest_share(due, name, got[name], right[name]) <= 1 for name in STATISTICS)


@each_dtype
@pytest.mark.parametrize("reset", [ResetRunningStats(), ResetParameters()])
def test_a_reset_forgets_all_errors(reset: Step, dtype: str) -> None:
    fresh = np.array([[0, 0], [1, 1]])
    for momentum in (0.1, None):
        after = repeated(STEP, STEP, STEP, reset, STEP, STEP, momentum=momentum, dtype=dtype)
        alone = repeated(STEP, STEP, momentum=momentum, dtype=dtype, held=fresh)
        assert np.array_equal(bound_of(after), bound_of(alone))
        assert drifted(after).state.num_batches_tracked == 2


def test_neither_eval_forwards_nor_modes_make_a_difference() -> None:
    between = Eval(), Forward(X * 100), Train()
    assert np.array_equal(bound_of(repeated(STEP, *between, STEP)), bound_of(repeated(STEP, STEP)))
    assert drifted(repeated(STEP, *between, STEP)).state.num_batches_tracked == 2


def test_a_new_momentum_counts_from_then_on() -> None:
    changed = repeated(STEP, STEP, Set("momentum", 1.0), STEP, momentum=0.1)
    assert bound_of(changed) == pytest.approx(bound_of(repeated(STEP, momentum=1.0)), rel=1e-3)


def test_once_outside_the_domain_the_bound_stays_infinite_until_a_reset() -> None:
    enormous = Forward(np.array([3e38, -3e38] * 5).reshape(5, 2, 1, 1))
    assert np.isinf(bound_of(repeated(enormous, momentum=1.0))).all()
    assert np.isinf(bound_of(repeated(enormous, STEP, momentum=1.0))).all()
    reset = bound_of(repeated(enormous, ResetRunningStats(), STEP, momentum=1.0))
    fresh = np.array([[0, 0], [1, 1]])
    assert np.array_equal(reset, bound_of(repeated(STEP, momentum=1.0, held=fresh)))


# Kernels that are judged by what they hold at the end

BATCHES = tuple(Forward(X * (1 + i % 3) + (6 if i % 2 else -6)) for i in range(20))
"""Twenty batches whose statistics differ by more than rounding can make of them in any format."""


def specimen_of(kernel: type[Kernel]) -> Specimen:
    return Specimen("drifting", "A kernel.", kernel, SPECIMENS["two-pass-sequential"].capabilities)


def final(case: Case, backend: Any) -> Verdict:
    return judge_drift(case, play(case, backend, ()), backend.capabilities)


@pytest.mark.parametrize(
    "specimen", [s for s in SPECIMENS.values() if s.sound], ids=attrgetter("name")
)
def test_a_sound_kernel_does_not_drift(specimen: Specimen) -> None:
    slower: list[Step] = [Set("momentum", 0.01), *BATCHES[:6], Set("momentum", None), *BATCHES[:5]]
    last = Set("momentum", 0.0 if specimen.capabilities.momentum_zero else 1.0)
    for dtype in specimen.capabilities.dtypes:
        for steps in ((*BATCHES, *slower, Eval(), STEP), (ResetParameters(), *slower, last, STEP)):
            verdict = final(repeated(*steps, dtype=dtype), specimen)
            assert not verdict.discrepancies
            assert (verdict.judged, verdict.outside) == (2 * 2 + 1, 0)


def test_statistics_that_get_stuck_in_bfloat16_are_within_the_bound() -> None:
    """Of a momentum less than the roundoff of the buffers, nothing is left once the sum is rounded."""
    case = repeated(*(STEP,) * 500, momentum=0.001, dtype="bfloat16", held=np.ones((2, 2)))
    after = play(case, SPECIMENS["two-pass-sequential"], ()).answers[-1].after
    assert isinstance(after, State)
    assert after.running_mean is not None
    assert (after.running_mean == 1).all()
    assert not final(case, SPECIMENS["two-pass-sequential"]).discrepancies


class LosesOneOfTwenty(Kernel):
    """Of twenty updates, one is lost."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        if self.batches() % 20 == 15:
            self.count()
        else:
            super().track(mean, var, n)


class AppliedTwice(Kernel):
    """Each update is applied twice."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        super().track(mean, var, n)
        self.num_batches_tracked = np.asarray(self.batches() - 1)
        super().track(mean, var, n)


class OneBatchLate(Kernel):
    """Each update is that of the batch before."""

    late: tuple[Array, Array] | None = None

    def track(self, mean: Array, var: Array, n: int) -> None:
        super().track(*(self.late or (mean, var)), n)
        self.late = mean, var


@each_dtype
@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
@pytest.mark.parametrize("kernel", [LosesOneOfTwenty, AppliedTwice, OneBatchLate])
def test_a_kernel_that_gets_one_update_wrong_drifts(
    kernel: type[Kernel], momentum: float | None, dtype: str
) -> None:
    case = repeated(*BATCHES, momentum=momentum, dtype=dtype)
    found = [d.observable for d in final(case, specimen_of(kernel)).discrepancies]
    if DTYPES[dtype].parameters.name in ("float32", "float64"):
        assert found == [*STATISTICS]
    else:
        assert found[:1] == ["running_mean"]


class ResetForgotten(Kernel):
    """A reset sets nothing but the counter."""

    def reset_running_stats(self) -> None:
        self.num_batches_tracked = self.built().num_batches_tracked


class ResetUncounted(Kernel):
    """A reset leaves the counter as it is."""

    def reset_running_stats(self) -> None:
        counter = self.num_batches_tracked
        super().reset_running_stats()
        self.num_batches_tracked = counter


class MovedInEval(Kernel):
    """An eval forward updates the running statistics, but does not count."""

    def forward(self, x: Array) -> Array:
        rows = self.rows(x)
        if not self.training:
            self.track(*self.moments(rows), rows.shape[1])
            self.num_batches_tracked = np.asarray(self.batches() - 1)
        return super().forward(x)


class MomentumForGood(Kernel):
    """A momentum that is set later is none."""

    def configure(self, name: str, value: float | None) -> None:
        if name != "momentum":
            super().configure(name, value)


@pytest.mark.parametrize(
    ("kernel", "steps", "wrong"),
    [
        pytest.param(
            ResetForgotten, (STEP, ResetRunningStats(), STEP), [*STATISTICS], id="a reset"
        ),
        pytest.param(
            ResetForgotten, (STEP, ResetParameters(), STEP), [*STATISTICS], id="a whole reset"
        ),
        pytest.param(
            ResetUncounted, (STEP, ResetRunningStats(), STEP), ["num_batches_tracked"], id="a count"
        ),
        pytest.param(
            MovedInEval, (Eval(), BATCHES[1], Train(), STEP), [*STATISTICS], id="eval mode"
        ),
        pytest.param(
            MomentumForGood, (Set("momentum", 0.9), *BATCHES[:2]), [*STATISTICS], id="momentum"
        ),
    ],
)
def test_what_happens_between_batches_counts(
    kernel: type[Kernel], steps: tuple[Step, ...], wrong: list[str]
) -> None:
    found = final(repeated(*steps), specimen_of(kernel)).discrepancies
    assert [d.observable for d in found] == wrong
    assert {d.step for d in found} == {len(steps) - 1}


def test_nobody_looks_at_the_statistics_before_the_end() -> None:
    case, lazy = repeated(*BATCHES), SPECIMENS["unread-update-dropped"]
    assert not judge(case, play(case, lazy), STATISTICS, lazy.capabilities).discrepancies
    assert [d.observable for d in final(case, lazy).discrepancies] == [
        *STATISTICS,
        "num_batches_tracked",
    ]


class Breaking(Kernel):
    """The third batch raises."""

    def forward(self, x: Array) -> Array:
        if self.batches() == 2:
            raise MemoryError("enough")
        return super().forward(x)


class Flattened(Kernel):
    """Statistics are kept as one row."""

    def state(self) -> State:
        held = super().state()
        return held if self.batches() == 0 else held.map(lambda a: a[None] if a.ndim else a)


class Unreadable(Kernel):
    """Once a batch was seen, there is no state."""

    def state(self) -> State:
        if self.batches():
            raise KeyError("running_mean")
        return super().state()


class Unbuilt(Kernel):
    """It cannot be built."""

    def __init__(self, config: Config, state: State | None) -> None:
        super().__init__(config, state)
        raise TypeError("no such layer")


@pytest.mark.parametrize(
    ("kernel", "step", "wrong"),
    [
        pytest.param(Breaking, 2, ["error"], id="an error"),
        pytest.param(Flattened, 4, [*STATISTICS], id="statistics of another shape"),
        pytest.param(Unreadable, 4, [*STATISTICS, "num_batches_tracked"], id="no state"),
        pytest.param(Unbuilt, -1, ["construction"], id="no layer"),
    ],
)
def test_what_gives_no_statistics_is_told(
    kernel: type[Kernel], step: int, wrong: list[str]
) -> None:
    found = final(repeated(*BATCHES[:5]), specimen_of(kernel)).discrepancies
    assert [(d.observable, d.step) for d in found] == [(name, step) for name in wrong]
