"""CFG: construction."""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.case.steps import ResetParameters, ResetRunningStats
from bn_spec.strategies import ABSENT, PARAMETERS, RUNNING_STYLES, values
from bn_spec.suite.cell import Cell, conforms

AFFINE = tuple(PARAMETERS)


@conforms("CFG-01", effort=0.3, built=True, history=(), parameters=AFFINE)
def test_weight_is_built_as_ones(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, "weight")


@conforms("CFG-02", effort=0.3, built=True, history=(), parameters=AFFINE)
def test_bias_is_built_as_zeros(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, "bias")


@conforms("CFG-03", effort=0.3, built=True, history=())
def test_running_statistics_are_built_as_zeros_and_ones(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, "running_mean", "running_var")


@conforms("CFG-04", effort=0.3, built=True, history=())
def test_the_counter_is_built_as_an_integer_zero(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, "num_batches_tracked")


@conforms(
    "CFG-05",
    effort=0.3,
    built=True,
    history=(),
    parameters=(ABSENT,),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_without_affine_there_are_no_parameters(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, "weight", "bias")


@conforms("CFG-06", effort=0.3, built=True, history=(), running=(ABSENT,))
def test_without_tracking_there_are_no_running_statistics(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, "running_mean", "running_var", "num_batches_tracked")


@conforms(
    "CFG-07",
    built=True,
    eps=(1e-5,),
    momentum=(0.1,),
    parameters=("identity",),
    running=("initial",),
    value=values(scales=(0, -3, -10), offsets=(0.0, 1.0)),
)
def test_defaults_are_those_of_the_documentation(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "running_mean", "running_var")


@conforms("CFG-08", effort=0.3, history=())
def test_a_given_state_is_held(cell: Cell, case: Case) -> None:
    cell.judge_construction(case, *STATE_FIELDS)


@conforms("CFG-09", effort=0.3, history=("forward", "reset"))
def test_reset_running_stats_resets_the_statistics_alone(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, ResetRunningStats, *STATE_FIELDS)


@conforms("CFG-10", effort=0.3, history=("forward", "reset all"))
def test_reset_parameters_resets_everything(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, ResetParameters, *STATE_FIELDS)
