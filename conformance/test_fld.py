"""FLD: folding into a convolution.

What becomes of weight and bias of a convolution when a layer in eval mode is folded into it. The
requirements need the claims ``folding`` and ``inference``.
"""

from bn_spec.case.script import Case
from bn_spec.specification.requirement import PAPER
from bn_spec.strategies import KEEPING, shapes
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement


@requirement(
    "FLD-01",
    level="module",
    source=f"{PAPER}, algorithm 2; pytorch/pytorch#45474",
    needs=(
        "folding",
        "inference",
    ),
    reaches=("Fold",),
    effort=0.5,
    history=("eval", "fold"),
    shape=shapes("tiny", "channel edge"),
    running=KEEPING,
)
def test_the_weight_of_the_convolution_is_scaled(cell: Cell, case: Case) -> None:
    """folding scales the convolution's weight by weight / sqrt(running_var + eps), in the
    convolution's dtype.
    """
    cell.judge(case, "folded_weight", "folded_form")


@requirement(
    "FLD-02",
    level="module",
    source=f"{PAPER}, algorithm 2; apache/tvm#3216",
    needs=(
        "folding",
        "inference",
    ),
    reaches=("Fold",),
    effort=0.5,
    history=("eval", "fold"),
    shape=shapes("tiny", "channel edge"),
    running=KEEPING,
)
def test_the_bias_of_the_convolution_is_normalised(cell: Cell, case: Case) -> None:
    """folding maps the convolution's bias as the layer maps an input."""
    cell.judge(case, "folded_bias", "folded_form")
