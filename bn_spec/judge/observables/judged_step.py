"""One answer beside its expectation, and the words for what is compared."""

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
    """One answer with its expectation, as the observables see it."""

    config: Config
    index: int
    answer: Answer
    expected: Expectation
    previous: Sequence[JudgedStep]
    claims: Accuracy
    forward: Context | None = None
    """The forward whose gradients the step asks for."""

    def gradient(self, name: str) -> tuple[Array, Bounded] | None:
        """Return a gradient and what is expected, if it was asked and has the right shape."""
        got, expected = self.answer.results.get(name), self.expected.results.get(name)
        return (
            (got, expected)
            if expected is not None and well_formed(got, expected.bound.shape)
            else None
        )


Judge: TypeAlias = Callable[[Verdict, JudgedStep], None]
"""Adds what it finds about a step to a verdict."""


def well_formed(got: object, shape: tuple[int, ...]) -> TypeGuard[Array]:
    """Whether an answer is a floating-point array of a shape."""
    return isinstance(got, np.ndarray) and got.shape == shape and is_floating(got.dtype)


def form(got: object) -> str:
    """Return what an answer is, for people."""
    return f"shape {got.shape}, dtype {got.dtype}" if isinstance(got, np.ndarray) else str(got)


def exact_tensor(
    verdict: Verdict, name: str, index: int, wanted: Array | None, got: Array | None
) -> None:
    """Judge a tensor that must be so bit for bit, or absent."""
    agrees = got is wanted if got is None or wanted is None else same_bits(got, wanted)
    verdict.exact(name, index, agrees, lambda: f"{name} = {shown(wanted)}", lambda: shown(got))


def shown(array: object, before: str = "") -> str:
    """Return an answer in digits, for people, after some words."""
    if not isinstance(array, np.ndarray):
        return f"{before}{array}"
    text = np.array2string(array, threshold=8, separator=", ", floatmode="unique").replace("\n", "")
    return f"{before}{text} ({array.dtype}, shape {array.shape})"
