"""SHP: shapes."""

from bn_spec.case import Case
from bn_spec.cell import Cell, conforms
from bn_spec.strategies import shapes

VALUES = ("output", "running_mean", "running_var")


@conforms("SHP-01", shape=shapes("tiny", "different", "small"))
def test_any_sizes_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms("SHP-02", shape=shapes("spatial edge", "batch edge"))
def test_reductions_around_block_sizes_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms("SHP-03", shape=shapes("channel edge"))
def test_channel_counts_around_block_sizes_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)
