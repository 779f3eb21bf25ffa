"""SHP: shapes."""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.strategies import beyond_32_bits, shapes, values
from bn_spec.suite.cell import Cell, conforms

VALUES = ("output", "running_mean", "running_var")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))


@conforms("SHP-01", shape=shapes("tiny", "different", "small"))
def test_any_sizes_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms("SHP-02", reaches=("n 257-4096",), shape=shapes("spatial edge", "batch edge"))
def test_reductions_around_block_sizes_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms("SHP-03", reaches=("C 17-64", "C 65-256 or C 257-4096"), shape=shapes("channel edge"))
def test_channel_counts_around_block_sizes_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "SHP-04",
    reaches=("n > 4096 or C > 4096",),
    deep=True,
    effort=0.1,
    history=("forward", "eval", "forward of the same shape"),
    shape=shapes("beyond 16 bits"),
    value=PLAIN,
)
def test_counts_beyond_sixteen_bits_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "SHP-05",
    reaches=("n 257-4096 or n > 4096",),
    deep=True,
    effort=0.1,
    shape=shapes("networks"),
    value=PLAIN,
)
def test_layers_of_well_known_networks_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "SHP-06",
    effort=0.5,
    history=("forward", "forward of nothing", "eval", "forward of nothing", "forward"),
    shape=shapes("tiny", "different"),
)
def test_nothing_gives_nothing(cell: Cell, case: Case) -> None:
    cell.judge(case, "output_form", "output", *STATE_FIELDS)


@conforms(
    "SHP-07",
    huge=True,
    shape=shapes("beyond 32 bits"),
    change=beyond_32_bits,
    layouts=("contiguous",),
    value=PLAIN,
)
def test_elements_beyond_thirty_two_bits_are_right(cell: Cell, case: Case) -> None:
    cell.judge_in_parts(case, *VALUES)
