"""DET: determinism and threads."""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.strategies import shapes, values
from bn_spec.suite.cell import Cell, conforms

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))
HISTORY = ("forward", "record", "backward", "eval", "forward")


@conforms(
    "DET-01",
    reaches=("Backward",),
    effort=0.5,
    history=HISTORY,
    shape=shapes("small", "spatial edge", "channel edge", "long"),
)
def test_the_same_case_gives_the_same_bits(cell: Cell, case: Case) -> None:
    cell.judge_repetition(case)


@conforms(
    "DET-02",
    effort=0.2,
    history=HISTORY,
    shape=shapes("small", "long"),
    layouts=("contiguous",),
    value=PLAIN,
)
def test_threads_do_not_disturb_each_other(cell: Cell, case: Case) -> None:
    cell.judge_threads(case, "output", *GRADIENTS, *STATE_FIELDS)
