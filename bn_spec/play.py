"""Plays a case on a backend: what it answered to each step, whatever it answered.

This is the border to third-party code: exceptions and malformed answers are caught here and become data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from . import floating_point
from .backend import Backend, Layer
from .case import Case, Eval, Forward, ResetParameters, ResetRunningStats, Step, Train
from .config import State
from .dtypes import Array, is_floating
from .memory import private_copy


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

    ``before`` and ``after`` are its state around the step; ``output`` and ``input_after`` exist for forward
    steps only. ``mode`` is how the floating-point mode that the step left departs from the one it found.
    """

    step: Step
    training: bool
    before: State
    after: State | Oddity
    output: Array | Oddity | None = None
    input_after: Array | Oddity | None = None
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
    answers: list[Answer] = []
    now, training = initial, True
    for step in case.steps:
        if not isinstance(now, State):
            break
        if isinstance(step, Train | Eval):
            training = isinstance(step, Train)
        answer = _play_step(backend, layer, step, training, now)
        answers.append(replace(answer, mode=floating_point.set_back(found) or left))
        now, left = answer.after, ()
    return Observation(initial, tuple(answers))


def _play_step(backend: Backend, layer: Layer, step: Step, training: bool, before: State) -> Answer:
    output: Array | Oddity | None
    input_after: Array | Oddity | None = None
    if isinstance(step, Forward):
        x = _attempt(lambda: backend.to_native(private_copy(step.x)))
        returned = x if isinstance(x, Raised) else _attempt(lambda: layer.forward(x))
        output = returned if isinstance(returned, Raised) else _read(backend, returned, "forward")
        input_after = x if isinstance(x, Raised) else _read(backend, x, "to_native")
    else:
        returned = _attempt(lambda: _CALLS[type(step)](layer))
        output = returned if isinstance(returned, Raised) else None
    return Answer(step, training, before, _read_state(layer), output, input_after)


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


def _read(backend: Backend, tensor: Any, giver: str) -> Array | Oddity:
    kind = type(tensor).__name__
    if tensor is None:
        return Malformed(f"{giver} returned None; expected a tensor of shape (N, C, H, W)")
    array = _attempt(lambda: backend.to_numpy(tensor))
    if isinstance(array, Raised):
        return Malformed(f"{giver} returned {kind}, which the backend's to_numpy could not move out ({array})")
    if not isinstance(array, np.ndarray) or not (is_floating(array.dtype) or array.dtype.kind in "iub"):
        return Malformed(f"{giver} returned {kind}; expected a tensor that becomes a numeric NumPy array")
    return array.copy(order="K")


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
