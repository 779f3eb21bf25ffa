"""A kernel is judged by its running statistics after many batches."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import (
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Set,
    Step,
    Train,
)
from bn_spec.judge.judging import judge, judge_drift
from bn_spec.judge.verdict import Verdict
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.kernel import Kernel
from tests.drift_cases import (
    STATISTICS,
    STEP,
    X,
    each_dtype,
    repeated,
)

BATCHES = tuple(Forward(X * (1 + i % 3) + (6 if i % 2 else -6)) for i in range(20))
"""Twenty batches; their statistics differ by more than the rounding of any format."""


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
    """A momentum below the roundoff of the buffers is lost when the sum is rounded."""
    case = repeated(*(STEP,) * 500, momentum=0.001, dtype="bfloat16", stored=np.ones((2, 2)))
    after = play(case, SPECIMENS["two-pass-sequential"], ()).answers[-1].after
    assert isinstance(after, State)
    assert after.running_mean is not None
    assert (after.running_mean == 1).all()
    assert not final(case, SPECIMENS["two-pass-sequential"]).discrepancies


class LosesOneOfTwenty(Kernel):
    """A kernel that loses one of twenty updates."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        if self.batches() % 20 == 15:
            self.count()
        else:
            super().track(mean, var, n)


class AppliedTwice(Kernel):
    """A kernel that applies each update twice."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        super().track(mean, var, n)
        self.num_batches_tracked = np.asarray(self.batches() - 1)
        super().track(mean, var, n)


class OneBatchLate(Kernel):
    """A kernel that updates by the batch before the last."""

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
    """A kernel whose reset sets only the counter."""

    def reset_running_stats(self) -> None:
        self.num_batches_tracked = self.built().num_batches_tracked


class ResetUncounted(Kernel):
    """A kernel whose reset does not change the counter."""

    def reset_running_stats(self) -> None:
        counter = self.num_batches_tracked
        super().reset_running_stats()
        self.num_batches_tracked = counter


class MovedInEval(Kernel):
    """A kernel that updates the running statistics in eval mode, without counting."""

    def forward(self, x: Array) -> Array:
        rows = self.rows(x)
        if not self.training:
            self.track(*self.moments(rows), rows.shape[1])
            self.num_batches_tracked = np.asarray(self.batches() - 1)
        return super().forward(x)


class MomentumForGood(Kernel):
    """A kernel that ignores a momentum set after it is built."""

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
def test_a_fault_between_batches_is_found(
    kernel: type[Kernel], steps: tuple[Step, ...], wrong: list[str]
) -> None:
    found = final(repeated(*steps), specimen_of(kernel)).discrepancies
    assert [d.observable for d in found] == wrong
    assert {d.step for d in found} == {len(steps) - 1}


def test_the_statistics_are_not_read_before_the_end() -> None:
    case, lazy = repeated(*BATCHES), SPECIMENS["unread-update-dropped"]
    assert not judge(case, play(case, lazy), STATISTICS, lazy.capabilities).discrepancies
    assert [d.observable for d in final(case, lazy).discrepancies] == [
        *STATISTICS,
        "num_batches_tracked",
    ]


class Breaking(Kernel):
    """A kernel that raises an error on the third batch."""

    def forward(self, x: Array) -> Array:
        if self.batches() == 2:
            raise MemoryError("enough")
        return super().forward(x)


class Flattened(Kernel):
    """A kernel whose statistics have one axis too many."""

    def state(self) -> State:
        stored = super().state()
        return stored if self.batches() == 0 else stored.map(lambda a: a[None] if a.ndim else a)


class Unreadable(Kernel):
    """A kernel whose state cannot be read after the first batch."""

    def state(self) -> State:
        if self.batches():
            raise KeyError("running_mean")
        return super().state()


class Unbuilt(Kernel):
    """A kernel that cannot be built."""

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
def test_a_kernel_without_statistics_at_the_end_is_reported(
    kernel: type[Kernel], step: int, wrong: list[str]
) -> None:
    found = final(repeated(*BATCHES[:5]), specimen_of(kernel)).discrepancies
    assert [(d.observable, d.step) for d in found] == [(name, step) for name in wrong]
