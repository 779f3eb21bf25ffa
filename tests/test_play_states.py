"""A strange state, or one that cannot be read, becomes a discrepancy with a clear sentence."""

from dataclasses import replace

import numpy as np
import pytest

from bn_spec import Case, Config, State, check
from bn_spec.play.player import play
from tests.spoilt_backends import (
    CUMULATIVE,
    MODES,
    RESETS,
    TRAINING,
    UNREADABLE,
    How,
    Partial,
    Row,
    after_a_batch,
    assert_found,
    id_of,
    raises,
    returns,
    spoilt,
)


def changes(**tensors: object) -> How:
    """Change tensors of the state that the layer reports."""
    return lambda state: replace(state(), **tensors)


STRANGE_STATES = (
    Row(
        "train raises",
        "train",
        raises(ValueError("stuck")),
        "error",
        "raised ValueError: stuck",
        case=MODES,
    ),
    Row(
        "a reset raises",
        "reset_running_stats",
        raises(ValueError("no")),
        "error",
        "raised ValueError: no",
        case=RESETS,
    ),
    Row(
        "no reset",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "raised AttributeError",
        case=RESETS,
    ),
    Row(
        "layer raises",
        "layer",
        raises(OSError("no device")),
        "construction",
        "raised OSError: no device",
        "a layer",
    ),
    Row(
        "layer gives None",
        "layer",
        returns(None),
        "construction",
        f"{UNREADABLE} AttributeError",
        "a layer",
    ),
    Row(
        "state raises",
        "state",
        raises(OSError("gone")),
        "construction",
        f"{UNREADABLE} OSError: gone",
        "a layer",
    ),
    Row(
        "state is a dict",
        "state",
        returns({}),
        "construction",
        "the layer's state is dict; expected bn_spec.State",
    ),
    Row(
        "state is None",
        "state",
        returns(None),
        "construction",
        "the layer's state is NoneType; expected bn_spec",
    ),
    Row(
        "a tensor is a list",
        "state",
        changes(bias=[0, 0]),
        "construction",
        "bias is list; expected a NumPy array",
    ),
    Row(
        "state is lost in the end",
        "state",
        lambda state: {} if state().num_batches_tracked else state(),
        "running_mean",
        "the layer's state is dict; expected bn_spec.State",
        "running_mean can be read",
    ),
    Row(
        "running_mean is too long",
        "state",
        changes(running_mean=np.zeros(3, np.float32)),
        "state",
        "running_mean has shape (3,) and dtype float32",
        "a state that fits the config",
    ),
    Row("weight is None", "state", changes(weight=None), "state", "weight is None"),
    Row(
        "a tensor too many",
        "state",
        lambda state: replace(state(), bias=np.zeros(2, np.float32)),
        "state",
        "bias is present",
        case=replace(TRAINING, config=Config(2, affine=False)),
    ),
    Row(
        "running_var holds objects",
        "state",
        changes(running_var=np.array([None, None])),
        "state",
        "running_var has shape (2,) and dtype object",
    ),
    Row(
        "running_mean is too long in the end",
        "state",
        after_a_batch(running_mean=np.zeros(3, np.float32)),
        "running_mean",
        "[0., 0., 0.] (float32, shape (3,))",
        "running_mean",
    ),
    Row(
        "running_mean is lost in the end",
        "state",
        after_a_batch(running_mean=None),
        "running_mean",
        "None",
    ),
    Row(
        "running_mean holds objects in the end",
        "state",
        after_a_batch(running_mean=np.array([None, None])),
        "running_mean",
        "object",
    ),
    Row(
        "running_var holds objects in the end",
        "state",
        after_a_batch(running_var=np.array([None, None])),
        "running_var",
        "object",
    ),
    Row(
        "running_var holds text in the end",
        "state",
        after_a_batch(running_var=np.array(["a", "b"])),
        "running_var",
        "<U1",
    ),
    Row(
        "running_mean is NaN in the end",
        "state",
        after_a_batch(running_mean=np.full(2, np.nan)),
        "running_mean",
        "nan",
    ),
    Row(
        "running_var is infinite",
        "state",
        after_a_batch(running_var=np.full(2, np.inf)),
        "running_var",
        "inf",
    ),
    Row(
        "the counter is missing",
        "state",
        changes(num_batches_tracked=None),
        "num_batches_tracked",
        "None",
    ),
    Row(
        "the counter is lost in the end",
        "state",
        after_a_batch(num_batches_tracked=None),
        "num_batches_tracked",
        "None",
    ),
    Row(
        "weight is built as twos",
        "state",
        changes(weight=np.full(2, 2, np.float32)),
        "weight",
        "[2., 2.] (float32, shape (2,))",
        "weight = [1., 1.] (float32, shape (2,))",
        case=Case(Config(2)),
    ),
    Row(
        "the counter is a float",
        "state",
        lambda state: replace(
            state(), num_batches_tracked=np.asarray(state().num_batches_tracked, np.float64)
        ),
        "num_batches_tracked",
        ". (float64, shape ())",
    ),
    Row(
        "the counter is no array",
        "state",
        changes(num_batches_tracked=0),
        "construction",
        "num_batches_tracked is int; expected a NumPy array or None",
    ),
    Row(
        "the counter is a vector",
        "state",
        changes(num_batches_tracked=np.zeros(2)),
        "state",
        "has shape (2,)",
    ),
    Row(
        "the counter is NaN",
        "state",
        changes(num_batches_tracked=np.array(np.nan)),
        "num_batches_tracked",
        "nan",
        case=CUMULATIVE,
    ),
    Row(
        "the counter is infinite",
        "state",
        changes(num_batches_tracked=np.array(np.inf)),
        "num_batches_tracked",
        "inf",
        case=CUMULATIVE,
    ),
    Row(
        "the counter is minus one",
        "state",
        changes(num_batches_tracked=np.array(-1)),
        "num_batches_tracked",
        "-1",
        case=CUMULATIVE,
    ),
)


@pytest.mark.parametrize("row", STRANGE_STATES, ids=id_of)
def test_a_strange_answer_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    assert_found(row, check(row.case, spoilt(row.member, row.how)))


def test_a_layer_whose_state_is_lost_gets_no_further_step() -> None:
    backend = spoilt("state", lambda state: {} if state().num_batches_tracked else state())
    observation = play(TRAINING, backend)
    assert isinstance(observation.initial, State)
    assert len(observation.answers) == 1
