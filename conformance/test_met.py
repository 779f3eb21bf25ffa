"""MET: laws, in which the reference has no part but for its bounds."""

from bn_spec.case.laws import of_two_values
from bn_spec.case.script import Case
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
from bn_spec.suite.cell import Cell, conforms

SMALL = ("tiny", "different", "small")
SHAPES = shapes(*SMALL)
GENTLE = values(scales=(0, 1, -1, 3), offsets=(0.0, 1.0, -10.0))
WHOLE = values(
    ("ramp", "small integers", "one-hot", BALANCED), scales=(0, 1, 3), offsets=(0.0, 1.0, -10.0)
)
EXPONENTS = values((*FAMILIES, BALANCED), scales=(0, 3, -3, -10), offsets=(0.0, 1.0, -10.0))
AFFINE = tuple(PARAMETERS)
USUAL_EPS = (1e-5, 1e-3, 1.0, 0.1)


@conforms("MET-01", effort=0.5, history=("forward", "samples reversed"), shape=SHAPES, value=GENTLE)
def test_samples_can_be_permuted(cell: Cell, case: Case) -> None:
    cell.judge(case, "samples reversed")


@conforms("MET-02", effort=0.5, history=("forward", "pixels reversed"), shape=SHAPES, value=GENTLE)
def test_pixels_can_be_permuted(cell: Cell, case: Case) -> None:
    cell.judge(case, "pixels reversed")


@conforms(
    "MET-03", effort=0.5, history=("forward", "channels reversed"), shape=SHAPES, value=GENTLE
)
def test_channels_can_be_permuted(cell: Cell, case: Case) -> None:
    cell.judge(case, "channels reversed")


@conforms("MET-04", effort=0.5, history=("forward", "shifted"), shape=SHAPES, value=WHOLE)
def test_a_shift_changes_nothing(cell: Cell, case: Case) -> None:
    cell.judge(case, "shifted")


@conforms(
    "MET-05",
    effort=0.5,
    history=("forward", "scaled"),
    shape=SHAPES,
    value=EXPONENTS,
    eps=USUAL_EPS,
)
def test_a_scale_changes_nothing_if_eps_follows(cell: Cell, case: Case) -> None:
    cell.judge(case, "scaled")


@conforms("MET-06", effort=0.5, history=("forward", "twice over"), shape=SHAPES, value=GENTLE)
def test_a_batch_beside_itself_gives_the_same_twice(cell: Cell, case: Case) -> None:
    cell.judge(case, "twice over")


@conforms(
    "MET-07",
    effort=0.5,
    history=("forward", "unscaled"),
    shape=SHAPES,
    value=GENTLE,
    parameters=("distinct", "equal", "signs", "random"),
)
def test_weight_and_bias_come_last(cell: Cell, case: Case) -> None:
    cell.judge(case, "unscaled")


@conforms(
    "MET-08",
    effort=0.5,
    history=("eval", "forward", "forward of the same shape", "sum"),
    shape=SHAPES,
    value=WHOLE,
    running=KEEPING,
)
def test_eval_is_linear_but_for_a_constant(cell: Cell, case: Case) -> None:
    cell.judge(case, "additive")


@conforms(
    "MET-09",
    effort=0.5,
    history=("eval", "forward", "forward of the same shape", "joined"),
    shape=SHAPES,
    value=GENTLE,
    running=KEEPING,
)
def test_batches_can_be_joined_in_eval(cell: Cell, case: Case) -> None:
    cell.judge(case, "joined")


@conforms("MET-10", effort=0.5, shape=SHAPES, value=GENTLE, parameters=(*AFFINE[:-2], ABSENT))
def test_outputs_are_centred_on_the_bias(cell: Cell, case: Case) -> None:
    cell.judge(case, "centred")


@conforms(
    "MET-11",
    effort=0.5,
    shape=shapes(*SMALL, where=lambda shape: shape[0] * shape[2] * shape[3] % 2 == 0),
    change=of_two_values,
    momentum=(1.0,),
    eps=USUAL_EPS,
)
def test_two_values_are_worked_out_by_hand(cell: Cell, case: Case) -> None:
    cell.judge(case, "two values")


@conforms(
    "MET-12",
    history=("forward", "again"),
    shape=SHAPES,
    value=GENTLE,
    momentum=(0.1, 0.5, 1.0, 0.9, None),
    running=RUNNING_STYLES,
)
def test_the_same_batch_again_moves_statistics_less(cell: Cell, case: Case) -> None:
    cell.judge(case, "contraction")


@conforms(
    "MET-13",
    effort=0.5,
    history=("forward", "twice over"),
    shape=SHAPES,
    value=GENTLE,
    momentum=(1.0,),
)
def test_running_var_follows_the_number_of_values(cell: Cell, case: Case) -> None:
    cell.judge(case, "estimator")
