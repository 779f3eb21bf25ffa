"""STA: state and histories.

What checkpoints, loading, new attributes and changes of mode do, and that no history leads a layer
astray. Requirements about checkpoints need the claim ``checkpoints``, those about new values of eps
and momentum ``live_attributes``.
"""

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.case.steps import Eval, Load, ResetParameters, Restore, Save, Train
from bn_spec.specification.requirement import BOUNDS, TORCH
from bn_spec.strategies import ABSENT, RUNNING_STYLES, histories, shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SMALL = shapes("tiny", "different", "small")
PLAIN = values(scales=(0, 3, -3), offsets=(0.0, 1.0, -10.0))
MOVING = (0.1, 1.0, 0.5, None)
BATCHES = histories(
    "forward",
    "forward of the same shape",
    "forward",
    "eval",
    "train",
    "reset running statistics",
    least=2,
)


@requirement(
    "STA-01",
    level="module",
    source=f"{TORCH}; mapillary/inplace_abn#130",
    needs=("checkpoints",),
    reaches=("Save",),
    effort=0.5,
    shape=SMALL,
    history=("save", "forward", "save"),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_a_checkpoint_is_the_state(cell: Cell, case: Case) -> None:
    """a checkpoint has each tensor of the state under its name, bit for bit, and nothing else."""
    cell.judge(case, "checkpoint")


@requirement(
    "STA-02",
    level="module",
    source=f"{TORCH}; pytorch/pytorch#110361",
    needs=("checkpoints",),
    reaches=("Restore",),
    effort=0.5,
    shape=SMALL,
    momentum=MOVING,
    history=("forward", "save", "forward", "restore"),
)
def test_a_checkpoint_brings_the_state_back(cell: Cell, case: Case) -> None:
    """loading a checkpoint restores every tensor, including num_batches_tracked."""
    cell.judge_steps(case, Restore, *STATE_FIELDS)


@requirement(
    "STA-03",
    level="module",
    source=f"{TORCH}; pytorch/pytorch#43774",
    needs=(
        "checkpoints",
        "inference",
    ),
    reaches=("Restore",),
    effort=0.5,
    shape=SMALL,
    momentum=(None, 0.1, 0.5),
    history=("forward", "save", "restore into a new layer", "forward", "eval", "forward"),
)
def test_a_new_layer_goes_on_from_a_checkpoint(cell: Cell, case: Case) -> None:
    """a new layer that loads a checkpoint continues as the old layer would have."""
    cell.judge(case, "output", *STATE_FIELDS)


@requirement(
    "STA-04",
    level="module",
    source=f"{TORCH}; Oneflow-Inc/oneflow#8723",
    needs=("checkpoints",),
    reaches=("Restore", "Load"),
    effort=0.5,
    shape=SMALL,
    history=("save", "forward", "load", "restore some tensors", "load unknown tensors leniently"),
    running=(*RUNNING_STYLES, ABSENT),
)
def test_what_is_not_loaded_stays(cell: Cell, case: Case) -> None:
    """loading some tensors leaves the others unchanged, and ignores tensors that the layer does not
    have.
    """
    cell.judge_steps(case, Restore | Load, *STATE_FIELDS)


@requirement(
    "STA-05",
    level="module",
    source="torch.nn.Module.load_state_dict",
    needs=("checkpoints",),
    effort=0.5,
    shape=SMALL,
    momentum=MOVING,
    history=histories(
        *("forward", "restore", "reset parameters", "reset running statistics", "forward"),
        most=5,
        before=["save"],
        after=["forward"],
    ),
)
def test_a_checkpoint_stays_as_it_is(cell: Cell, case: Case) -> None:
    """a checkpoint stays unchanged, whatever the layer that saved or loaded it does next."""
    cell.judge_steps(case, Save, "kept")


@requirement(
    "STA-06",
    level="module",
    source=TORCH,
    needs=("live_attributes",),
    effort=0.5,
    reaches=("Set", "Backward"),
    shape=SMALL,
    layouts=("contiguous",),
    history=(
        "forward",
        "set eps",
        "forward with gradients",
        "set eps",
        "backward",
        "eval",
        "forward",
        "set eps",
        "forward",
    ),
)
def test_a_new_eps_counts_from_then_on(cell: Cell, case: Case) -> None:
    """an eps that is set on a live layer takes effect from the next forward on, and in its
    gradients.
    """
    cell.judge(case, "output", *GRADIENTS)


@requirement(
    "STA-07",
    level="module",
    source=TORCH,
    needs=("live_attributes",),
    effort=0.5,
    reaches=("Set",),
    shape=SMALL,
    history=("forward", "set momentum", "forward", "set momentum", "forward"),
)
def test_a_new_momentum_counts_from_then_on(cell: Cell, case: Case) -> None:
    """a momentum that is set on a live layer takes effect from the next training forward on."""
    cell.judge(case, *STATISTICS)


@requirement(
    "STA-08",
    level="module",
    source="torch.nn.Module.train",
    needs=("inference",),
    effort=0.5,
    shape=SMALL,
    history=("eval", "train", "forward", "eval", "train"),
)
def test_a_change_of_mode_changes_no_tensor(cell: Cell, case: Case) -> None:
    """a change of mode changes no tensor of the state."""
    cell.judge_steps(case, Train | Eval, *STATE_FIELDS)


@requirement(
    "STA-09",
    level="module",
    source=f"{TORCH}; patrick-kidger/equinox#659",
    effort=2.0,
    reaches=("6-10 steps", "11-20 steps", "Backward", "Restore", "Load", "Set"),
    shape=SMALL,
    history=histories(),
    value=PLAIN,
)
def test_a_step_starts_from_what_the_history_left(cell: Cell, case: Case) -> None:
    """after any history, a step gives the results that follow from the state at that point."""
    cell.judge(case, "output", "refusal", *GRADIENTS, *STATE_FIELDS)


@requirement(
    "STA-10",
    level="module",
    source=f"{BOUNDS}; tinygrad/tinygrad#17206",
    effort=0.5,
    reaches=("6-10 steps", "11-20 steps"),
    shape=SMALL,
    history=BATCHES,
    momentum=(0.1, 0.5, 1.0, None, 0.01, 0.9),
    value=PLAIN,
)
def test_running_statistics_do_not_drift(cell: Cell, case: Case) -> None:
    """after many batches, with no look at the state in between, the running statistics are those of
    the recurrence.
    """
    cell.judge_drift(case)


@requirement(
    "STA-11",
    level="module",
    source="torch.nn.Module.load_state_dict",
    needs=("checkpoints",),
    reaches=("Load",),
    effort=0.5,
    shape=SMALL,
    momentum=MOVING,
    history=("load", "forward", "load", "reset parameters", "forward"),
)
def test_loading_copies(cell: Cell, case: Case) -> None:
    """loading copies: the arrays handed over stay unchanged, whatever the layer does next."""
    cell.judge_steps(case, Load | ResetParameters, "handed", "kept", *STATE_FIELDS)
