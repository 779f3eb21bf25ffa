"""Strange answers of save, load, configure and fold become discrepancies."""

import numpy as np
import pytest

from bn_spec import Case, Config, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.steps import Eval, Fold, Forward, Load, Restore, Save, Set
from tests.spoilt_backends import (
    CUMULATIVE,
    HUGE,
    INFERENCE,
    MODES,
    RESETS,
    TRAINING,
    Partial,
    Row,
    X,
    assert_found,
    id_of,
    moves,
    raises,
    returns,
    spoilt,
)

STORED = Case(Config(2), None, (Save(), Forward(X), Restore()))
LOADED = Case(Config(2), None, (Load(bias=np.ones(2, np.float32), strict=False), Forward(X)))
LIVE = Case(Config(2), None, (Set("eps", 0.5), Forward(X)))
KERNEL = np.arange(4, dtype=np.float32).reshape(2, 1, 2, 1)
FOLDING = Case(
    Config(2), None, (Eval(), Fold(KERNEL, np.ones(2, np.float32)), Fold(KERNEL), Forward(X))
)

CHECKPOINT = "a checkpoint of weight, bias, running_mean, running_var, num_batches_tracked"

STRANGE_CALLS = (
    Row(
        "save raises",
        "save",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "no error",
        STORED,
    ),
    Row(
        "save gives None",
        "save",
        returns(None),
        "checkpoint",
        "save returned NoneType; expected tensors by name",
        CHECKPOINT,
        STORED,
    ),
    Row(
        "save gives a list",
        "save",
        lambda save: list(save().values()),
        "checkpoint",
        "save returned list; expected tensors by name",
        CHECKPOINT,
        STORED,
    ),
    Row("save gives nothing", "save", returns({}), "checkpoint", "nothing", CHECKPOINT, STORED),
    Row(
        "save leaves the counter out",
        "save",
        lambda save: {name: a for name, a in save().items() if a.ndim},
        "checkpoint",
        "weight, bias, running_mean, running_var",
        CHECKPOINT,
        STORED,
    ),
    Row(
        "save gives a tensor too many",
        "save",
        lambda save: save() | {"gamma": X},
        "checkpoint",
        "num_batches_tracked, gamma",
        CHECKPOINT,
        STORED,
    ),
    Row(
        "save gives text",
        "save",
        lambda save: save() | {"bias": "zeros"},
        "checkpoint",
        "save returned str; expected a tensor that becomes a numeric NumPy array",
        "bias is saved as [0., 0.]",
        STORED,
    ),
    Row(
        "save gives a None among tensors",
        "save",
        lambda save: save() | {"bias": None},
        "checkpoint",
        "save returned None; expected a tensor",
        "bias is saved as [0., 0.]",
        STORED,
    ),
    Row(
        "save widens a tensor",
        "save",
        lambda save: save() | {"bias": np.zeros(2)},
        "checkpoint",
        "[0., 0.] (float64, shape (2,))",
        "bias is saved as [0., 0.] (float32, shape (2,))",
        STORED,
    ),
    Row(
        "a checkpoint is not loaded",
        "load",
        lambda _, tensors, *, strict: None,  # noqa: ARG005
        "num_batches_tracked",
        "1 (int64",
        "num_batches_tracked = 0 (int64",
        STORED,
    ),
    Row(
        "loading a checkpoint raises",
        "load",
        lambda _, tensors, *, strict: raises(KeyError(f"{strict} {len(tensors)}"))(None),
        "error",
        "raised KeyError: 'True 5'",
        "no error",
        STORED,
    ),
    Row(
        "no save",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "raised AttributeError: 'Partial'",
        "",
        STORED,
    ),
    Row(
        "to_native raises for a load",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "",
        LOADED,
    ),
    Row(
        "load raises", "load", raises(OSError("busy")), "error", "raised OSError: busy", "", LOADED
    ),
    Row(
        "no load",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "no attribute 'load'",
        "",
        LOADED,
    ),
    Row(
        "configure raises",
        "configure",
        raises(TypeError("frozen")),
        "error",
        "raised TypeError: frozen",
        "",
        LIVE,
    ),
    Row(
        "no configure",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "no attribute 'configure'",
        "",
        LIVE,
    ),
    Row("configure does nothing", "configure", returns(None), "output", "", "output[", LIVE),
    Row(
        "fold raises",
        "fold",
        raises(ValueError("no")),
        "error",
        "raised ValueError: no",
        "no error",
        FOLDING,
    ),
    Row(
        "to_native raises for a fold",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError",
        "",
        FOLDING,
    ),
    Row(
        "fold gives None",
        "fold",
        returns(None),
        "folded_weight",
        "fold returned NoneType; expected 2 tensors",
        "a folded_weight of shape (2, 1, 2, 1)",
        FOLDING,
    ),
    Row(
        "fold gives a weight alone",
        "fold",
        lambda fold, *a: fold(*a)[0],
        "folded_bias",
        "fold returned ndarray; expected 2 tensors",
        "a folded_bias of shape (2,)",
        FOLDING,
    ),
    Row(
        "fold gives three tensors",
        "fold",
        lambda f, *a: (*f(*a), X),
        "folded_bias",
        "expected 2 tensors",
        "",
        FOLDING,
    ),
    Row(
        "fold gives no bias",
        "fold",
        lambda fold, *a: (fold(*a)[0], None),
        "folded_bias",
        "None",
        "a folded_bias of shape (2,)",
        FOLDING,
    ),
    Row(
        "fold gives a bias of four dimensions",
        "fold",
        lambda fold, *a: (fold(*a)[0], fold(*a)[1].reshape(1, -1, 1, 1)),
        "folded_bias",
        "shape (1, 2, 1, 1), dtype float32",
        "a folded_bias of shape (2,)",
        FOLDING,
    ),
    Row(
        "fold swaps the axes of the weight",
        "fold",
        lambda fold, *a: (fold(*a)[0].swapaxes(0, 1), fold(*a)[1]),
        "folded_weight",
        "shape (1, 2, 2, 1)",
        "a folded_weight of shape (2, 1, 2, 1)",
        FOLDING,
    ),
    Row(
        "fold changes the layer",
        "layer",
        moves("weight", "fold"),
        "weight",
        "[2., 2.]",
        "weight = [1., 1.]",
        FOLDING,
    ),
)


@pytest.mark.parametrize("row", STRANGE_CALLS, ids=id_of)
def test_a_strange_answer_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    assert_found(row, check(row.case, spoilt(row.member, row.how)))


@pytest.mark.parametrize(
    "case", [TRAINING, INFERENCE, MODES, RESETS, CUMULATIVE, HUGE, STORED, LOADED, LIVE, FOLDING]
)
def test_the_reference_itself_gives_no_discrepancy(case: Case) -> None:
    assert check(case, Reference()) == []
