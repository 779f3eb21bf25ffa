"""SPV: special values."""

import numpy as np

from bn_spec.case.script import Case
from bn_spec.strategies import KEEPING, shapes, values
from bn_spec.suite.cell import Cell, conforms

SHAPES = shapes("different", "small", "channel edge")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))
BAD = (np.nan, np.inf, -np.inf)
MOVING = (0.1, 1.0, 0.5, None)
SPOILT = ("forward", "spoilt")
OF_DY = ("record", "backward", "backward spoilt")


@conforms("SPV-01", reaches=("not finite",), history=SPOILT, shape=SHAPES, value=PLAIN, special=BAD)
def test_a_channel_that_is_not_finite_stays_alone(cell: Cell, case: Case) -> None:
    cell.judge(case, "elsewhere")


@conforms(
    "SPV-02",
    reaches=("not finite",),
    history=SPOILT,
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
    momentum=MOVING,
)
def test_what_is_not_finite_shows_in_its_channel(cell: Cell, case: Case) -> None:
    cell.judge(case, "special")


@conforms(
    "SPV-03",
    effort=0.5,
    reaches=("not finite",),
    history=SPOILT,
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
    momentum=MOVING,
)
def test_statistics_of_other_channels_are_right(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")


@conforms(
    "SPV-04",
    reaches=("not finite",),
    history=("eval", *SPOILT),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_an_element_that_is_not_finite_stays_alone_in_eval(cell: Cell, case: Case) -> None:
    cell.judge(case, "elsewhere")


@conforms(
    "SPV-05",
    reaches=("not finite",),
    history=("eval", *SPOILT),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_what_is_not_finite_shows_in_its_element_in_eval(cell: Cell, case: Case) -> None:
    cell.judge(case, "special")


@conforms(
    "SPV-06",
    effort=0.5,
    reaches=("not finite",),
    history=(*OF_DY, "eval", *OF_DY),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_a_channel_of_dy_that_is_not_finite_stays_alone(cell: Cell, case: Case) -> None:
    cell.judge(case, "elsewhere")


@conforms(
    "SPV-07",
    effort=0.5,
    reaches=("not finite",),
    history=(*OF_DY, "eval", *OF_DY),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_what_is_not_finite_in_dy_shows_in_its_channel(cell: Cell, case: Case) -> None:
    cell.judge(case, "special")


@conforms(
    "SPV-08",
    effort=0.5,
    history=(*SPOILT, "eval", "spoilt"),
    shape=SHAPES,
    value=PLAIN,
    special=(-0.0,),
    running=KEEPING,
)
def test_a_negative_zero_counts_as_zero(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "running_mean", "running_var")
