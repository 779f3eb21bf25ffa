"""Cases played in threads of their own, and floating-point modes that steps leave changed."""

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Barrier, get_ident
from typing import Any

import pytest

from bn_spec import Config, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.floating_point import departures, restore
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Forward, ResetParameters, Restore, Save, Set, Step
from bn_spec.play.player import play, play_together
from bn_spec.specimens.inaccurate import TOWARDS_ZERO
from tests.every_step import ASKED, DOUBLE, FOLD, LOAD, X, assert_same_answers, case_of, found
from tests.spoilt_backends import changed, spoilt

# In threads of their own --------------------------------------------------------------------------


def meeting(parties: int) -> Callable[..., Any]:
    """Answer once this number of forwards has started; raise an error after ten seconds."""
    barrier = Barrier(parties)

    def forward(original: Callable[[Array], Array], x: Array) -> Array:
        barrier.wait(10)
        return original(x)

    return forward


def test_cases_are_played_at_the_same_time_each_in_a_thread_of_its_own() -> None:
    threads: list[int] = []
    forward = meeting(4)

    def noted(original: Callable[[Array], Array], x: Array) -> Array:
        threads.append(get_ident())
        y: Array = forward(original, x)
        return y

    cases = [case_of(Forward(X), Forward(number * X)) for number in (2, 3, 5, 7)]
    observations = play_together(cases, changed(forward=noted))
    assert len(set(threads)) == 4
    assert get_ident() not in threads
    for case, observation in zip(cases, observations, strict=True):
        for one, other in zip(play(case, Reference()).answers, observation.answers, strict=True):
            assert_same_answers(one, other)
            assert (other.handed, other.later) == ({}, {})


def test_a_layer_that_raises_does_not_disturb_those_beside_it() -> None:
    forward = meeting(3)

    def failing(original: Callable[[Array], Array], x: Array) -> Array:
        y: Array = forward(original, x)
        if x[0, 0, 0, 1] == -1:
            raise OSError("lost")
        return y

    cases = [case_of(Forward(number * X)) for number in (1, -1, 2)]
    first, second, third = play_together(cases, changed(forward=failing))
    assert str(second.answers[0].error) == "raised OSError: lost"
    for case, observation in ((cases[0], first), (cases[2], third)):
        assert found(case, observation, "output") == []


def test_a_layer_that_cannot_be_built_does_not_disturb_those_beside_it() -> None:
    def build(original: Callable[..., Layer], config: Config, state: State | None) -> Layer:
        if config.eps == 0.5:
            raise OSError("no device")
        return original(config, state)

    cases = [replace(case_of(Forward(X)), config=Config(2, eps=eps)) for eps in (1.0, 0.5)]
    whole, missing = play_together(cases, spoilt("layer", build))
    assert found(cases[0], whole, "output") == []
    assert (str(missing.initial), missing.answers) == ("raised OSError: no device", ())


# The floating-point mode --------------------------------------------------------------------------

needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in TOWARDS_ZERO,
    reason="the numbers for fesetround are those of glibc, on x86 and ARM",
)
NOT_NEAREST = ("does not round to nearest",)


@pytest.fixture
def _default_mode() -> Iterator[None]:
    yield
    restore()


def flips(original: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
    answer = original(*arguments, **others)
    assert ctypes.CDLL(None).fesetround(TOWARDS_ZERO[platform.machine()]) == 0
    return answer


@needs_linux
@pytest.mark.usefixtures("_default_mode")
@pytest.mark.parametrize(
    ("member", "step"),
    [
        *(
            ("save", Save()),
            ("load", Restore(0)),
            ("load", LOAD),
            ("configure", Set("eps", 0.5)),
            ("fold", FOLD),
        ),
        *(("double_backward", DOUBLE), ("reset_parameters", ResetParameters())),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_mode_that_a_step_leaves_changed_is_told_of_that_step_and_set_back(
    member: str, step: Step
) -> None:
    save = (Save(),) if isinstance(step, Restore) else ()
    answers = play(case_of(*save, ASKED, step, Forward(X)), changed(**{member: flips})).answers
    assert [answer.mode for answer in answers[len(save) :]] == [(), NOT_NEAREST, ()]
    assert departures() == ()


@needs_linux
@pytest.mark.usefixtures("_default_mode")
def test_a_mode_that_building_a_layer_anew_leaves_changed_is_told_of_the_restore() -> None:
    def build(original: Callable[..., Layer], config: Config, state: State | None) -> Layer:
        return flips(original, config, state) if state is None else original(config, state)

    answers = play(case_of(Save(), Restore(fresh=True), Forward(X)), spoilt("layer", build)).answers
    assert [answer.mode for answer in answers] == [(), NOT_NEAREST, ()]


@needs_linux
@pytest.mark.usefixtures("_default_mode")
def test_a_mode_that_one_thread_leaves_changed_is_told_of_its_case_alone() -> None:
    forward = meeting(2)

    def flipping(original: Callable[[Array], Array], x: Array) -> Array:
        y: Array = forward(original, x)
        return flips(lambda: y) if x[0, 0, 0, 1] < 0 else y

    cases = [case_of(*(Forward(sign * X),) * 2) for sign in (1, -1)]
    modes = [
        [answer.mode for answer in o.answers]
        for o in play_together(cases, changed(forward=flipping))
    ]
    assert modes == [[(), ()], [NOT_NEAREST, NOT_NEAREST]]
    assert departures() == ()
