"""DET: determinism and threads.

Whether a case gives the same bits every time, and whether layers in several threads disturb each
other. The requirements need the claims ``deterministic`` and ``threads``.
"""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.strategies import shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))
HISTORY = ("forward", "forward with gradients", "backward", "eval", "forward")


@requirement(
    "DET-01",
    level="core",
    source="torch.use_deterministic_algorithms",
    needs=("deterministic",),
    reaches=("Backward",),
    effort=0.5,
    history=HISTORY,
    shape=shapes("small", "spatial edge", "channel edge", "long"),
)
def test_the_same_case_gives_the_same_bits(cell: Cell, case: Case) -> None:
    """the same case gives the same bits each time, also on another layer."""
    cell.judge_repetition(case)


@requirement(
    "DET-02",
    level="core",
    source="torch.nn.parallel",
    needs=("threads",),
    effort=0.2,
    history=HISTORY,
    shape=shapes("small", "long"),
    layouts=("contiguous",),
    value=PLAIN,
)
def test_threads_do_not_disturb_each_other(cell: Cell, case: Case) -> None:
    """layers that run in several threads at the same time give the same results as each layer
    alone.
    """
    cell.judge_threads(case, "output", *GRADIENTS, *STATE_FIELDS)
