"""ERR: misuse.

Which inputs, states and gradients a layer refuses, with which errors, and that a refusal changes
nothing. The requirements need the claims ``refuses_single_values``, ``input_checks`` (about inputs
and gradients), ``checkpoints`` (about loading) and ``gradients``.
"""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.specification.requirement import TORCH
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
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

SHAPES = shapes("tiny", "different")
REFUSED = ("forward of single values", "forward of another rank", "forward of other channels")


@requirement(
    "ERR-01",
    level="module",
    source=f"{TORCH}; pytorch/pytorch#1381",
    needs=("refuses_single_values",),
    shape=SHAPES,
    running=(*RUNNING_STYLES, ABSENT),
)
def test_a_single_value_per_channel_is_refused(cell: Cell, case: Case) -> None:
    """batch statistics of a single value per channel are refused with a ValueError, also in eval
    mode.
    """
    cell.judge(misused(case, of_single_values, in_eval=cell.claims.inference), "refusal")


@requirement(
    "ERR-02",
    level="module",
    source=TORCH,
    needs=("input_checks",),
    shape=SHAPES,
    running=(*RUNNING_STYLES, ABSENT),
)
def test_another_rank_is_refused(cell: Cell, case: Case) -> None:
    """an input that is not 4-dimensional is refused with a ValueError."""
    cell.judge(misused(case, of_wrong_rank, in_eval=cell.claims.inference), "refusal")


@requirement(
    "ERR-03",
    level="module",
    source=TORCH,
    needs=("input_checks",),
    shape=SHAPES,
    parameters=tuple(PARAMETERS),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_other_channels_are_refused(cell: Cell, case: Case) -> None:
    """an input whose number of channels does not fit the layer's tensors is refused with a
    ValueError or RuntimeError.
    """
    cell.judge(misused(case, of_wrong_channels, in_eval=cell.claims.inference), "refusal")


@requirement(
    "ERR-04",
    level="module",
    source=TORCH,
    needs=("input_checks",),
    shape=SHAPES,
)
def test_a_refused_input_changes_no_state(cell: Cell, case: Case) -> None:
    """a refused input leaves every tensor of the state bitwise unchanged."""
    cell.judge(misused(case, of_single_values, of_wrong_rank, of_wrong_channels), *STATE_FIELDS)


LOADING = histories(
    "load without one tensor",
    "load another size",
    "load another rank",
    "load unknown tensors",
    most=3,
)
OR_NONE = ("distinct", ABSENT, "random")


@requirement(
    "ERR-05",
    level="module",
    source="torch.nn.Module.load_state_dict",
    needs=("checkpoints",),
    effort=0.5,
    shape=SHAPES,
    history=LOADING,
    parameters=OR_NONE,
    running=OR_NONE,
)
def test_wrong_tensors_are_refused(cell: Cell, case: Case) -> None:
    """loading a state with missing tensors, unknown tensors or tensors of another shape is refused
    with an error.
    """
    cell.judge(case, "refusal")


@requirement(
    "ERR-06",
    level="module",
    source="torch.nn.Module.load_state_dict",
    needs=("checkpoints",),
    effort=0.5,
    shape=SHAPES,
    history=LOADING,
    parameters=OR_NONE,
    running=OR_NONE,
)
def test_refused_tensors_change_no_state(cell: Cell, case: Case) -> None:
    """a refused loading leaves every tensor of the state bitwise unchanged."""
    cell.judge(case, *STATE_FIELDS)


@requirement(
    "ERR-07",
    level="gradients",
    source="torch.autograd.grad",
    needs=(
        "gradients",
        "input_checks",
    ),
    effort=0.5,
    shape=SHAPES,
    history=("forward with gradients", "backward of another shape"),
)
def test_a_gradient_of_another_shape_is_refused(cell: Cell, case: Case) -> None:
    """a gradient whose shape differs from that of the output is refused with a ValueError or
    RuntimeError.
    """
    cell.judge(case, "refusal")


@requirement(
    "ERR-08",
    level="module",
    source=TORCH,
    needs=("input_checks",),
    shape=SHAPES,
    history=histories(*REFUSED, "forward", "eval", most=5, after=("forward",)),
    momentum=(0.1, 1.0, 0.5),
)
def test_a_layer_goes_on_after_what_it_refused(cell: Cell, case: Case) -> None:
    """after a refusal, a layer behaves like any other layer in the same state."""
    cell.judge(case, "output", "running_mean", "running_var")
