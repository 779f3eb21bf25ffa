"""Histories: what a case does to a layer, as a list of words, each of which draws some steps.

A word adds no step if the backend does not claim it, or if it refers to an earlier step that does
not exist. So any list of words is a history, and stays one when Hypothesis removes words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Any

from bn_spec.case.laws import LAWS
from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.steps import STEP_KINDS, Backward, DoubleBackward, Eval, Fold, Save, Set
from bn_spec.strategies import history_steps as steps
from bn_spec.strategies.choices import Choose
from bn_spec.strategies.history_steps import History
from bn_spec.strategies.misuse import of_single_values, of_wrong_channels, of_wrong_rank


@dataclass(frozen=True)
class Word:
    """One row of the table of words.

    Attributes:
        claims: Flags and layouts that a backend must claim.
        action: Adds the steps.
        applies: Whether the earlier steps allow the word.

    """

    claims: tuple[str, ...]
    action: Callable[[History], None]
    applies: Callable[[History], bool] = lambda _: True

    def add_to(self, history: History) -> None:
        """Draw the steps of the word, unless it is not claimed or does not apply."""
        if all(_is_claimed(name, history) for name in self.claims) and self.applies(history):
            self.action(history)


def _is_claimed(name: str, history: History) -> bool:
    """Whether a flag is claimed in the dtype of the case, or a layout is."""
    claims = history.claimed.claims
    if name in LAYOUTS:
        return name in claims.layouts
    return claims.has(name, history.config.dtype)


def _claims_of(*kinds: type[Any]) -> tuple[str, ...]:
    """Return the claims that steps of these kinds need."""
    claims = [STEP_KINDS[kind].claim for kind in kinds]
    return tuple(claim for claim in claims if claim)


def _plain_word(kind: type[Any]) -> Word:
    """Return the word for a step that needs no drawing."""
    return Word(_claims_of(kind), lambda history: history.steps.append(kind()))


_NOTHING: tuple[str, ...] = ()
_GRADIENTS = _claims_of(Backward)
_CHECKPOINTS = _claims_of(Save)
_LIVE = _claims_of(Set)
_CHECKS = ("input_checks",)

_PLAIN = {kind.word: _plain_word(kind.step) for kind in STEP_KINDS.values() if kind.word}

WORDS: Mapping[str, Word] = MappingProxyType(
    {
        **_PLAIN,
        "forward": Word(_NOTHING, steps.forward),
        "forward of the same shape": Word(_NOTHING, steps.forward_of_same_shape),
        "empty forward": Word(("empty_batch",), steps.empty_forward),
        "forward of single values": Word(
            ("refuses_single_values",), partial(steps.refused_forward, way=of_single_values)
        ),
        "forward of another rank": Word(_CHECKS, partial(steps.refused_forward, way=of_wrong_rank)),
        "forward of other channels": Word(
            _CHECKS, partial(steps.refused_forward, way=of_wrong_channels), steps.has_tensors
        ),
        "forward with gradients": Word(_GRADIENTS, steps.forward_with_gradients),
        "empty forward with gradients": Word(
            ("gradients", "empty_batch"), partial(steps.empty_forward, recorded=True)
        ),
        "repeat the step": Word(_NOTHING, steps.repeat_step, steps.has_step),
        "same input with gradients": Word(
            _GRADIENTS, steps.same_input_with_gradients, steps.has_input
        ),
        "each sample alone": Word(_NOTHING, steps.each_sample_alone, steps.has_input),
        "non-finite element": Word(_NOTHING, steps.special_element, steps.has_input),
        "same input without weight and bias": Word(
            _CHECKPOINTS, steps.unscaled_input, steps.has_input
        ),
        "sum of the inputs": Word(_NOTHING, steps.sum_of_inputs, steps.has_inputs_alike),
        "inputs joined": Word(
            _NOTHING, steps.inputs_joined, partial(steps.has_inputs_alike, but_for=1)
        ),
        **{
            name: Word(
                (
                    *(_CHECKPOINTS if law.parameters else ()),
                    *(_LIVE if law.eps_factor != 1 else ()),
                ),
                partial(steps.changed_by_law, law=name),
                steps.has_input,
            )
            for name, law in LAWS.items()
        },
        "backward": Word(_GRADIENTS, steps.backward, steps.has_recorded_forward),
        "backward of the first": Word(
            _GRADIENTS, partial(steps.backward, of=0), partial(steps.has_recorded_forward, of=0)
        ),
        "backward if possible": Word(_GRADIENTS, steps.backward_if_possible),
        "backward with stride 0": Word(
            (*_GRADIENTS, "expanded"), steps.backward_with_stride_zero, steps.has_recorded_forward
        ),
        "backward of zeros": Word(_GRADIENTS, steps.backward_of_zeros, steps.has_recorded_forward),
        "backward of the sum": Word(
            _GRADIENTS, steps.backward_of_the_sum, partial(steps.has_backwards, count=2)
        ),
        "backward with non-finite element": Word(
            _GRADIENTS, steps.backward_with_special_element, partial(steps.has_backwards, count=1)
        ),
        "backward of another shape": Word(
            _GRADIENTS, steps.backward_of_another_shape, steps.has_recorded_forward
        ),
        "double backward": Word(
            _claims_of(DoubleBackward), steps.double_backward, steps.has_recorded_forward
        ),
        "restore": Word(_CHECKPOINTS, steps.restore_checkpoint, steps.has_checkpoint),
        "restore the first": Word(
            _CHECKPOINTS, partial(steps.restore_checkpoint, of=0), steps.has_checkpoint
        ),
        "restore into a new layer": Word(
            _CHECKPOINTS, partial(steps.restore_checkpoint, fresh=True), steps.has_checkpoint
        ),
        "restore some tensors": Word(
            _CHECKPOINTS, steps.restore_some_tensors, steps.has_checkpoint
        ),
        "load": Word(_CHECKPOINTS, steps.load_state),
        "load without one tensor": Word(
            _CHECKPOINTS, partial(steps.load_wrong_tensor, way=steps.without)
        ),
        "load unknown tensors": Word(
            _CHECKPOINTS, partial(steps.load_unknown_tensors, strict=True), steps.lacks_tensors
        ),
        "load unknown tensors leniently": Word(
            _CHECKPOINTS, partial(steps.load_unknown_tensors, strict=False), steps.lacks_tensors
        ),
        "load another size": Word(_CHECKPOINTS, partial(steps.load_wrong_tensor, way=steps.longer)),
        "load another rank": Word(
            _CHECKPOINTS, partial(steps.load_wrong_tensor, way=steps.doubled)
        ),
        "set eps": Word(_LIVE, steps.set_eps),
        "set momentum": Word(_LIVE, steps.set_momentum),
        "fold": Word(_claims_of(Fold, Eval), steps.fold_convolution, steps.can_fold),
    }
)
"""The words of a history."""

LONGEST = 20
"""Maximum number of words that a history draws."""

USUAL = (
    # Each kind of step once.
    "forward",
    "eval",
    "train",
    "forward with gradients",
    "backward if possible",
    "save",
    "restore",
    "reset running statistics",
    "reset parameters",
    "restore into a new layer",
    "restore some tensors",
    "restore the first",
    "load",
    "set eps",
    "set momentum",
    "empty forward",
    "forward of single values",
    "forward of another rank",
    # Frequent steps again, so that they are drawn more often.
    "forward",
    "forward",
    "forward with gradients",
    "backward if possible",
    "eval",
    "train",
    "forward with gradients",
    "backward if possible",
    "backward if possible",
    "save",
    "restore",
)
"""Default words of a drawn history; frequent ones stand here more than once."""


def histories(
    *words: str,
    least: int = 1,
    most: int = LONGEST,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> Choose[list[str]]:
    """Return a choice of words in any order, which shrinks towards fewer words.

    Every second history is long, since some faults show only after many steps.

    Args:
        *words: Words to choose from; :data:`USUAL` by default.
        least: Minimum number of chosen words.
        most: Maximum number of chosen words.
        before: Words that come before the chosen ones.
        after: Words that come after the chosen ones.

    """

    def choose(random: Random) -> list[str]:
        # The mean number of words before a draw of 0 ends the history.
        mean_length = random.choice((most // 2, 5 * most))
        chosen: list[str] = []
        while len(chosen) < least or (len(chosen) < most and random.randrange(mean_length)):
            chosen.append(random.choice(words or USUAL))
        return [*before, *chosen, *after]

    return choose
