"""Choices as functions of a generator of random numbers.

Hypothesis chooses and shrinks every number that the generator of :mod:`bn_spec.strategies.hypothesis_cases`
gives. Hypothesis makes most of its examples from others: it copies what one strategy has drawn over
what a similar strategy has drawn. Where a case draws similar things twice, five examples of six are
near copies of the sixth. Parts that choose from a generator look alike from outside, so nothing is
copied and all examples are independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Choose: TypeAlias = Callable[[Random], T]
"""Chooses a value. The first option of everything is the simplest."""


def among(options: Sequence[T]) -> Choose[T]:
    """Choose one of some options; shrinks towards the first."""
    return lambda random: random.choice(options)
