"""SPV: special values.

What NaN, infinities and negative zeros in an input or a gradient change, and what they leave alone.
Bitwise requirements need the claim ``deterministic``, those about eval mode ``inference``, and
those about gradients ``gradients``.
"""

import numpy as np

from bn_spec.case.script import Case
from bn_spec.specification.requirement import PAPER
from bn_spec.strategies import KEEPING, shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

SHAPES = shapes("different", "small", "channel edge")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))
BAD = (np.nan, np.inf, -np.inf)
MOVING = (0.1, 1.0, 0.5, None)
SPOILT = ("forward", "non-finite element")
OF_DY = ("forward with gradients", "backward", "backward with non-finite element")


@requirement(
    "SPV-01",
    level="training",
    source=f"{PAPER}, section 3.2",
    needs=(
        "deterministic",
        "normalises_by_batch",
    ),
    reaches=("not finite",),
    history=SPOILT,
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_a_channel_that_is_not_finite_stays_alone(cell: Cell, case: Case) -> None:
    """NaN or infinity in one channel leaves the training output of the other channels bitwise
    unchanged.
    """
    cell.judge(case, "elsewhere")


@requirement(
    "SPV-02",
    level="training",
    source=f"{PAPER}, algorithm 1; pytorch/pytorch#115500",
    reaches=("not finite",),
    history=SPOILT,
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
    momentum=MOVING,
)
def test_what_is_not_finite_shows_in_its_channel(cell: Cell, case: Case) -> None:
    """NaN in a channel makes its training output and running statistics NaN; infinity makes them
    not finite.
    """
    cell.judge(case, "special")


@requirement(
    "SPV-03",
    level="training",
    source=f"{PAPER}, section 3.2",
    effort=0.5,
    reaches=("not finite",),
    history=SPOILT,
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
    momentum=MOVING,
)
def test_statistics_of_other_channels_are_right(cell: Cell, case: Case) -> None:
    """with NaN or infinity in one channel, the running statistics of the others are right."""
    cell.judge(case, "running_mean", "running_var")


@requirement(
    "SPV-04",
    level="core",
    source=f"{PAPER}, algorithm 2",
    needs=(
        "deterministic",
        "inference",
    ),
    reaches=("not finite",),
    history=("eval", *SPOILT),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_an_element_that_is_not_finite_stays_alone_in_eval(cell: Cell, case: Case) -> None:
    """in eval mode, NaN or infinity in one element leaves all other elements bitwise unchanged."""
    cell.judge(case, "elsewhere")


@requirement(
    "SPV-05",
    level="core",
    source=f"{PAPER}, algorithm 2",
    needs=("inference",),
    reaches=("not finite",),
    history=("eval", *SPOILT),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_what_is_not_finite_shows_in_its_element_in_eval(cell: Cell, case: Case) -> None:
    """in eval mode, NaN gives NaN, and infinity gives a value that is not finite."""
    cell.judge(case, "special")


@requirement(
    "SPV-06",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=(
        "gradients",
        "deterministic",
    ),
    effort=0.5,
    reaches=("not finite",),
    history=(*OF_DY, "eval", *OF_DY),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_a_channel_of_dy_that_is_not_finite_stays_alone(cell: Cell, case: Case) -> None:
    """NaN or infinity in dy leaves the gradients of other channels, and in eval mode of other
    elements, bitwise unchanged.
    """
    cell.judge(case, "elsewhere")


@requirement(
    "SPV-07",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    effort=0.5,
    reaches=("not finite",),
    history=(*OF_DY, "eval", *OF_DY),
    shape=SHAPES,
    value=PLAIN,
    special=BAD,
)
def test_what_is_not_finite_in_dy_shows_in_its_channel(cell: Cell, case: Case) -> None:
    """NaN in dy makes the gradients of its channel NaN, or in eval mode its element of dx; infinity
    makes them not finite.
    """
    cell.judge(case, "special")


@requirement(
    "SPV-08",
    level="core",
    source="IEEE 754-2019",
    needs=("inference",),
    effort=0.5,
    history=(*SPOILT, "eval", "non-finite element"),
    shape=SHAPES,
    value=PLAIN,
    special=(-0.0,),
    running=KEEPING,
)
def test_a_negative_zero_counts_as_zero(cell: Cell, case: Case) -> None:
    """a negative zero counts as zero, in training and in eval mode."""
    cell.judge(case, "output", "running_mean", "running_var")
