"""Whole histories are judged: live attributes, chosen kinds of steps, and a long life."""

from collections.abc import Callable
from itertools import pairwise
from types import UnionType
from typing import Any

import numpy as np
import pytest

from bn_spec import State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.arrays import same_bits
from bn_spec.case.steps import (
    Backward,
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
)
from bn_spec.play.observation import CONSTRUCTION, Raised
from bn_spec.play.player import play
from tests.judged_histories import (
    ONE,
    OUTPUTS,
    STATISTICS,
    TWO,
    X,
    case_of,
    judged,
    layer_of,
    places,
    without,
)
from tests.spoilt_backends import changed, raises, returns

# Live attributes ----------------------------------------------------------------------------------


def test_a_new_attribute_counts_from_the_next_step_on_and_not_before() -> None:
    case = case_of(
        Forward(X),
        Set("eps", 100.0),
        Forward(X),
        Set("momentum", 1.0),
        Forward(X),
        Set("eps", 1e-5),
    )
    assert judged(case, Reference()) == []
    deaf = changed(configure=returns(None))
    assert places(judged(case, deaf)) == [
        ("output", 2),
        ("output", 4),
        ("running_mean", 4),
        ("running_var", 4),
    ]

    def late(configure: Callable[..., None], *arguments: object, waiting: list[Any] = []) -> None:  # noqa: B006
        waiting.append(arguments)
        if len(waiting) > 1:
            configure(*waiting[-2])

    assert places(judged(case, changed(configure=late)))[0] == ("output", 2)


def test_a_new_attribute_changes_no_tensor() -> None:
    def resetting(layer: Any) -> None:
        configure = layer.configure

        def both(*arguments: object) -> None:
            configure(*arguments)
            layer.reset_running_stats()

        layer.configure = both

    found = judged(case_of(Forward(X), Set("momentum", 0.5), Forward(X)), layer_of(resetting))
    assert places(found) == [(name, 1) for name in STATISTICS]


# Steps of a kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (None, [0, 3, 5]),
        (Forward, [0, 3, 5]),
        (Save, []),
        (Save | Eval, []),
        (Eval | Forward, [0, 3, 5]),
    ],
)
def test_observables_are_judged_at_steps_of_a_kind(
    kind: type[Step] | UnionType | None, steps: list[int]
) -> None:
    case = case_of(Forward(X), Save(), Eval(), Forward(X), Restore(), Forward(X))
    doubled = changed(forward=lambda forward, x: 2 * forward(x))
    assert places(judged(case, doubled, "output", "state_form", kind=kind)) == [
        ("output", step) for step in steps
    ]


def test_what_a_step_of_another_kind_changes_is_what_one_of_the_kind_starts_from() -> None:
    case = case_of(Forward(X), Save(), Forward(X), Restore())
    doubled = changed(forward=lambda forward, x: 2 * forward(x), load=without("running_var"))
    assert places(judged(case, doubled, *OUTPUTS, kind=Restore)) == [("running_var", 3)]


def test_errors_and_states_that_do_not_fit_are_found_at_steps_of_any_kind() -> None:
    case = case_of(Forward(X), Eval())
    assert places(judged(case, changed(forward=raises(OSError("gone"))), "output", kind=Eval)) == [
        ("error", 0)
    ]
    grown = changed(state=lambda state: state().map(lambda a: np.append(a, a) if a.ndim else a))
    assert places(judged(case, grown, "output", kind=Eval)) == [("state", CONSTRUCTION)]


# All at once --------------------------------------------------------------------------------------

LONG_LIFE = (
    *(
        Forward(X),
        Save(),
        Forward(X + 1, ("input", "weight")),
        Backward(X),
        Set("momentum", None),
        Forward(2 * X),
    ),
    *(
        Load(TWO, bias=ONE, strict=False),
        Eval(),
        Forward(X),
        Fold(X[..., :1], ONE),
        Set("eps", 1.0),
        Restore(),
    ),
    *(
        Forward(X),
        Save(),
        Train(),
        Restore(0, fresh=True),
        Forward(X),
        ResetRunningStats(),
        Forward(X),
        Restore(),
    ),
    *(
        Restore(0, ("running_var", "weight")),
        Forward(X[:1, :, :1]),
        Forward(X),
        Load(ONE),
        ResetParameters(),
    ),
)


def test_nothing_is_wrong_with_a_long_life_of_the_reference() -> None:
    case = case_of(*LONG_LIFE)
    assert check(case, Reference()) == []
    raised = [
        place
        for place, a in enumerate(play(case, Reference()).answers)
        if isinstance(a.error, Raised)
    ]
    assert [type(LONG_LIFE[place]) for place in raised] == [Forward, Load]


def test_an_answer_starts_from_the_state_that_the_layer_reported_before_it() -> None:
    answers = play(case_of(*LONG_LIFE), Reference()).answers
    for before, after in pairwise(answers):
        assert isinstance(before.after, State)
        for name, tensor in before.after.tensors().items():
            assert same_bits(tensor, after.before.tensors()[name])
