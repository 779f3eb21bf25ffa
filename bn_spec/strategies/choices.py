"""Choices as functions of a generator of random numbers, whose every number Hypothesis chooses and shrinks.

Hypothesis makes most of its examples from others, by copying what one strategy has drawn over what
a like one has: wherever a case draws twice alike, five examples of six are near copies of the
sixth. Parts of a strategy that choose from a generator cannot be told apart from outside, so all
examples are independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

Choose: TypeAlias = Callable[[Random], T]
"""Chooses a value; the first option of everything is the simplest."""

RANDOMS: st.SearchStrategy[Random] = st.randoms(use_true_random=False)


def among(options: Sequence[T]) -> Choose[T]:
    """Choose one of some options; shrinks towards the first."""
    return lambda random: random.choice(options)


def chosen(choose: Choose[T]) -> st.SearchStrategy[T]:
    """Return a strategy of what a function chooses, for use outside of cases."""
    return RANDOMS.map(choose)
