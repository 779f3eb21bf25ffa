"""Each word of a history adds its steps, or none where it cannot apply."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bn_spec import Capabilities
from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dialect import Dialect
from bn_spec.case.layouts import LAYOUTS
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
    Train,
)
from bn_spec.oracle.expectation import refusal_to_load
from bn_spec.strategies import ABSENT, WORDS
from tests.draws import CHECKPOINT, RECORDED, TWO_ALIKE, cases_of_history

NOTHING: tuple[str, ...] = ()

ADDED: dict[str, tuple[tuple[str, ...], tuple[type, ...]]] = {
    "train": (NOTHING, (Train,)),
    "eval": (NOTHING, (Eval,)),
    "reset running statistics": (NOTHING, (ResetRunningStats,)),
    "reset parameters": (NOTHING, (ResetParameters,)),
    "forward": (NOTHING, (Forward,)),
    "forward of the same shape": (NOTHING, (Forward,)),
    "empty forward": (NOTHING, (Forward,)),
    "forward of single values": (NOTHING, (Forward,)),
    "forward of another rank": (NOTHING, (Forward,) * 4),
    "forward of other channels": (NOTHING, (Forward,) * 2),
    "forward with gradients": (NOTHING, (Forward,)),
    "empty forward with gradients": (NOTHING, (Forward,)),
    "repeat the step": (("forward",), (Forward,)),
    "same input with gradients": (("forward",), (Forward,)),
    "each sample alone": (("forward",), (Forward,) * 2),
    "non-finite element": (("forward",), (Forward,)),
    "same input without weight and bias": (("forward",), (Load, Forward)),
    "sum of the inputs": (TWO_ALIKE, (Forward, Forward)),
    "inputs joined": (TWO_ALIKE, (Forward,)),
    "samples reversed": (("forward",), (Forward,)),
    "pixels reversed": (("forward",), (Forward,)),
    "channels reversed": (("forward",), (Load, Forward)),
    "shifted": (("forward",), (Forward,)),
    "scaled": (("forward",), (Set, Forward)),
    "twice over": (("forward",), (Forward,)),
    "backward": (RECORDED, (Backward,)),
    "backward of the first": (RECORDED, (Backward,)),
    "backward if possible": (RECORDED, (Backward,)),
    "backward with stride 0": (RECORDED, (Backward,)),
    "backward of zeros": (RECORDED, (Backward,)),
    "backward of the sum": ((*RECORDED, "backward", "backward"), (Backward,)),
    "backward with non-finite element": ((*RECORDED, "backward"), (Backward,)),
    "backward of another shape": (RECORDED, (Backward,)),
    "double backward": (RECORDED, (DoubleBackward,)),
    "save": (NOTHING, (Save,)),
    "restore": (CHECKPOINT, (Restore,)),
    "restore the first": (CHECKPOINT, (Restore,)),
    "restore into a new layer": (CHECKPOINT, (Restore,)),
    "restore some tensors": (CHECKPOINT, (Restore,)),
    "load": (NOTHING, (Load,)),
    "load without one tensor": (NOTHING, (Load,)),
    "load unknown tensors": (NOTHING, (Load,)),
    "load unknown tensors leniently": (NOTHING, (Load,)),
    "load another size": (NOTHING, (Load,)),
    "load another rank": (NOTHING, (Load,)),
    "set eps": (NOTHING, (Set,)),
    "set momentum": (NOTHING, (Set,)),
    "fold": (("eval",), (Fold,)),
}
"""By word: a past to which it can refer, and the steps that it adds then."""

OF_OTHERS: dict[str, dict[str, Any]] = {
    word: {"parameters": (ABSENT,)}
    for word in ("load unknown tensors", "load unknown tensors leniently")
}
"""By word: choices for layers that lack some tensors, where it is about these."""


def kinds(*history: str, **choices: Any) -> tuple[type, ...]:
    """The kinds of steps of a history, which are the same in all cases."""
    (met,) = {tuple(map(type, case.steps)) for case in cases_of_history(*history, **choices)}
    return met


def without(claim: str) -> Capabilities:
    """All claims but one, in the dtype of the cases."""
    if claim in LAYOUTS:
        return replace(EVERYTHING, layouts=tuple(layout for layout in LAYOUTS if layout != claim))
    if claim == "refuses_single_values":
        return replace(EVERYTHING, dialect=Dialect(single_value="answered"))
    less: dict[str, Any] = {claim: ("float64",) if claim == "double_backward" else False}
    return replace(EVERYTHING, **less)


def test_it_is_known_of_every_word_what_it_adds() -> None:
    assert ADDED.keys() == WORDS.keys()


@pytest.mark.parametrize("word", ADDED)
def test_a_word_adds_its_steps(word: str) -> None:
    past, added = ADDED[word]
    choices = OF_OTHERS.get(word, {})
    assert kinds(*past, word, **choices) == kinds(*past, **choices) + added


@pytest.mark.parametrize("word", OF_OTHERS)
def test_a_word_about_what_other_layers_have_adds_no_step_for_a_layer_that_has_it_all(
    word: str,
) -> None:
    assert kinds(word) == ()


@pytest.mark.parametrize("lacking", ["parameters", "running"])
@pytest.mark.parametrize("word", OF_OTHERS)
def test_a_layer_is_given_all_that_it_has_and_all_that_others_have(word: str, lacking: str) -> None:
    choices: dict[str, Any] = {lacking: (ABSENT,)}
    for case in cases_of_history(word, **choices):
        (step,) = case.steps
        assert isinstance(step, Load)
        assert step.tensors().keys() == set(STATE_FIELDS)
        refusal = refusal_to_load(initial_state(case.config), step)
        assert (refusal is not None) == step.strict == (word == "load unknown tensors")


@pytest.mark.parametrize("word", [word for word, (past, _) in ADDED.items() if past])
def test_a_word_that_has_nothing_to_refer_to_adds_no_step(word: str) -> None:
    assert kinds(word) == ()


@pytest.mark.parametrize(
    ("word", "claim"), [(word, claim) for word in WORDS for claim in WORDS[word].claims]
)
def test_a_word_that_a_backend_does_not_claim_adds_no_step(word: str, claim: str) -> None:
    past, _ = ADDED[word]
    choices = OF_OTHERS.get(word, {}) | {"claims": without(claim)}
    assert kinds(*past, word, **choices) == kinds(*past, **choices)


@pytest.mark.parametrize(
    ("past", "word"),
    [
        pytest.param(
            ("forward of another rank",), "non-finite element", id="a spoilt input of another rank"
        ),
        pytest.param(("forward of other channels",), "twice over", id="a law of other channels"),
        pytest.param(
            ("empty forward",), "same input with gradients", id="an empty batch, recorded"
        ),
        pytest.param(
            ("empty forward", "empty forward"), "inputs joined", id="empty batches as one"
        ),
        pytest.param(("forward",), "sum of the inputs", id="a sum of one"),
        pytest.param(
            ("forward with gradients", "forward"),
            "backward",
            id="a backward of what was not recorded",
        ),
        pytest.param(
            ("forward", "forward with gradients"),
            "backward of the first",
            id="a backward of a first that was not recorded",
        ),
        pytest.param(
            ("forward with gradients", "backward"),
            "backward of the sum",
            id="a sum of one gradient",
        ),
        pytest.param(
            ("forward with gradients", "backward", "forward", "repeat the step"),
            "backward with non-finite element",
            id="a gradient of an older step",
        ),
        pytest.param(
            ("forward with gradients", "backward", "backward of another shape"),
            "backward of the sum",
            id="other shapes",
        ),
        pytest.param(("eval", "train"), "fold", id="a fold in training mode"),
        pytest.param(
            ("eval", "save", "restore into a new layer"), "fold", id="a fold of a new layer"
        ),
    ],
)
def test_what_a_word_cannot_refer_to_adds_no_step(past: tuple[str, ...], word: str) -> None:
    assert kinds(*past, word) == kinds(*past)


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        pytest.param("load", {"parameters": (ABSENT,), "running": (ABSENT,)}, id="load"),
        pytest.param(
            "load another size",
            {"parameters": (ABSENT,), "running": (ABSENT,)},
            id="load another size",
        ),
        pytest.param(
            "restore some tensors",
            {"parameters": (ABSENT,), "running": (ABSENT,)},
            id="restore some",
        ),
        pytest.param(
            "forward of other channels",
            {"parameters": (ABSENT,), "running": (ABSENT,)},
            id="channels",
        ),
        pytest.param("fold", {"running": (ABSENT,)}, id="fold"),
    ],
)
def test_a_word_about_tensors_that_the_layer_does_not_have_adds_no_step(
    word: str, choices: dict[str, Any]
) -> None:
    past, _ = ADDED[word]
    assert kinds(*past, word, **choices) == kinds(*past, **choices)
