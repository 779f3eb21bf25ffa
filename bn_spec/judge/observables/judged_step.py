"""One answer with its expectation, and what all observables need to judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import Config
from bn_spec.case.dtypes import Array, is_floating
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import Context, Expectation
from bn_spec.play.observation import Answer


@dataclass(frozen=True, eq=False)
class JudgedStep:
    """One answer with its expectation.

    Attributes:
        config: Config of the layer, with eps and momentum as the layer stores them.
        index: Index of the step.
        answer: The answer.
        expected: The expectation.
        previous: The steps before this one.
        claims: The claims of the backend about its arithmetic.
        forward: The forward whose gradients the step asks for, if it is a backward.

    """

    config: Config
    index: int
    answer: Answer
    expected: Expectation
    previous: Sequence[JudgedStep]
    claims: Accuracy
    forward: Context | None = None

    def gradient(self, name: str) -> tuple[Array, Bounded] | None:
        """Return a gradient and its expectation.

        Returns:
            None if the step did not ask for this gradient, or its shape is wrong.

        """
        got, expected = self.answer.results.get(name), self.expected.results.get(name)
        if expected is None or not well_formed(got, expected.bound.shape):
            return None
        return got, expected


Judge: TypeAlias = Callable[[Verdict, JudgedStep], None]
"""A function that judges one observable of a step, and adds the result to a verdict."""


def well_formed(got: object, shape: tuple[int, ...]) -> TypeGuard[Array]:
    """Return whether an answer is a floating-point array of this shape."""
    return isinstance(got, np.ndarray) and got.shape == shape and is_floating(got.dtype)


def form(got: object) -> str:
    """Return the shape and the dtype of an answer, or the text of an error, for a message."""
    return f"shape {got.shape}, dtype {got.dtype}" if isinstance(got, np.ndarray) else str(got)


def exact_tensor(
    verdict: Verdict, name: str, index: int, wanted: Array | None, got: Array | None
) -> None:
    """Judge whether a tensor is the same as another one bit by bit, or absent like it.

    Args:
        verdict: The verdict to which the result is added.
        name: Name of the tensor, which is also that of the observable.
        index: Index of the step.
        wanted: The tensor that is expected.
        got: The tensor that was answered.

    """
    agrees = got is wanted if got is None or wanted is None else same_bits(got, wanted)
    verdict.exact(name, index, agrees, lambda: f"{name} = {shown(wanted)}", lambda: shown(got))


def shown(array: object, before: str = "") -> str:
    """Return the text ``before``, followed by the values of an array or the text of an error."""
    if not isinstance(array, np.ndarray):
        return f"{before}{array}"
    text = np.array2string(array, threshold=8, separator=", ", floatmode="unique").replace("\n", "")
    return f"{before}{text} ({array.dtype}, shape {array.shape})"
