"""Whole histories: any list of words, how long they are, and what they often reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest

from bn_spec import Capabilities, Case, ConfigError, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import (
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
    training_after,
)
from bn_spec.oracle.expectation import refusal_of
from bn_spec.strategies import ABSENT, RUNNING_STYLES, WORDS, cases, chosen, histories, shapes
from bn_spec.strategies.histories import LONGEST, USUAL
from tests.draws import drawn

# Words

ANYTHING: dict[str, Any] = {
    "shape": shapes("tiny"),
    "layouts": tuple(PLACED),
    "running": (*RUNNING_STYLES, ABSENT),
    "strided": True,
}
ANY_WORDS = partial(
    histories, *WORDS, *("forward with gradients", "eval", "save") * 4, least=0, most=10
)
"""Any words, and more often those to which others refer."""

FEWER = Capabilities(
    inference=False, affine_off=False, input_checks=False, layouts=("contiguous",), gradients=True
)
STORED = Capabilities(checkpoints=True, empty_batch=True, folding=True, cumulative_momentum=False)
CHANGED = Capabilities(
    live_attributes=True, gradients=True, double_backward=("float32",), strided_state=True
)


@pytest.mark.parametrize(
    ("claims", "never"),
    [
        pytest.param(EVERYTHING, (), id="everything"),
        pytest.param(
            Capabilities(),
            (Backward, DoubleBackward, Save, Restore, Load, Set, Fold),
            id="what is claimed unasked",
        ),
        pytest.param(
            FEWER,
            (Eval, DoubleBackward, Save, Restore, Load, Set, Fold),
            id="training and gradients",
        ),
        pytest.param(STORED, (Backward, DoubleBackward, Set), id="checkpoints and folding"),
        pytest.param(
            CHANGED, (Save, Restore, Load, Fold), id="live attributes and double backwards"
        ),
        pytest.param(replace(EVERYTHING, expensive_signatures=True), (), id="expensive signatures"),
    ],
)
def test_any_list_of_words_is_a_history_of_all_that_is_claimed_and_of_nothing_else(
    claims: Capabilities, never: tuple[type, ...]
) -> None:
    met = drawn(cases(claims=claims, history=ANY_WORDS(), **ANYTHING), 200)
    asked = {type(step) for case in met for step in case.steps}
    assert Forward in asked
    assert asked.isdisjoint(never)
    if not claims.gradients:
        assert not any(step.wrt for case in met for step in case.steps if isinstance(step, Forward))


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "float16"])
def test_whatever_the_history_the_reference_conforms(dtype: str) -> None:
    reference = Reference()
    for case in drawn(
        cases(dtype=dtype, claims=reference.capabilities, history=ANY_WORDS(), **ANYTHING), 60
    ):
        assert check(case, reference) == []


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            ("forward with gradients", "set eps", "backward"),
            id="eps is set between a forward and its backward",
        ),
        pytest.param(
            ("eval", "forward of another rank", "repeat the step"), id="what is refused, twice"
        ),
        pytest.param(
            ("empty forward with gradients", "backward", "double backward"),
            id="gradients of an empty batch",
        ),
    ],
)
def test_histories_that_were_once_misjudged_are_not(history: tuple[str, ...]) -> None:
    for case in drawn(cases(history=history, shape=shapes("tiny"), running=("random",)), 20):
        assert case.steps
        assert check(case, Reference()) == []


def test_any_history_keeps_to_the_layouts_that_are_claimed() -> None:
    claims = replace(EVERYTHING, layouts=("contiguous",), input_checks=False)
    history = ANY_WORDS(
        after=("forward with gradients", "backward with stride 0", "double backward")
    )
    for case in drawn(cases(claims=claims, history=history, **ANYTHING), 100):
        inputs = list(case.forwards())
        gradients_of_output = [
            step.dy for step in case.steps if isinstance(step, Backward | DoubleBackward)
        ]
        assert all(a.flags.c_contiguous for a in inputs + gradients_of_output)


def test_an_unknown_word_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"step of a history 'forwrad' is not known; .*; did you mean 'forward'\?"
    ):
        drawn(cases(history=("forwrad",)), 1)


# Histories that are drawn


def test_histories_are_of_the_words_given_and_as_long_as_asked() -> None:
    met = drawn(chosen(histories("save", "forward", least=2, most=5)), 100)
    assert {word for words in met for word in words} == {"save", "forward"}
    assert {len(words) for words in met} == {2, 3, 4, 5}


def test_histories_reach_their_longest_length_and_every_second_one_is_long() -> None:
    lengths = [len(words) for words in drawn(chosen(histories()), 300)]
    assert min(lengths) == 1
    assert max(lengths) == LONGEST == 20
    assert sum(length >= LONGEST // 2 for length in lengths) > len(lengths) / 2
    assert sum(length < LONGEST // 2 for length in lengths) > len(lengths) / 10


def test_every_usual_word_comes_often() -> None:
    met = drawn(chosen(histories()), 300)
    counts = Counter(word for words in met for word in set(words))
    assert counts.keys() == set(USUAL)
    assert min(counts.values()) > 0.05 * len(met)


@cache
def usual() -> list[Case]:
    return drawn(cases(history=histories(), shape=shapes("tiny")), 300)


def steps_with_mode(case: Case) -> Iterator[tuple[Step, bool]]:
    training = True
    for step in case.steps:
        training = training_after(step, training)
        yield step, training


@pytest.mark.parametrize(
    ("reaches", "least"),
    [
        pytest.param(lambda step, _: isinstance(step, Backward), 0.15, id="a backward"),
        pytest.param(
            lambda step, training: isinstance(step, Backward) and not training,
            0.03,
            id="a backward in eval",
        ),
        pytest.param(
            lambda step, training: isinstance(step, Forward) and not training,
            0.2,
            id="an eval forward",
        ),
        pytest.param(
            lambda step, _: isinstance(step, Restore) and not step.fresh, 0.2, id="a restore"
        ),
        pytest.param(
            lambda step, _: isinstance(step, Restore) and step.fresh, 0.05, id="a new layer"
        ),
        pytest.param(
            lambda step, _: isinstance(step, Restore) and bool(step.only),
            0.05,
            id="a restore in part",
        ),
        pytest.param(lambda step, _: isinstance(step, Load), 0.2, id="a state that is loaded"),
        pytest.param(lambda step, _: isinstance(step, Set), 0.2, id="an attribute that is set"),
        pytest.param(
            lambda step, _: isinstance(step, ResetRunningStats | ResetParameters), 0.3, id="a reset"
        ),
        pytest.param(
            lambda step, _: isinstance(step, Forward) and not step.x.size, 0.1, id="an empty batch"
        ),
    ],
)
def test_usual_histories_often_reach(reaches: Callable[[Step, bool], bool], least: float) -> None:
    met = [
        case
        for case in usual()
        if any(reaches(step, training) for step, training in steps_with_mode(case))
    ]
    assert len(met) > least * len(usual())


def test_usual_histories_often_have_inputs_that_must_be_refused() -> None:
    def refused(case: Case) -> bool:
        return any(
            isinstance(step, Forward)
            and refusal_of(case.config, step.x, training) is not None
            and step.x.size > 0
            for step, training in steps_with_mode(case)
        )

    assert sum(map(refused, usual())) > 0.25 * len(usual())
