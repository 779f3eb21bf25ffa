"""Plays a case on a backend: what it answered to each step, whatever it answered.

This is the border to third-party code: exceptions and malformed answers are caught here and become
data.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import product
from threading import Barrier
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bn_spec.backend import floating_point
from bn_spec.backend.contract import Backend, Gradients, Native
from bn_spec.backend.proxy import Deputy
from bn_spec.case.arrays import Fenced, gaps, interchangeable, private_copy, same_bits, take_apart
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array, is_floating
from bn_spec.case.script import Case
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    FOLDED,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
    config_after,
    training_after,
)
from bn_spec.play.calls import _attempt, _by_name, _copied, _kind, _parts, _read_state
from bn_spec.play.observation import (
    LOOKS,
    MEMORY,
    STATES,
    Answer,
    Malformed,
    Observation,
    Oddity,
    Raised,
)


class StandIn(Deputy, ABC):
    """Stands for a backend whose cases are played in another way: in another process, or with a note of each."""

    @abstractmethod
    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Do what :func:`play` does."""

    @abstractmethod
    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Do what :func:`play_together` does."""


AtStep: TypeAlias = Callable[[int], None]
"""Is told the number of each step before it is played."""


def play(
    case: Case, backend: Backend, looks: Collection[str] = LOOKS, at_step: AtStep = lambda _: None
) -> Observation:
    """Play ``case`` on a new layer of ``backend``; arrays are handed over as private copies.

    A floating-point mode that the backend changes is noted and set back, so that nobody else
    suffers from it.
    """
    if isinstance(backend, StandIn):
        return backend.play(case, looks)
    with _quiet():
        return _play(case, backend, looks, at_step)


def play_together(cases: Sequence[Case], backend: Backend) -> list[Observation]:
    """Play each case on a layer of its own, in a thread of its own, all at a time."""
    if isinstance(backend, StandIn):
        return backend.play_together(cases)
    ready = Barrier(len(cases))

    def start(case: Case) -> Observation:
        ready.wait()
        return _play(case, backend, (STATES,))

    with _quiet(), ThreadPoolExecutor(len(cases)) as threads:
        return list(threads.map(start, cases))


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop warnings: a user who turns them into errors gets the same verdict as everybody else."""
    with warnings.catch_warnings():  # of the whole process, so around all threads
        warnings.simplefilter("ignore")
        yield


def _play(
    case: Case, backend: Backend, looks: Collection[str], at_step: AtStep = lambda _: None
) -> Observation:
    found = floating_point.departures()
    player = _Player(backend, case.config, MEMORY in looks, copies=bool(looks))
    now = initial = player.build(case.state)
    left = floating_point.set_back(found)  # by building the layer; told with the first step
    answers: list[Answer] = []
    training = True
    for remaining, step in zip(reversed(range(len(case.steps))), case.steps, strict=True):
        if not isinstance(now, State):
            break
        at_step(len(answers))
        player.config = config_after(player.config, step)
        training = training_after(step, training)
        answered = player.answers(step)
        then = player.state() if STATES in looks or not remaining else now
        answers.append(
            Answer(
                step, training, now, then, **answered, mode=floating_point.set_back(found) or left
            )
        )
        now, left = then, ()
    return Observation(initial, tuple(map(player.looked_at_again, answers, range(len(answers)))))


class _Given(NamedTuple):
    """An array that was handed over, the native tensor that its private copy became, and the fence around that."""

    array: Array
    native: Native | Raised
    fence: Fenced | None

    def overrun(self) -> bool:
        """Whether anything around the private copy was written to."""
        return self.fence is not None and self.fence.overrun()


@dataclass(frozen=True, eq=False)
class _Played:
    """A forward that was played: the layer, the input that was handed over, and what the layer recorded."""

    layer: Any
    step: Forward
    x: _Given
    record: Any = None


