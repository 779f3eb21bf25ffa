"""MET: laws.

Relations between the answers of a layer to related inputs. The reference contributes the error
bounds only, not the expected values. Most laws of training need the claim ``normalises_by_batch``,
some also ``checkpoints`` or ``live_attributes``; those of eval mode need ``inference``.
"""

from bn_spec.case.laws import of_two_values
from bn_spec.case.script import Case
from bn_spec.specification.requirement import PAPER, TORCH
from bn_spec.strategies import (
    ABSENT,
    BALANCED,
    FAMILIES,
    KEEPING,
    PARAMETERS,
    RUNNING_STYLES,
    shapes,
    values,
)
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

SMALL = ("tiny", "different", "small")
SHAPES = shapes(*SMALL)
GENTLE = values(scales=(0, 1, -1, 3), offsets=(0.0, 1.0, -10.0))
WHOLE = values(
    ("ramp", "small integers", "one-hot", BALANCED), scales=(0, 1, 3), offsets=(0.0, 1.0, -10.0)
)
EXPONENTS = values((*FAMILIES, BALANCED), scales=(0, 3, -3, -10), offsets=(0.0, 1.0, -10.0))
AFFINE = tuple(PARAMETERS)
USUAL_EPS = (1e-5, 1e-3, 1.0, 0.1)


@requirement(
    "MET-01",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("normalises_by_batch",),
    effort=0.5,
    history=("forward", "samples reversed"),
    shape=SHAPES,
    value=GENTLE,
)
def test_samples_can_be_permuted(cell: Cell, case: Case) -> None:
    """if the samples are reordered, the outputs are the same in the new order."""
    cell.judge(case, "samples reversed")


@requirement(
    "MET-02",
    level="training",
    source=f"{PAPER}, section 3.2",
    needs=("normalises_by_batch",),
    effort=0.5,
    history=("forward", "pixels reversed"),
    shape=SHAPES,
    value=GENTLE,
)
def test_pixels_can_be_permuted(cell: Cell, case: Case) -> None:
    """if the pixels are reordered, the outputs are the same in the new order."""
    cell.judge(case, "pixels reversed")


@requirement(
    "MET-03",
    level="training",
    source=f"{PAPER}, section 3.2",
    needs=(
        "checkpoints",
        "normalises_by_batch",
    ),
    effort=0.5,
    history=("forward", "channels reversed"),
    shape=SHAPES,
    value=GENTLE,
)
def test_channels_can_be_permuted(cell: Cell, case: Case) -> None:
    """if the channels and their parameters are reordered, the outputs are the same in the new
    order.
    """
    cell.judge(case, "channels reversed")


@requirement(
    "MET-04",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("normalises_by_batch",),
    effort=0.5,
    history=("forward", "shifted"),
    shape=SHAPES,
    value=WHOLE,
)
def test_a_shift_changes_nothing(cell: Cell, case: Case) -> None:
    """shifting the input leaves the training output unchanged."""
    cell.judge(case, "shifted")


@requirement(
    "MET-05",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=(
        "live_attributes",
        "normalises_by_batch",
    ),
    effort=0.5,
    history=("forward", "scaled"),
    shape=SHAPES,
    value=EXPONENTS,
    eps=USUAL_EPS,
)
def test_a_scale_changes_nothing_if_eps_follows(cell: Cell, case: Case) -> None:
    """scaling the input by k, and eps by k², leaves the training output unchanged."""
    cell.judge(case, "scaled")


@requirement(
    "MET-06",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("normalises_by_batch",),
    effort=0.5,
    history=("forward", "twice over"),
    shape=SHAPES,
    value=GENTLE,
)
def test_a_batch_beside_itself_gives_the_same_twice(cell: Cell, case: Case) -> None:
    """a batch joined with a copy of itself gives its training output twice."""
    cell.judge(case, "twice over")


@requirement(
    "MET-07",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=(
        "checkpoints",
        "normalises_by_batch",
    ),
    effort=0.5,
    history=("forward", "same input without weight and bias"),
    shape=SHAPES,
    value=GENTLE,
    parameters=("distinct", "equal", "signs", "random"),
)
def test_weight_and_bias_come_last(cell: Cell, case: Case) -> None:
    """weight and bias scale and shift the output that the layer gives with weight 1 and bias 0."""
    cell.judge(case, "unscaled")


@requirement(
    "MET-08",
    level="core",
    source=f"{PAPER}, algorithm 2",
    needs=("inference",),
    effort=0.5,
    history=("eval", "forward", "forward of the same shape", "sum of the inputs"),
    shape=SHAPES,
    value=WHOLE,
    running=KEEPING,
)
def test_eval_is_linear_but_for_a_constant(cell: Cell, case: Case) -> None:
    """in eval mode, the output is linear in the input, apart from a constant."""
    cell.judge(case, "additive")


@requirement(
    "MET-09",
    level="core",
    source=f"{PAPER}, algorithm 2",
    needs=("inference",),
    effort=0.5,
    history=("eval", "forward", "forward of the same shape", "inputs joined"),
    shape=SHAPES,
    value=GENTLE,
    running=KEEPING,
)
def test_batches_can_be_joined_in_eval(cell: Cell, case: Case) -> None:
    """in eval mode, two batches joined into one give the same outputs as each batch alone."""
    cell.judge(case, "joined")


@requirement(
    "MET-10",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("normalises_by_batch",),
    effort=0.5,
    shape=SHAPES,
    value=GENTLE,
    parameters=(*AFFINE[:-2], ABSENT),
)
def test_outputs_are_centred_on_the_bias(cell: Cell, case: Case) -> None:
    """the mean of the training output over a channel is the channel's bias."""
    cell.judge(case, "centred")


@requirement(
    "MET-11",
    level="training",
    source=f"{PAPER}, algorithms 1 and 2",
    effort=0.5,
    shape=shapes(*SMALL, where=lambda shape: shape[0] * shape[2] * shape[3] % 2 == 0),
    change=of_two_values,
    momentum=(1.0,),
    eps=USUAL_EPS,
)
def test_two_values_are_worked_out_by_hand(cell: Cell, case: Case) -> None:
    """channels of two values, each equally often, have the outputs and statistics that can be
    worked out by hand.
    """
    cell.judge(case, "two values")


@requirement(
    "MET-12",
    level="training",
    source=TORCH,
    history=("forward", "repeat the step"),
    shape=SHAPES,
    value=GENTLE,
    momentum=(0.1, 0.5, 1.0, 0.9, None),
    running=RUNNING_STYLES,
)
def test_the_same_batch_again_moves_statistics_less(cell: Cell, case: Case) -> None:
    """a repeated batch moves the running statistics less, by the factor that momentum or the
    counter determines.
    """
    cell.judge(case, "contraction")


@requirement(
    "MET-13",
    level="training",
    source=f"{PAPER}, algorithm 2",
    convention="running_var",
    effort=0.5,
    history=("forward", "twice over"),
    shape=SHAPES,
    value=GENTLE,
    momentum=(1.0,),
)
def test_running_var_follows_the_number_of_values(cell: Cell, case: Case) -> None:
    """a batch joined with a copy of itself has the same mean, and its variance in running_var
    shrinks as n / (n − 1) does.
    """
    cell.judge(case, "estimator")
