"""EVL: eval forward."""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.strategies import ABSENT, among, shapes
from bn_spec.suite.cell import Cell, conforms

EVAL = ("eval", "forward")


@conforms("EVL-01", history=EVAL, least=1)
def test_output_uses_the_running_statistics(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms(
    "EVL-02",
    history=("eval", "forward", "alone"),
    shape=shapes("tiny", "different", "small"),
    least=1,
)
def test_each_sample_is_independent_of_its_batch(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms("EVL-03", history=("eval", "forward", "again"), least=1)
def test_the_same_forward_gives_the_same_bits(cell: Cell, case: Case) -> None:
    cell.judge(case, "repetition")


@conforms("EVL-04", history=EVAL, least=1)
def test_an_eval_forward_changes_nothing(cell: Cell, case: Case) -> None:
    cell.judge(case, "handed", *STATE_FIELDS)


@conforms(
    "EVL-05",
    reaches=("n = 1",),
    history=EVAL,
    least=1,
    shape=among([(1, c, 1, 1) for c in (1, 2, 3, 5, 65)]),
)
def test_a_single_value_per_channel_is_allowed(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms("EVL-06", history=EVAL, running=(ABSENT,))
def test_without_tracking_the_batch_is_its_own_statistics(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms(
    "EVL-07",
    effort=0.5,
    reaches=("Eval", "Train"),
    history=(
        "forward",
        "eval",
        "forward",
        "train",
        "forward",
        "eval",
        "forward",
        "reset all",
        "forward",
    ),
    shape=shapes("tiny", "small"),
)
def test_modes_follow_the_history(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")
