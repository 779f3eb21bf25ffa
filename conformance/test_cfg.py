"""CFG: construction.

What a new layer stores, what the default arguments are, and what resets restore. CFG-05 needs the
claim ``affine_off`` and CFG-06 the claim ``tracking_off``; all others are judged for every backend.
"""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.case.steps import ResetParameters, ResetRunningStats
from bn_spec.specification.requirement import TORCH
from bn_spec.strategies import ABSENT, PARAMETERS, RUNNING_STYLES, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

AFFINE = tuple(PARAMETERS)


@requirement(
    "CFG-01",
    level="core",
    source=TORCH,
    effort=0.3,
    built=True,
    history=(),
    parameters=AFFINE,
)
def test_weight_is_built_as_ones(cell: Cell, case: Case) -> None:
    """weight is initialised with ones, of shape (C,) and in the layer's dtype."""
    cell.judge_construction(case, "weight")


@requirement(
    "CFG-02",
    level="core",
    source=TORCH,
    effort=0.3,
    built=True,
    history=(),
    parameters=AFFINE,
)
def test_bias_is_built_as_zeros(cell: Cell, case: Case) -> None:
    """bias is initialised with zeros, of shape (C,) and in the layer's dtype."""
    cell.judge_construction(case, "bias")


@requirement(
    "CFG-03",
    level="core",
    source=TORCH,
    effort=0.3,
    built=True,
    history=(),
)
def test_running_statistics_are_built_as_zeros_and_ones(cell: Cell, case: Case) -> None:
    """running_mean is initialised with zeros and running_var with ones, both of shape (C,) and in
    the layer's dtype.
    """
    cell.judge_construction(case, "running_mean", "running_var")


@requirement(
    "CFG-04",
    level="module",
    source=TORCH,
    effort=0.3,
    built=True,
    history=(),
)
def test_the_counter_is_built_as_an_integer_zero(cell: Cell, case: Case) -> None:
    """num_batches_tracked is initialised with the int64 scalar 0."""
    cell.judge_construction(case, "num_batches_tracked")


@requirement(
    "CFG-05",
    level="core",
    source=TORCH,
    needs=("affine_off",),
    effort=0.3,
    built=True,
    history=(),
    parameters=(ABSENT,),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_without_affine_there_are_no_parameters(cell: Cell, case: Case) -> None:
    """with affine=False, the layer has no weight and no bias."""
    cell.judge_construction(case, "weight", "bias")


@requirement(
    "CFG-06",
    level="core",
    source=TORCH,
    needs=("tracking_off",),
    effort=0.3,
    built=True,
    history=(),
    running=(ABSENT,),
)
def test_without_tracking_there_are_no_running_statistics(cell: Cell, case: Case) -> None:
    """with track_running_stats=False, the layer has no running statistics and no counter."""
    cell.judge_construction(case, "running_mean", "running_var", "num_batches_tracked")


@requirement(
    "CFG-07",
    level="module",
    source=TORCH,
    built=True,
    eps=(1e-5,),
    momentum=(0.1,),
    parameters=("identity",),
    running=("initial",),
    value=values(scales=(0, -3, -10), offsets=(0.0, 1.0)),
)
def test_defaults_are_those_of_the_documentation(cell: Cell, case: Case) -> None:
    """by default, eps is 1e-5, momentum is 0.1, and the layer is affine and tracks running
    statistics.
    """
    cell.judge(case, "output", "running_mean", "running_var")


@requirement(
    "CFG-08",
    level="module",
    source=TORCH,
    effort=0.3,
    history=(),
)
def test_a_given_state_is_held(cell: Cell, case: Case) -> None:
    """a layer that is built with an initial state has that state."""
    cell.judge_construction(case, *STATE_FIELDS)


@requirement(
    "CFG-09",
    level="module",
    source=TORCH,
    effort=0.3,
    history=("forward", "reset running statistics"),
)
def test_reset_running_stats_resets_the_statistics_alone(cell: Cell, case: Case) -> None:
    """reset_running_stats sets running_mean to 0, running_var to 1 and num_batches_tracked to 0,
    and changes nothing else.
    """
    cell.judge_steps(case, ResetRunningStats, *STATE_FIELDS)


@requirement(
    "CFG-10",
    level="module",
    source=TORCH,
    effort=0.3,
    history=("forward", "reset parameters"),
)
def test_reset_parameters_resets_everything(cell: Cell, case: Case) -> None:
    """reset_parameters sets weight to 1 and bias to 0, and resets the running statistics."""
    cell.judge_steps(case, ResetParameters, *STATE_FIELDS)
