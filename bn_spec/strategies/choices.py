"""Choices as functions of a generator of random numbers.

The generator comes from :mod:`bn_spec.strategies.hypothesis_cases`. Hypothesis chooses and shrinks
every number that it returns.

Why not strategies of Hypothesis? It makes most of its examples by copying what one strategy has
drawn over what a similar strategy has drawn. Where a case draws similar things twice, five of six
examples are near copies of the sixth. With a generator, Hypothesis sees no strategies inside a
case, so it copies nothing, and all examples are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Choose: TypeAlias = Callable[[Random], T]
"""A function that chooses a value. Of any options, the first is the simplest."""


def among(options: Sequence[T]) -> Choose[T]:
    """Return a choice among options, which shrinks towards the first."""
    return lambda random: random.choice(options)
