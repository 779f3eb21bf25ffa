"""SHP: shapes.

That a layer is right for all sizes, from empty batches to more than 2³¹ elements. Only SHP-06 needs
a claim, ``empty_batch``. SHP-04 and SHP-05 run in the nightly profile, SHP-07 only when named.
"""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.specification.requirement import TORCH
from bn_spec.strategies import beyond_32_bits, shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

VALUES = ("output", "running_mean", "running_var")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))


@requirement(
    "SHP-01",
    level="core",
    source=TORCH,
    shape=shapes("tiny", "different", "small"),
)
def test_any_sizes_are_right(cell: Cell, case: Case) -> None:
    """output and running statistics are right for all sizes of N, C, H and W, including 1 for any
    of them.
    """
    cell.judge(case, *VALUES)


@requirement(
    "SHP-02",
    level="core",
    source="ROCm/MIOpen#916",
    reaches=("n 257-4096",),
    shape=shapes("spatial edge", "batch edge"),
)
def test_reductions_around_block_sizes_are_right(cell: Cell, case: Case) -> None:
    """output and statistics are right for reductions just below, at and above block sizes."""
    cell.judge(case, *VALUES)


@requirement(
    "SHP-03",
    level="core",
    source="NVIDIA/apex#1768",
    reaches=("C 17-64", ("C 65-256", "C 257-4096")),
    shape=shapes("channel edge"),
)
def test_channel_counts_around_block_sizes_are_right(cell: Cell, case: Case) -> None:
    """output and running statistics are right for channel counts just below, at and above block
    sizes.
    """
    cell.judge(case, *VALUES)


@requirement(
    "SHP-04",
    level="core",
    source=f"{TORCH}; pytorch/pytorch#16998",
    reaches=(("n > 4096", "C > 4096"),),
    deep=True,
    effort=0.1,
    history=("forward", "eval", "forward of the same shape"),
    shape=shapes("beyond 16 bits"),
    value=PLAIN,
)
def test_counts_beyond_sixteen_bits_are_right(cell: Cell, case: Case) -> None:
    """output and running statistics are right for more than 65535 samples or channels."""
    cell.judge(case, *VALUES)


@requirement(
    "SHP-05",
    level="core",
    source="He et al. 2016; Sandler et al. 2018; Tan & Le 2019; Ronneberger et al. 2015;"
    " Huang et al. 2017",
    reaches=(("n 257-4096", "n > 4096"),),
    deep=True,
    effort=0.1,
    shape=shapes("networks"),
    value=PLAIN,
)
def test_layers_of_well_known_networks_are_right(cell: Cell, case: Case) -> None:
    """output and running statistics are right for the layers of well-known networks."""
    cell.judge(case, *VALUES)


@requirement(
    "SHP-06",
    level="module",
    source=f"{TORCH}; pytorch/pytorch#12013",
    needs=("empty_batch",),
    effort=0.5,
    history=("forward", "empty forward", "eval", "empty forward", "forward"),
    shape=shapes("tiny", "different"),
)
def test_nothing_gives_nothing(cell: Cell, case: Case) -> None:
    """a batch without samples or pixels gives an empty output of its shape, and does not move the
    running statistics.
    """
    cell.judge(case, "output_form", "output", *STATE_FIELDS)


@requirement(
    "SHP-07",
    level="core",
    source=f"{TORCH}; apache/mxnet#19065",
    huge=True,
    shape=shapes("beyond 32 bits"),
    change=beyond_32_bits,
    layouts=("contiguous",),
    value=PLAIN,
)
def test_elements_beyond_thirty_two_bits_are_right(cell: Cell, case: Case) -> None:
    """output and running statistics are right for more than 2³¹ elements."""
    cell.judge_in_parts(case, *VALUES)
