"""RUN: running statistics.

How training forwards update running_mean, running_var and num_batches_tracked. RUN-04 needs the
claim ``cumulative_momentum`` and RUN-05 ``momentum_zero``; all others are judged for every backend.
"""

from bn_spec.case.script import Case
from bn_spec.specification.requirement import PAPER, TORCH
from bn_spec.strategies import KEEPING, OFFSETS, shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement


@requirement(
    "RUN-01",
    level="training",
    source=TORCH,
    convention="momentum_weighs",
    momentum=(0.1, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25),
)
def test_running_mean_moves_by_momentum(cell: Cell, case: Case) -> None:
    """running_mean becomes (1 − momentum) · running_mean + momentum · mean of the batch."""
    cell.judge(case, "running_mean")


@requirement(
    "RUN-02",
    level="training",
    source=TORCH,
    momentum=(0.1, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25),
)
def test_running_var_moves_by_momentum(cell: Cell, case: Case) -> None:
    """running_var becomes (1 − momentum) · running_var + momentum · variance of the batch."""
    cell.judge(case, "running_var")


@requirement(
    "RUN-03",
    level="training",
    source=f"{TORCH}; {PAPER}, section 3.1",
    convention="running_var",
    reaches=(("n = 2", "n 3-16"),),
    shape=shapes("tiny"),
    momentum=(1.0, 0.5),
)
def test_running_var_takes_the_unbiased_variance(cell: Cell, case: Case) -> None:
    """running_var is updated with the unbiased variance of the batch."""
    cell.judge(case, "running_var")


@requirement(
    "RUN-04",
    level="training",
    source=TORCH,
    needs=("cumulative_momentum",),
    reaches=("momentum None", "2-5 steps"),
    shape=shapes("tiny", "small"),
    momentum=(None,),
    history=("forward",) * 3,
)
def test_momentum_none_keeps_the_cumulative_mean(cell: Cell, case: Case) -> None:
    """with momentum None, the running statistics are the cumulative mean over all batches, whatever
    their sizes.
    """
    cell.judge(case, "running_mean", "running_var")


@requirement(
    "RUN-05",
    level="training",
    source=TORCH,
    needs=("momentum_zero",),
    reaches=("momentum 0",),
    momentum=(0.0,),
    running=KEEPING,
)
def test_momentum_zero_keeps_the_running_statistics(cell: Cell, case: Case) -> None:
    """with momentum 0, the running statistics stay bitwise unchanged."""
    cell.judge(case, "running_statistics_kept")


@requirement(
    "RUN-06",
    level="training",
    source=TORCH,
    reaches=("momentum 1",),
    momentum=(1.0,),
    running=KEEPING,
)
def test_momentum_one_forgets_the_past(cell: Cell, case: Case) -> None:
    """with momentum 1, the running statistics are those of the last batch."""
    cell.judge(case, "running_mean", "running_var")


@requirement(
    "RUN-07",
    level="module",
    source=TORCH,
    shape=shapes("tiny"),
    history=("forward", "forward", "reset running statistics", "forward"),
)
def test_each_training_forward_is_counted_once(cell: Cell, case: Case) -> None:
    """each training forward increments num_batches_tracked by one."""
    cell.judge(case, "num_batches_tracked")


@requirement(
    "RUN-08",
    level="training",
    source=f"{PAPER}, algorithm 2",
    parameters=("loud", "signs"),
    eps=(1.0, 100.0, 1e4),
)
def test_running_statistics_do_not_depend_on_weight_bias_and_eps(cell: Cell, case: Case) -> None:
    """the running statistics do not depend on weight, bias or eps."""
    cell.judge(case, "running_mean", "running_var")


@requirement(
    "RUN-09",
    level="training",
    source=f"{PAPER}, algorithm 2",
    momentum=(1.0, None, 0.9),
    value=values(families=("gaussian", "constant", "two-valued"), offsets=tuple(reversed(OFFSETS))),
)
def test_running_var_is_never_negative(cell: Cell, case: Case) -> None:
    """running_var never becomes negative."""
    cell.judge(case, "running_var_sign")


@requirement(
    "RUN-10",
    level="training",
    source=f"{PAPER}, algorithm 1",
    reaches=("constant channel",),
    momentum=(1.0, 0.5),
    value=values(families=("constant",)),
)
def test_a_constant_channel_has_its_value_and_no_variance(cell: Cell, case: Case) -> None:
    """a channel of equal values has this value as its mean, and variance 0."""
    cell.judge(case, "running_mean", "running_var")


@requirement(
    "RUN-11",
    level="training",
    source=TORCH,
    shape=shapes("tiny", "small"),
    history=("forward",) * 3,
)
def test_each_forward_updates_once(cell: Cell, case: Case) -> None:
    """each training forward of a series updates the running statistics once, with its own batch."""
    cell.judge(case, "running_mean", "running_var")
