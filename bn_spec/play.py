"""Plays a case on a backend: what it answered to each step, whatever it answered.

This is the border to third-party code: exceptions and malformed answers are caught here and become data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np

from . import floating_point
from .backend import DOUBLE_GRADIENTS, GRADIENTS, Backend, Gradients, Layer, Native
from .case import (
    DIFFERENTIABLE,
    Backward,
    Case,
    DoubleBackward,
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Step,
    Train,
)
from .config import State
from .dtypes import Array, is_floating
from .memory import interchangeable, private_copy


@dataclass(frozen=True)
class Raised:
    """An exception that a backend raised: the names of its class and bases, and its message."""

    kinds: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"raised {self.kinds[0]}: {self.message}" if self.message else f"raised {self.kinds[0]}"


@dataclass(frozen=True)
class Malformed:
    """An answer that is not of the kind that the contract asks for."""

    sentence: str

    def __str__(self) -> str:
        return self.sentence


Oddity: TypeAlias = Raised | Malformed


@dataclass(frozen=True, eq=False)
class Answer:
    """What a layer answered to one step.

    ``before`` and ``after`` are its state around the step. ``output`` is that of a forward, or what another step
    raised; ``gradients`` are those of a backward, by name. ``handed`` holds the tensors that the step was handed, or
    whose gradient it was to find, by name: what they were, and what they are now. ``mode`` is how the floating-point
    mode that the step left departs from the one it found.
    """

    step: Step
    training: bool
    before: State
    after: State | Oddity
    output: Array | Oddity | None = None
    gradients: Mapping[str, Array | Oddity | None] = field(default_factory=dict)
    handed: Mapping[str, tuple[Array, Array | Oddity]] = field(default_factory=dict)
    mode: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Observation:
    """What a layer answered: its state when built, then one answer per step.

    A layer whose state can no longer be read gets no further step.
    """

    initial: State | Oddity
    answers: tuple[Answer, ...]


def play(case: Case, backend: Backend) -> Observation:
    """Play ``case`` on a new layer of ``backend``; arrays are handed over as private copies.

    A floating-point mode that the backend changes is noted and set back, so that nobody else suffers from it.
    """
    found = floating_point.departures()
    state = None if case.state is None else case.state.copy()
    layer = _attempt(lambda: backend.layer(case.config, state))
    initial = layer if isinstance(layer, Raised) else _read_state(layer)
    left = floating_point.set_back(found)  # by building the layer; told with the first step
    player = _Player(backend, layer)
    answers: list[Answer] = []
    now, training = initial, True
    for step in case.steps:
        if not isinstance(now, State):
            break
        if isinstance(step, Train | Eval):
            training = isinstance(step, Train)
        answered, after = player.answers(step), _read_state(layer)
        answers.append(Answer(step, training, now, after, **answered, mode=floating_point.set_back(found) or left))
        now, left = after, ()
    return Observation(initial, tuple(answers))


@dataclass(frozen=True, eq=False)
class _Handed:
    """A forward that was played: the native tensor that was handed over, and what the layer recorded."""

    step: Forward
    x: Native | Raised
    record: Any = None


@dataclass
class _Player:
    """A layer and the forwards that it has answered; hands it one step after the other."""

    backend: Backend
    layer: Any
    forwards: list[_Handed] = field(default_factory=list)

    def answers(self, step: Step) -> dict[str, Any]:
        """Return the parts of an answer that are not None."""
        if isinstance(step, Forward):
            return self._forward(step)
        if isinstance(step, Backward | DoubleBackward):
            return self._backward(step)
        returned = _attempt(lambda: _CALLS[type(step)](self.layer))
        return {"output": returned} if isinstance(returned, Raised) else {}

    def _forward(self, step: Forward) -> dict[str, Any]:
        x, record = self._input(step), None
        returned: Any
        if isinstance(x, Raised):
            returned = x
        elif not step.wrt:
            returned = _attempt(lambda: self.layer.forward(x))
        else:
            returned = _attempt(lambda: self.layer.record(x, step.wrt))
            if isinstance(returned, tuple) and len(returned) == 2:
                returned, record = returned
            elif not isinstance(returned, Raised):
                returned = Malformed(f"record returned {type(returned).__name__}; expected an output and a record")
        self.forwards.append(_Handed(step, x, record))
        output = returned if isinstance(returned, Oddity) else self._read(returned, "forward")
        return {"output": output, "handed": {"input": (step.x, self._now(x))}}

    def _input(self, step: Forward) -> Native | Raised:
        """Return the input as a tensor of its own, or the one of the forward before if that was given the same."""
        if self.forwards and interchangeable(self.forwards[-1].step.x, step.x):
            return self.forwards[-1].x
        return self._native(step.x)

    def _backward(self, step: Backward | DoubleBackward) -> dict[str, Any]:
        given = {f.name: a for f in fields(step) if isinstance(a := getattr(step, f.name), np.ndarray)}
        natives = {name: self._native(a) for name, a in given.items()}
        forward = self.forwards[step.of]
        if refused := next((a for a in natives.values() if isinstance(a, Raised)), None):
            return {"output": refused}
        dy, *cotangents = [natives.get(name) for name in ("dy", *DIFFERENTIABLE)]
        if isinstance(step, Backward):
            returned = _attempt(lambda: self.layer.backward(forward.record, dy))
            names, giver = GRADIENTS, "backward"
        else:
            returned = _attempt(lambda: self.layer.double_backward(forward.record, dy, Gradients(*cotangents)))
            names, giver = DOUBLE_GRADIENTS, "double_backward"
        handed = {name: (given[name], self._now(tensor)) for name, tensor in natives.items()}
        handed |= {"x": (forward.step.x, self._now(forward.x))}
        if isinstance(returned, Raised):
            return {"output": returned, "handed": handed}
        if not isinstance(returned, Sequence) or len(returned) != len(names):
            odd = Malformed(f"{giver} returned {type(returned).__name__}; expected {len(names)} gradients")
            return {"gradients": dict.fromkeys(names, odd), "handed": handed}
        gradients = {
            name: None if tensor is None else self._read(tensor, giver)
            for name, tensor in zip(names, returned, strict=True)
        }
        return {"gradients": gradients, "handed": handed}

    def _native(self, array: Array) -> Native | Raised:
        return _attempt(lambda: self.backend.to_native(private_copy(array)))

    def _now(self, tensor: Native | Raised) -> Array | Oddity:
        return self._read(tensor, "to_native")

    def _read(self, tensor: Any, giver: str) -> Array | Oddity:
        kind = type(tensor).__name__
        if isinstance(tensor, Raised):
            return tensor
        if tensor is None:
            return Malformed(f"{giver} returned None; expected a tensor of shape (N, C, H, W)")
        array = _attempt(lambda: self.backend.to_numpy(tensor))
        if isinstance(array, Raised):
            return Malformed(f"{giver} returned {kind}, which the backend's to_numpy could not move out ({array})")
        if not isinstance(array, np.ndarray) or not (is_floating(array.dtype) or array.dtype.kind in "iub"):
            return Malformed(f"{giver} returned {kind}; expected a tensor that becomes a numeric NumPy array")
        return array.copy(order="K")


_CALLS: dict[type[Step], Callable[[Layer], object]] = {
    Train: lambda layer: layer.train(True),
    Eval: lambda layer: layer.train(False),
    ResetRunningStats: lambda layer: layer.reset_running_stats(),
    ResetParameters: lambda layer: layer.reset_parameters(),
}


def _attempt(call: Callable[[], Any]) -> Any:
    """Return what the call returns, or what it raised.

    Warnings are no answer: a user who turns warnings into errors gets the same verdict as everybody else.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return call()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's layer may raise anything; it becomes data
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 - even the message is a third party's code
            message = ""
        return Raised(tuple(kind.__name__ for kind in type(error).__mro__), message)


def _read_state(layer: Layer) -> State | Oddity:
    state = _attempt(lambda: layer.state())
    if isinstance(state, Raised):
        return Malformed(f"reading the layer's state {state}")
    if not isinstance(state, State):
        return Malformed(f"the layer's state is {type(state).__name__}; expected bn_spec.State")
    for name, tensor in state.items():
        if tensor is not None and not isinstance(tensor, np.ndarray):
            return Malformed(f"{name} is {type(tensor).__name__}; expected a NumPy array or None")
    return state.copy()
