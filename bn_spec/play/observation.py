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

    Attributes:
        step: The step.
        training: Whether the layer was in training mode.
        before: State of the layer before the step.
        after: State of the layer after the step.
        output: Output of a forward.
        error: What came instead of the output, or instead of all results of another step: the
            exception that was raised, or an object of the wrong kind.
        results: Results of other steps by name: gradients, tensors of a checkpoint, parameters of
            a convolution.
        handed: Tensors that were handed over for the step, or whose gradient it asks for, by name:
            what they were, and what they are after the step.
        overrun: Names of tensors of the layer or of the step around whose elements the backend
            wrote.
        shared: Pairs of tensors that lie in the same memory.
        mode: How the floating-point mode after the step departs from the mode before it.
        later: All tensors that were handed over or returned, as they are after the last step.

    """

    step: Step
    training: bool
    before: State
    after: State | Oddity
    output: Array | None = None
    error: Oddity | None = None
    results: Mapping[str, Array | Oddity | None] = field(default_factory=dict)
    handed: Mapping[str, tuple[Array, Array | Oddity]] = field(default_factory=dict)
    overrun: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    mode: tuple[str, ...] = ()
    later: Mapping[str, Array | Oddity] = field(default_factory=dict)

    def returned(self) -> dict[str, object]:
        """Return the output, or the error in its place, and the results, by name."""
        return {"output": self.output if self.error is None else self.error, **self.results}

    def seen(self) -> dict[str, object]:
        """Return what was returned and handed over, by name, as it was after the step."""
        return self.returned() | {name: now for name, (_, now) in self.handed.items()}


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
