"""FLD: folding into a convolution."""

from bn_spec.case.script import Case
from bn_spec.strategies import KEEPING, shapes
from bn_spec.suite.cell import Cell, conforms


@conforms(
    "FLD-01",
    reaches=("Fold",),
    effort=0.5,
    history=("eval", "fold"),
    shape=shapes("tiny", "channel edge"),
    running=KEEPING,
)
def test_the_weight_of_the_convolution_is_scaled(cell: Cell, case: Case) -> None:
    cell.judge(case, "folded_weight", "folded_form")


@conforms(
    "FLD-02",
    reaches=("Fold",),
    effort=0.5,
    history=("eval", "fold"),
    shape=shapes("tiny", "channel edge"),
    running=KEEPING,
)
def test_the_bias_of_the_convolution_is_normalised(cell: Cell, case: Case) -> None:
    cell.judge(case, "folded_bias", "folded_form")
