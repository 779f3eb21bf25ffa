"""RUN: running statistics."""

from bn_spec.case.script import Case
from bn_spec.strategies import KEEPING, OFFSETS, shapes, values
from bn_spec.suite.cell import Cell, conforms


@conforms("RUN-01", momentum=(0.1, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25))
def test_running_mean_moves_by_momentum(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean")


@conforms("RUN-02", momentum=(0.1, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25))
def test_running_var_moves_by_momentum(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_var")


@conforms("RUN-03", reaches=("n = 2 or n 3-16",), shape=shapes("tiny"), momentum=(1.0, 0.5))
def test_running_var_takes_the_unbiased_variance(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_var")


@conforms(
    "RUN-04",
    reaches=("momentum None", "2-5 steps"),
    shape=shapes("tiny", "small"),
    momentum=(None,),
    history=("forward",) * 3,
)
def test_momentum_none_keeps_the_cumulative_mean(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")


@conforms("RUN-05", reaches=("momentum 0",), momentum=(0.0,), running=KEEPING)
def test_momentum_zero_keeps_the_running_statistics(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_statistics_kept")


@conforms("RUN-06", reaches=("momentum 1",), momentum=(1.0,), running=KEEPING)
def test_momentum_one_forgets_the_past(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")


@conforms("RUN-07", shape=shapes("tiny"), history=("forward", "forward", "reset", "forward"))
def test_each_training_forward_is_counted_once(cell: Cell, case: Case) -> None:
    cell.judge(case, "num_batches_tracked")


@conforms("RUN-08", parameters=("loud", "signs"), eps=(1.0, 100.0, 1e4))
def test_running_statistics_do_not_depend_on_weight_bias_and_eps(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")


@conforms(
    "RUN-09",
    momentum=(1.0, None, 0.9),
    value=values(families=("gaussian", "constant", "two-valued"), offsets=tuple(reversed(OFFSETS))),
)
def test_running_var_is_never_negative(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_var_sign")


@conforms(
    "RUN-10",
    reaches=("constant channel",),
    momentum=(1.0, 0.5),
    value=values(families=("constant",)),
)
def test_a_constant_channel_has_its_value_and_no_variance(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")


@conforms("RUN-11", shape=shapes("tiny", "small"), history=("forward",) * 3)
def test_each_forward_updates_once(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")
