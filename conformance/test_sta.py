"""STA: state and histories."""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.case.steps import Eval, Load, ResetParameters, Restore, Save, Train
from bn_spec.strategies import ABSENT, RUNNING_STYLES, histories, shapes, values
from bn_spec.suite.cell import Cell, conforms

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SMALL = shapes("tiny", "different", "small")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))
MOVING = (0.1, 1.0, 0.5, None)
BATCHES = histories(
    "forward", "forward of the same shape", "forward", "eval", "train", "reset", least=2
)


@conforms(
    "STA-01",
    reaches=("Save",),
    effort=0.5,
    shape=SMALL,
    history=("save", "forward", "save"),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_a_checkpoint_is_the_state(cell: Cell, case: Case) -> None:
    cell.judge(case, "checkpoint")


@conforms(
    "STA-02",
    reaches=("Restore",),
    effort=0.5,
    shape=SMALL,
    momentum=MOVING,
    history=("forward", "save", "forward", "restore"),
)
def test_a_checkpoint_brings_the_state_back(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, Restore, *STATE_FIELDS)


@conforms(
    "STA-03",
    reaches=("Restore",),
    effort=0.5,
    shape=SMALL,
    momentum=(None, 0.1, 0.5),
    history=("forward", "save", "restore into a new layer", "forward", "eval", "forward"),
)
def test_a_new_layer_goes_on_from_a_checkpoint(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", *STATE_FIELDS)


@conforms(
    "STA-04",
    reaches=("Restore", "Load"),
    effort=0.5,
    shape=SMALL,
    history=("save", "forward", "load", "restore some", "load what it has of too many"),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_what_is_not_loaded_stays(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, Restore | Load, *STATE_FIELDS)


@conforms(
    "STA-05",
    effort=0.5,
    shape=SMALL,
    momentum=MOVING,
    history=histories(
        *("forward", "restore", "reset all", "reset", "forward"),
        most=5,
        before=["save"],
        after=["forward"],
    ),
)
def test_a_checkpoint_stays_as_it_is(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, Save, "kept")


@conforms(
    "STA-06",
    effort=0.5,
    reaches=("Set", "Backward"),
    shape=SMALL,
    layouts=("contiguous",),
    history=(
        "forward",
        "set eps",
        "record",
        "set eps",
        "backward",
        "eval",
        "forward",
        "set eps",
        "forward",
    ),
)
def test_a_new_eps_counts_from_then_on(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", *GRADIENTS)


@conforms(
    "STA-07",
    effort=0.5,
    reaches=("Set",),
    shape=SMALL,
    history=("forward", "set momentum", "forward", "set momentum", "forward"),
)
def test_a_new_momentum_counts_from_then_on(cell: Cell, case: Case) -> None:
    cell.judge(case, *STATISTICS)


@conforms("STA-08", effort=0.5, shape=SMALL, history=("eval", "train", "forward", "eval", "train"))
def test_a_change_of_mode_changes_no_tensor(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, Train | Eval, *STATE_FIELDS)


@conforms(
    "STA-09",
    effort=2.0,
    reaches=("6-10 steps", "11-20 steps", "Backward", "Restore", "Load", "Set"),
    shape=SMALL,
    history=histories(),
    value=PLAIN,
)
def test_a_step_starts_from_what_the_history_left(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "refusal", *GRADIENTS, *STATE_FIELDS)


@conforms(
    "STA-10",
    effort=0.5,
    reaches=("6-10 steps", "11-20 steps"),
    shape=SMALL,
    history=BATCHES,
    momentum=(0.1, 0.5, 1.0, None, 0.01, 0.9),
    value=PLAIN,
)
def test_running_statistics_do_not_drift(cell: Cell, case: Case) -> None:
    cell.judge_drift(case)


@conforms(
    "STA-11",
    reaches=("Load",),
    effort=0.5,
    shape=SMALL,
    momentum=MOVING,
    history=("load", "forward", "load", "reset all", "forward"),
)
def test_loading_copies(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, Load | ResetParameters, "handed", "kept", *STATE_FIELDS)
