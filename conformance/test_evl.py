"""EVL: eval forward.

What a forward in eval mode returns, and that it changes nothing. All requirements need the claim
``inference``; EVL-06 also needs ``tracking_off``.
"""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.specification.requirement import PAPER, TORCH
from bn_spec.strategies import ABSENT, among, shapes
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

EVAL = ("eval", "forward")


@requirement(
    "EVL-01",
    level="core",
    source=f"{PAPER}, algorithm 2",
    needs=("inference",),
    history=EVAL,
    least=1,
)
def test_output_uses_the_running_statistics(cell: Cell, case: Case) -> None:
    """in eval mode, the output is (x − running_mean) / sqrt(running_var + eps) · weight + bias."""
    cell.judge(case, "output")


@requirement(
    "EVL-02",
    level="core",
    source=f"{PAPER}, section 3.1",
    needs=("inference",),
    history=("eval", "forward", "each sample alone"),
    shape=shapes("tiny", "different", "small"),
    least=1,
)
def test_each_sample_is_independent_of_its_batch(cell: Cell, case: Case) -> None:
    """in eval mode, the output for a sample does not depend on the other samples of the batch."""
    cell.judge(case, "output")


@requirement(
    "EVL-03",
    level="core",
    source=TORCH,
    needs=("inference",),
    history=("eval", "forward", "repeat the step"),
    least=1,
)
def test_the_same_forward_gives_the_same_bits(cell: Cell, case: Case) -> None:
    """repeating an eval forward gives the same bits."""
    cell.judge(case, "repetition")


@requirement(
    "EVL-04",
    level="core",
    source=TORCH,
    needs=("inference",),
    history=EVAL,
    least=1,
)
def test_an_eval_forward_changes_nothing(cell: Cell, case: Case) -> None:
    """an eval forward leaves input, parameters, statistics and counter bitwise unchanged."""
    cell.judge(case, "handed", *STATE_FIELDS)


@requirement(
    "EVL-05",
    level="core",
    source=TORCH,
    needs=("inference",),
    reaches=("n = 1",),
    history=EVAL,
    least=1,
    shape=among([(1, c, 1, 1) for c in (1, 2, 3, 5, 65)]),
)
def test_a_single_value_per_channel_is_allowed(cell: Cell, case: Case) -> None:
    """in eval mode, a single value per channel is accepted."""
    cell.judge(case, "output")


@requirement(
    "EVL-06",
    level="module",
    source=TORCH,
    needs=(
        "tracking_off",
        "inference",
    ),
    history=EVAL,
    running=(ABSENT,),
)
def test_without_tracking_the_batch_is_its_own_statistics(cell: Cell, case: Case) -> None:
    """with track_running_stats=False, the output in eval mode is normalised by the statistics of
    the batch.
    """
    cell.judge(case, "output")


@requirement(
    "EVL-07",
    level="module",
    source=TORCH,
    needs=("inference",),
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
        "reset parameters",
        "forward",
    ),
    shape=shapes("tiny", "small"),
)
def test_modes_follow_the_history(cell: Cell, case: Case) -> None:
    """eval after training uses the running statistics as they are then; training after eval uses
    the statistics of the batch.
    """
    cell.judge(case, "output")
