"""What each step makes of the config and of the mode of a layer."""

import numpy as np
import pytest

from bn_spec import Config
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    STEPS,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
    config_after,
    training_after,
)

X = np.ones((3, 2, 2, 1), np.float32)
ASKED = Forward(X, DIFFERENTIABLE)

KEEPING = [
    *(
        Train(),
        Eval(),
        ASKED,
        Backward(X),
        DoubleBackward(X, X),
        ResetRunningStats(),
        ResetParameters(),
    ),
    *(Save(), Restore(), Restore(fresh=True), Load(), Fold(X[:2])),
]
"""Steps that leave the config as it is: all but Set."""


def name_of(step: Step) -> str:
    return f"{type(step).__name__}{' into a new layer' if step == Restore(fresh=True) else ''}"


@pytest.mark.parametrize("step", KEEPING, ids=name_of)
def test_no_step_but_set_changes_the_config(step: Step) -> None:
    config = Config(2, eps=0.5, momentum=None, affine=False)
    assert config_after(config, step) == config


def test_those_steps_and_set_are_all_that_there_are() -> None:
    assert {*map(type, KEEPING), Set} == set(STEPS.values())


def test_set_changes_the_attribute_that_it_names_and_no_other() -> None:
    config = Config(2, affine=False, dtype="float64")
    assert config_after(config, Set("eps", 0.5)) == Config(
        2, eps=0.5, affine=False, dtype="float64"
    )
    assert config_after(config, Set("momentum", None)) == Config(
        2, momentum=None, affine=False, dtype="float64"
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step", [*KEEPING, Set("eps", 0.5)], ids=name_of)
def test_the_mode_is_changed_by_train_by_eval_and_by_a_new_layer(
    step: Step, training: bool
) -> None:
    new = isinstance(step, Train) or step == Restore(fresh=True)
    assert training_after(step, training) is (new or (training and not isinstance(step, Eval)))
