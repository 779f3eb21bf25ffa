"""Observations: the answers of a layer to a case, as data.

Exceptions, objects of the wrong class and the death of the process are data too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from bn_spec.case.config import State
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Step

CONSTRUCTION = -1
"""The step index of building the layer, which comes before step 0."""


@dataclass(frozen=True)
class Raised:
    """An exception that a backend raised.

    Attributes:
        kinds: Names of its class and all base classes, in the order of method resolution.
        message: Its message.

    """

    kinds: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        message = f": {self.message}" if self.message else ""
        return f"raised {self.kinds[0]}{message}"


@dataclass(frozen=True)
class Malformed:
    """An answer that does not keep the contract.

    Attributes:
        sentence: What was returned, and what the contract expects.

    """

    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Died:
    """The death of the process in which a case was played.

    Attributes:
        step: Index of the step in which it died, or :data:`CONSTRUCTION`.
        sentence: How it died, and where.

    """

    step: int
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    def observation(self) -> Observation:
        """Return the observation of a case whose process died."""
        return Observation(self, ())


Oddity: TypeAlias = Raised | Malformed | Died
"""What stands in the place of an answer that does not exist."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a layer answered to one step.

    Attributes:
        step: The step.
        training: Whether the layer was in training mode during the step.
        before: State of the layer before the step.
        after: State of the layer after the step.
        output: Output of a forward.
        error: The exception or the wrong object in the place of the output, or of all results.
        results: Results of other steps by name: gradients, tensors of a checkpoint, or parameters
            of a convolution.
        handed: By name, the tensors that the suite handed over for the step, and the input whose
            gradient it asks for: each as it was before, and as it is after the step.
        overrun: Names of the tensors of the layer and of the step beside whose elements the backend
            wrote.
        shared: Pairs of a result and a tensor that was handed over which lie in the same memory.
        mode: How the floating-point mode departs from the default one after the step; empty if the
            step has not changed it.
        later: By name, the tensors that were handed over or returned, as they are after the last
            step of the case.

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
        """Return the returned and the handed-over tensors by name, as they were after the step."""
        return self.returned() | {name: now for name, (_, now) in self.handed.items()}


@dataclass(frozen=True, eq=False)
class Observation:
    """The answers of a layer to a case.

    Attributes:
        initial: State of the layer when it was built, or what came in its place.
        answers: One answer per step. Once there is no readable state, the layer gets no further
            step. If the process died, there are no answers at all.

    """

    initial: State | Oddity
    answers: tuple[Answer, ...]


STATES, MEMORY = "states", "memory"
"""The names of the parts of an observation that are optional; see :data:`LOOKS`."""

LOOKS = (STATES, MEMORY)
"""The optional parts of an observation, which take time.

Without ``STATES``, the player reads the state only when the layer is built and after the last step;
the answers in between have the initial state. Without ``MEMORY``, the fields ``handed``,
``overrun``, ``shared`` and ``later`` of all answers are empty. Without both, returned tensors are
not copied: they may lie in memory of the backend, and are valid until the backend uses that memory
again.
"""