class _Player:
    """A layer, and all that it has been given and has answered; hands it one step after the other."""

    def __init__(self, backend: Backend, config: Config, memory: bool, copies: bool) -> None:
        self.backend = backend
        self.config = config
        self.memory = memory
        """Whether somebody looks at memory."""
        self.copies = copies
        """Whether what is given is copied, so that it stays as it was."""
        self.layer: Any = None
        self.held: dict[str, Fenced] = {}
        self.forwards: list[_Played] = []
        self.checkpoints: list[Any] = []
        self.natives: list[dict[str, Native]] = []
        """What each step gave."""
        self.handed: list[dict[str, Native]] = []
        """What each step was handed."""

    def build(self, state: State | None) -> State | Oddity:
        """Build the layer, and return its state."""
        self.held = (
            {name: Fenced(a) for name, a in state.tensors().items()}
            if state and self.memory
            else {}
        )
        fenced = {name: fence.array for name, fence in self.held.items()}
        handed = State(**fenced) if fenced else state and state.map(private_copy)
        self.layer = _attempt(lambda: self.backend.layer(self.config, handed))
        return self.layer if isinstance(self.layer, Raised) else self.state()

    def state(self) -> State | Oddity:
        """Return a copy of the state."""
        return _read_state(self.layer)

    def answers(self, step: Step) -> dict[str, Any]:
        """Return the parts of an answer that are not empty."""
        self.natives.append({})
        self.handed.append({})
        answered = _ANSWERS[type(step)](self, step)
        overrun = tuple(name for name, fence in self.held.items() if fence.overrun())
        return (
            answered | {"overrun": (*overrun, *answered.get("overrun", ()))}
            if overrun
            else answered
        )

    def looked_at_again(self, answer: Answer, place: int) -> Answer:
        """Return the answer with what its tensors are by now."""
        tensors = self.natives[place] | self.handed[place]
        if not self.memory or place == len(self.natives) - 1 or not tensors:
            return answer
        return replace(
            answer, later={name: self._read(t, "earlier") for name, t in tensors.items()}
        )

    def _forward(self, step: Forward) -> dict[str, Any]:
        x, record = self._input(step), None
        returned: Any
        if isinstance(x.native, Raised):
            returned = x.native
        elif not step.wrt:
            returned = _attempt(lambda: self.layer.forward(x.native))
        else:
            returned = _attempt(lambda: self.layer.record(x.native, step.wrt))
            if isinstance(returned, tuple) and len(returned) == 2:
                returned, record = returned
            elif not isinstance(returned, Raised):
                returned = Malformed(
                    f"record returned {type(returned).__name__}; expected an output and a record"
                )
        self.forwards.append(_Played(self.layer, step, x, record))
        output = (
            returned
            if isinstance(returned, Oddity)
            else self._result("output", returned, "forward")
        )
        name = "error" if isinstance(output, Oddity) else "output"
        return {name: output, **self._handed({"input": x})}

    def _input(self, step: Forward) -> _Given:
        """Return the input as a tensor of its own, or the one of the forward before if that was given the same."""
        if self.forwards and interchangeable(self.forwards[-1].step.x, step.x):
            return self.forwards[-1].x
        return self._given(step.x)

    def _backward(self, step: Backward | DoubleBackward) -> dict[str, Any]:
        given = {name: self._given(a) for name, a in _arrays(step).items()}
        forward = self.forwards[step.of]
        dy, *cotangents = [
            given[name].native if name in given else None for name in ("dy", *DIFFERENTIABLE)
        ]
        seen, record = {"x": forward.x}, forward.record
        if isinstance(step, Backward):
            return self._sequence(
                GRADIENTS, "backward", given, lambda: forward.layer.backward(record, dy), seen
            )
        of = Gradients(*cotangents)
        return self._sequence(
            DOUBLE_GRADIENTS,
            "double_backward",
            given,
            lambda: forward.layer.double_backward(record, dy, of),
            seen,
        )

    def _fold(self, step: Fold) -> dict[str, Any]:
        given = {name: self._given(a) for name, a in _arrays(step).items()}
        weight, bias = (
            given[name].native if name in given else None for name in ("weight", "bias")
        )
        return self._sequence(
            FOLDED, "fold", given, lambda: self.layer.fold(weight, bias), what="tensors"
        )

    def _sequence(
        self,
        names: tuple[str, ...],
        giver: str,
        given: dict[str, _Given],
        call: Callable[[], Any],
        seen: Mapping[str, _Given] = MappingProxyType({}),
        what: str = "gradients",
    ) -> dict[str, Any]:
        """Return the results of a call that returns one tensor, or None, for each name."""
        returned = _not_moved_in(given) or _attempt(call)
        if isinstance(returned, Raised):
            return {"error": returned, **self._handed(given | dict(seen))}
        tensors = _attempt(lambda: _parts(returned, len(names)))
        if isinstance(tensors, tuple):
            results = {
                name: None if tensor is None else self._result(name, tensor, giver)
                for name, tensor in zip(names, tensors, strict=True)
            }
        else:
            odd = Malformed(
                f"{giver} returned {_kind(returned, tensors)}; expected {len(names)} {what}"
            )
            results = dict.fromkeys(names, odd)
        return {"results": results, **self._handed(given | dict(seen))}

    def _save(self, _: Save) -> dict[str, Any]:
        returned = _attempt(lambda: self.layer.save())
        named = _attempt(lambda: _by_name(returned))
        self.checkpoints.append(returned if isinstance(returned, Raised) else named)
        if isinstance(returned, Raised):
            return {"error": returned}
        if not isinstance(named, dict):
            return {
                "error": Malformed(
                    f"save returned {_kind(returned, named)}; expected tensors by name"
                )
            }
        return {
            "results": {name: self._result(name, tensor, "save") for name, tensor in named.items()}
        }

    def _restore(self, step: Restore) -> dict[str, Any]:
        if step.fresh and isinstance(built := self.build(None), Oddity):
            return {"error": built}
        checkpoint = self.checkpoints[step.of]
        if not isinstance(checkpoint, Mapping):
            return {
                "error": checkpoint
                if isinstance(checkpoint, Raised)
                else Malformed("there is no checkpoint")
            }
        tensors = {name: checkpoint[name] for name in step.only or checkpoint if name in checkpoint}
        return _raised(_attempt(lambda: self.layer.load(tensors, strict=not step.only)))

    def _load(self, step: Load) -> dict[str, Any]:
        given = {name: self._given(a) for name, a in step.tensors().items()}
        natives = {name: g.native for name, g in given.items()}
        returned = _not_moved_in(given) or _attempt(
            lambda: self.layer.load(natives, strict=step.strict)
        )
        return _raised(returned) | self._handed(given)

    def _called(self, step: Step) -> dict[str, Any]:
        return _raised(_attempt(lambda: _CALLS[type(step)](self.layer, step)))

    def _given(self, array: Array) -> _Given:
        fence = Fenced(array) if self.memory else None
        copy = fence.array if fence else private_copy(array)
        return _Given(array, _attempt(lambda: self.backend.to_native(copy)), fence)

    def _handed(self, given: Mapping[str, _Given]) -> dict[str, Any]:
        """Return what became of the tensors that were handed over, of their memory, and of that of the results."""
        if not self.memory:
            return {}
        self.handed[-1] = {name: g.native for name, g in given.items()}
        now = {name: self._raw(g.native, "to_native") for name, g in given.items()}
        overrun = tuple(
            name for name, g in given.items() if g.overrun() or _gaps_differ(g.array, now[name])
        )
        results = {name: self._raw(tensor, name) for name, tensor in self.natives[-1].items()}
        pairs = product(results.items(), now.items())
        shared = tuple(
            f"{name} and {other}" for (name, a), (other, b) in pairs if _share_memory(a, b)
        )
        handed = {name: (g.array, _copied(now[name])) for name, g in given.items()}
        return {"handed": handed, "overrun": overrun, "shared": shared}

    def _result(self, name: str, tensor: Native, giver: str) -> Array | Oddity:
        """Read a result, and remember it."""
        self.natives[-1][name] = tensor
        return self._read(tensor, giver)

    def _read(self, tensor: Any, giver: str) -> Array | Oddity:
        array = self._raw(tensor, giver)
        return _copied(array) if self.copies else array

    def _raw(self, tensor: Any, giver: str) -> Array | Oddity:
        """Return a tensor as an array, which may be a view of its memory."""
        kind = type(tensor).__name__
        if isinstance(tensor, Raised):
            return tensor
        if tensor is None:
            return Malformed(f"{giver} returned None; expected a tensor of shape (N, C, H, W)")
        array = _attempt(lambda: self.backend.to_numpy(tensor))
        if isinstance(array, Raised):
            return Malformed(
                f"{giver} returned {kind}, which the backend's to_numpy could not move out ({array})"
            )
        plain = (
            np.asarray(array) if isinstance(array, np.ndarray) else None
        )  # no subclass, which may say anything
        if plain is None or not (plain.dtype.kind in "fiub" or is_floating(plain.dtype)):
            return Malformed(
                f"{giver} returned {kind}; expected a tensor that becomes a numeric NumPy array"
            )
        return plain


