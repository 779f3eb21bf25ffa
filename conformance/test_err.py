"""ERR: misuse."""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.strategies import (
    ABSENT,
    PARAMETERS,
    RUNNING_STYLES,
    histories,
    misused,
    of_single_values,
    of_wrong_channels,
    of_wrong_rank,
    shapes,
)
from bn_spec.suite.cell import Cell, conforms

SHAPES = shapes("tiny", "different")
REFUSED = ("forward of single values", "forward of another rank", "forward of other channels")


@conforms("ERR-01", shape=SHAPES, running=(*RUNNING_STYLES, ABSENT))
def test_a_single_value_per_channel_is_refused(cell: Cell, case: Case) -> None:
    cell.judge(misused(case, of_single_values, in_eval=cell.claims.inference), "refusal")


@conforms("ERR-02", shape=SHAPES, running=(*RUNNING_STYLES, ABSENT))
def test_another_rank_is_refused(cell: Cell, case: Case) -> None:
    cell.judge(misused(case, of_wrong_rank, in_eval=cell.claims.inference), "refusal")


@conforms("ERR-03", shape=SHAPES, parameters=tuple(PARAMETERS), running=(*RUNNING_STYLES, ABSENT))
def test_other_channels_are_refused(cell: Cell, case: Case) -> None:
    cell.judge(misused(case, of_wrong_channels, in_eval=cell.claims.inference), "refusal")


@conforms("ERR-04", shape=SHAPES)
def test_a_refused_input_changes_no_state(cell: Cell, case: Case) -> None:
    cell.judge(misused(case, of_single_values, of_wrong_rank, of_wrong_channels), *STATE_FIELDS)


LOADING = histories(
    "load one too few", "load another size", "load another rank", "load too many", most=3
)
OR_NONE = ("distinct", ABSENT, "random")


@conforms("ERR-05", effort=0.5, shape=SHAPES, history=LOADING, parameters=OR_NONE, running=OR_NONE)
def test_wrong_tensors_are_refused(cell: Cell, case: Case) -> None:
    cell.judge(case, "refusal")


@conforms("ERR-06", effort=0.5, shape=SHAPES, history=LOADING, parameters=OR_NONE, running=OR_NONE)
def test_refused_tensors_change_no_state(cell: Cell, case: Case) -> None:
    cell.judge(case, *STATE_FIELDS)


@conforms("ERR-07", effort=0.5, shape=SHAPES, history=("record", "backward of another shape"))
def test_a_gradient_of_another_shape_is_refused(cell: Cell, case: Case) -> None:
    cell.judge(case, "refusal")


@conforms(
    "ERR-08",
    shape=SHAPES,
    history=histories(*REFUSED, "forward", "eval", most=5, after=("forward",)),
    momentum=(0.1, 1.0, 0.5),
)
def test_a_layer_goes_on_after_what_it_refused(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "running_mean", "running_var")
