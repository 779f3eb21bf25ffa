"""ERR: misuse."""

from bn_spec.case import Case
from bn_spec.cell import Cell, conforms
from bn_spec.config import STATE_FIELDS
from bn_spec.strategies import (
    ABSENT,
    PARAMETERS,
    RUNNING_STYLES,
    misused,
    of_single_values,
    of_wrong_channels,
    of_wrong_rank,
    shapes,
)

SHAPES = shapes("tiny", "different")


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