def _not_moved_in(given: Mapping[str, _Given]) -> Raised | None:
    """Return what moving one of these tensors in has raised, if one has."""
    return next((g.native for g in given.values() if isinstance(g.native, Raised)), None)


def _raised(returned: object) -> dict[str, Any]:
    return {"error": returned} if isinstance(returned, Raised) else {}


def _arrays(step: Step) -> dict[str, Array]:
    return {f.name: a for f in fields(step) if isinstance(a := getattr(step, f.name), np.ndarray)}


def _gaps_differ(given: Array, now: Array | Oddity) -> bool:
    """Whether something was written between the elements of a tensor that lives elsewhere, in the same layout."""
    between = gaps(given)
    if (
        not between.size
        or not isinstance(now, np.ndarray)
        or now.strides != given.strides
        or now.shape != given.shape
    ):
        return False
    return not same_bits(take_apart(given).flat[between], take_apart(now).flat[between])


def _share_memory(a: Array | Oddity, b: Array | Oddity) -> bool:
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)


_CALLS: dict[type[Step], Callable[[Any, Any], object]] = {
    Train: lambda layer, _: layer.train(True),
    Eval: lambda layer, _: layer.train(False),
    ResetRunningStats: lambda layer, _: layer.reset_running_stats(),
    ResetParameters: lambda layer, _: layer.reset_parameters(),
    Set: lambda layer, step: layer.configure(step.name, step.value),
}


_ANSWERS: dict[type[Step], Callable[[_Player, Any], dict[str, Any]]] = {
    Forward: _Player._forward,
    Backward: _Player._backward,
    DoubleBackward: _Player._backward,
    Save: _Player._save,
    Restore: _Player._restore,
    Load: _Player._load,
    Fold: _Player._fold,
    **dict.fromkeys(_CALLS, _Player._called),
}
