"""Checkpoints are judged: what is saved must come back, counters included."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    Eval,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Train,
)
from bn_spec.judge.judging import judge
from bn_spec.play.player import play
from tests.judged_histories import (
    CLAIMS,
    OTHER,
    OUTPUTS,
    STATISTICS,
    X,
    case_of,
    judged,
    layer_of,
    places,
    without,
)
from tests.spoilt_backends import changed

COUNTED = case_of(
    *(Forward(X), Forward(X), Save(), ResetRunningStats(), Forward(X)),
    *(
        Load(num_batches_tracked=np.array(41), strict=False),
        Forward(X),
        Eval(),
        Forward(X),
        Train(),
    ),
    *(Restore(), Forward(X), Restore(only=("running_mean",)), ResetParameters(), Forward(X)),
    *(Restore(fresh=True), Forward(X)),
    momentum=None,
)


def test_a_counter_goes_through_resets_loads_and_checkpoints() -> None:
    observation = play(COUNTED, Reference())
    counters = [answer.after.num_batches_tracked for answer in observation.answers]  # type: ignore[union-attr]
    assert counters == [1, 2, 2, 0, 1, 41, 42, 42, 42, 42, 2, 3, 3, 0, 1, 2, 3]
    assert judge(COUNTED, observation, OUTPUTS, CLAIMS).discrepancies == []


@pytest.mark.parametrize("name", STATE_FIELDS)
def test_a_tensor_that_a_checkpoint_does_not_bring_back_is_named(name: str) -> None:
    case = Case(Config(2), OTHER, (Save(), ResetParameters(), Restore(), Forward(X)))
    assert places(judged(case, changed(load=without(name)))) == [(name, 2)]


def test_a_counter_that_is_not_brought_back_is_no_fault_of_the_steps_that_follow() -> None:
    found = judged(COUNTED, changed(load=without("num_batches_tracked")))
    # At the restore of step 10, the layer happens to have counted two batches as well.
    assert places(found) == [("num_batches_tracked", 5), ("num_batches_tracked", 15)]


def test_a_checkpoint_is_judged_by_the_state_of_its_own_step() -> None:
    saved: list[Any] = []

    def first(save: Callable[[], object]) -> object:
        saved.append(save())
        return saved[0]

    case = case_of(Save(), Forward(X), Save())
    assert places(judged(case, changed(save=first), "checkpoint")) == [("checkpoint", 2)] * 3
    assert judged(case, Reference(), "checkpoint") == []


def test_of_several_checkpoints_the_one_that_is_asked_for_must_come_back() -> None:
    restores = Restore(0), Restore(1), Restore(), Restore(-2), Restore(-3)
    case = case_of(Save(), Forward(X), Save(), Forward(X), Save(), *restores)
    assert judged(case, Reference()) == []
    saved: list[dict[str, Array]] = []

    def save(original: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        saved.append(original())
        return saved[-1]

    def load(original: Callable[..., None], _: object, *, strict: bool) -> None:
        original(saved[-1], strict=strict)

    found = judged(case, changed(save=save, load=load), "num_batches_tracked")
    assert places(found) == [("num_batches_tracked", step) for step in (5, 6, 8, 9)]


def test_a_new_layer_that_is_restored_into_starts_in_training_mode_with_the_tensors_of_the_checkpoint() -> (  # noqa: E501
    None
):
    case = case_of(
        Forward(X),
        Save(),
        Eval(),
        Restore(fresh=True),
        Forward(X),
        Restore(only=("bias",), fresh=True),
    )
    assert judged(case, Reference()) == []

    def asleep(layer: Any) -> None:
        layer.train(False)

    found = judged(case, layer_of(asleep), *OUTPUTS, kind=Forward)
    assert {("output", 4), *((name, 4) for name in STATISTICS)} <= {*places(found)}
