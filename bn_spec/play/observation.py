"""What a layer answered to a case: data, from exceptions and malformed answers too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from bn_spec.case.config import State
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    Step,
)

CONSTRUCTION = -1
"""The step index of what a layer holds when it has just been built."""


@dataclass(frozen=True)
class Raised:
    """An exception that a backend raised: the names of its class and bases, and its message."""

    kinds: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return (
            f"raised {self.kinds[0]}: {self.message}" if self.message else f"raised {self.kinds[0]}"
        )


@dataclass(frozen=True)
class Malformed:
    """An answer that is not of the kind that the contract asks for."""

    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Died:
    """The end of a process in which a case was played: in which step of it, or before the first, and how."""

    step: int
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    def observation(self) -> Observation:
        """Return all that there is to observe then."""
        return Observation(self, ())


Oddity: TypeAlias = Raised | Malformed | Died


@dataclass(frozen=True, eq=False)
class Answer:
    """What a layer answered to one step.

    ``before`` and ``after`` are its state around the step. ``output`` is that of a forward, or what
    another step raised; ``results`` is what another step gave, by name: gradients, the tensors of a
    checkpoint, folded parameters.

    ``handed`` holds the tensors that the step was handed, or whose gradient it was to find, by
    name: what they were, and what they are now. ``later`` holds all these tensors, given and
    handed, as they are after the last step.

    ``overrun`` names tensors of the layer or of the step around whose elements something was
    written, ``shared`` the pairs of tensors that lie in the same memory. ``mode`` is how the
    floating-point mode that the step left departs from the one it found.
    """

    step: Step
    training: bool
    before: State
    after: State | Oddity
    output: Array | Oddity | None = None
    results: Mapping[str, Array | Oddity | None] = field(default_factory=dict)
    handed: Mapping[str, tuple[Array, Array | Oddity]] = field(default_factory=dict)
    overrun: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    mode: tuple[str, ...] = ()
    later: Mapping[str, Array | Oddity] = field(default_factory=dict)

    def given(self) -> dict[str, object]:
        """Return output and results, by name."""
        return {"output": self.output, **self.results}

    def seen(self) -> dict[str, object]:
        """Return what the step gave and what it was handed, as both were when it was done."""
        return self.given() | {name: now for name, (_, now) in self.handed.items()}


@dataclass(frozen=True, eq=False)
class Observation:
    """What a layer answered: its state when built, then one answer per step.

    A layer whose state can no longer be read gets no further step. Of one whose process died, that
    is all there is.
    """

    initial: State | Oddity
    answers: tuple[Answer, ...]


STATES, MEMORY = "states", "memory"


LOOKS = (STATES, MEMORY)
"""The parts of an observation that are looked at only where somebody asks for them.

Without ``STATES``, the state is read when the layer is built and after the last step only: until
then, answers have the state that was last read. Without ``MEMORY``, nobody looks at what was handed
over, at what lies around it, nor once more at what was given: ``handed``, ``overrun``, ``shared``
and ``later`` are empty. Without either, what was given is not copied: it may lie in memory of the
backend, and is good until the backend uses that again.
"""
