"""The player: plays a case on a backend, and observes its answers.

This is the border to third-party code. Exceptions and malformed answers become data here.
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
from bn_spec.play.calls import attempt, by_name, copied, described, parts, read_state
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
    """A backend that plays cases itself, such as in another process or with a note before each.

    :func:`play` and :func:`play_together` call its methods instead of driving its layers.
    """

    @abstractmethod
    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Play a case as :func:`play` does."""

    @abstractmethod
    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Play cases as :func:`play_together` does."""


AtStep: TypeAlias = Callable[[int], None]
"""A function that is called with the index of each step, before the step is played."""


def play(
    case: Case, backend: Backend, looks: Collection[str] = LOOKS, at_step: AtStep = lambda _: None
) -> Observation:
    """Play a case on a new layer of a backend.

    The backend gets private copies of all arrays. If it changes the floating-point mode of the
    process, the answer says so, and the mode is restored.

    Args:
        case: The case.
        backend: The backend.
        looks: The optional parts of the observation, of :data:`bn_spec.play.observation.LOOKS`.
        at_step: Called with the index of each step before it is played.

    Raises:
        KeyboardInterrupt: The user interrupts the run, or the backend raises it.

    """
    if isinstance(backend, StandIn):
        return backend.play(case, looks)
    with _quiet():
        return _play(case, backend, looks, at_step)


def play_together(cases: Sequence[Case], backend: Backend) -> list[Observation]:
    """Play cases at the same time, each on a layer and in a thread of its own.

    The observations have states, but not memory (:data:`bn_spec.play.observation.LOOKS`).
    """
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
    """Suppress warnings, so that a user who turns them into errors gets the same verdict."""
    # The filters are those of the whole process, so this goes around all threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _play(
    case: Case, backend: Backend, looks: Collection[str], at_step: AtStep = lambda _: None
) -> Observation:
    found = floating_point.departures()
    player = _Player(backend, case.config, MEMORY in looks, copies=bool(looks))
    now = initial = player.build(case.state)
    # If building the layer has changed the mode, the answer to the first step says so.
    left = floating_point.set_back(found)
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
        mode = floating_point.set_back(found) or left
        answers.append(Answer(step, training, now, then, **answered, mode=mode))
        now, left = then, ()
    return Observation(initial, tuple(map(player.looked_at_again, answers, range(len(answers)))))


class _HandedOver(NamedTuple):
    """A tensor that the suite handed over to the backend.

    Attributes:
        array: The array of the step.
        native: The native tensor that its private copy became, or what ``to_native`` raised.
        fence: The fence around the private copy, if the player looks at memory.

    """

    array: Array
    native: Native | Raised
    fence: Fenced | None

    def overrun(self) -> bool:
        """Return whether anything around the elements of the private copy has changed."""
        return self.fence is not None and self.fence.overrun()


@dataclass(frozen=True, eq=False)
class _Played:
    """A forward that was played.

    Attributes:
        layer: The layer, which a restore may have replaced since.
        step: The step.
        x: The input.
        record: The record that the layer returned, if it was asked for one.

    """

    layer: Any
    step: Forward
    x: _HandedOver
    record: Any = None


class _Player:
    """Drives one layer through the steps of a case.

    Attributes:
        backend: The backend.
        config: The config of the layer, with eps and momentum as they were set last.
        memory: Whether to look at memory, as :data:`bn_spec.play.observation.MEMORY` says.
        copies: Whether to copy returned tensors, so that the backend cannot change them later.
        layer: The layer, or the exception that building it raised.
        fences: The fenced tensors that the layer was built with, by name.
        forwards: The forwards so far.
        checkpoints: For each save so far, the tensors by name, or what came instead.
        returned: For each step so far, the native tensors that the layer returned, by name.
        handed: For each step so far, the native tensors that the layer was handed, by name.

    """

    def __init__(self, backend: Backend, config: Config, memory: bool, copies: bool) -> None:
        self.backend = backend
        self.config = config
        self.memory = memory
        self.copies = copies
        self.layer: Any = None
        self.fences: dict[str, Fenced] = {}
        self.forwards: list[_Played] = []
        self.checkpoints: list[Any] = []
        self.returned: list[dict[str, Native]] = []
        self.handed: list[dict[str, Native]] = []

    def build(self, state: State | None) -> State | Oddity:
        """Build the layer, and return its state."""
        self.fences = {}
        copy = None
        if state is not None and self.memory:
            self.fences = {name: Fenced(a) for name, a in state.tensors().items()}
            copy = State(**{name: fence.array for name, fence in self.fences.items()})
        elif state is not None:
            copy = state.map(private_copy)
        self.layer = attempt(lambda: self.backend.layer(self.config, copy))
        return self.layer if isinstance(self.layer, Raised) else self.state()

    def state(self) -> State | Oddity:
        """Return a copy of the state of the layer."""
        return read_state(self.layer)

    def answers(self, step: Step) -> dict[str, Any]:
        """Play a step, and return the fields of its answer that are not empty."""
        self.returned.append({})
        self.handed.append({})
        answered = _ANSWERS[type(step)](self, step)
        overrun = tuple(name for name, fence in self.fences.items() if fence.overrun())
        if overrun:
            answered["overrun"] = (*overrun, *answered.get("overrun", ()))
        return answered

    def looked_at_again(self, answer: Answer, place: int) -> Answer:
        """Return the answer to the step at ``place`` with its tensors as they are now."""
        tensors = self.returned[place] | self.handed[place]
        if not self.memory or place == len(self.returned) - 1 or not tensors:
            return answer
        later = {name: self._read(tensor, "earlier") for name, tensor in tensors.items()}
        return replace(answer, later=later)

    def _forward(self, step: Forward) -> dict[str, Any]:
        x, record = self._input(step), None
        returned: Any
        if isinstance(x.native, Raised):
            returned = x.native
        elif not step.wrt:
            returned = attempt(lambda: self.layer.forward(x.native))
        else:
            returned = attempt(lambda: self.layer.record(x.native, step.wrt))
            if isinstance(returned, tuple) and len(returned) == 2:
                returned, record = returned
            elif not isinstance(returned, Raised):
                returned = Malformed(
                    f"record returned {type(returned).__name__}; expected an output and a record"
                )
        self.forwards.append(_Played(self.layer, step, x, record))
        output = returned
        if not isinstance(returned, Oddity):
            output = self._result("output", returned, "forward")
        name = "error" if isinstance(output, Oddity) else "output"
        return {name: output, **self._memory({"input": x})}

    def _input(self, step: Forward) -> _HandedOver:
        """Hand over the input; if it equals that of the last forward, the same tensor again."""
        if self.forwards and interchangeable(self.forwards[-1].step.x, step.x):
            return self.forwards[-1].x
        return self._handed_over(step.x)

    def _backward(self, step: Backward | DoubleBackward) -> dict[str, Any]:
        handed = self._all_handed_over(_arrays(step))
        natives = {name: tensor.native for name, tensor in handed.items()}
        dy, *cotangents = [natives.get(name) for name in ("dy", *DIFFERENTIABLE)]
        forward = self.forwards[step.of]
        layer, record, inputs = forward.layer, forward.record, {"x": forward.x}
        if isinstance(step, Backward):
            return self._sequence(
                GRADIENTS, "backward", lambda: layer.backward(record, dy), handed, inputs
            )
        of = Gradients(*cotangents)
        return self._sequence(
            DOUBLE_GRADIENTS,
            "double_backward",
            lambda: layer.double_backward(record, dy, of),
            handed,
            inputs,
        )

    def _fold(self, step: Fold) -> dict[str, Any]:
        handed = self._all_handed_over(_arrays(step))
        weight, bias = handed["weight"].native, None
        if "bias" in handed:
            bias = handed["bias"].native
        return self._sequence(
            FOLDED, "fold", lambda: self.layer.fold(weight, bias), handed, what="tensors"
        )

    def _sequence(
        self,
        names: tuple[str, ...],
        method: str,
        call: Callable[[], Any],
        handed: Mapping[str, _HandedOver],
        inputs: Mapping[str, _HandedOver] = MappingProxyType({}),
        what: str = "gradients",
    ) -> dict[str, Any]:
        """Play a step that returns one tensor, or None, for each name.

        Args:
            names: Names of the results.
            method: Name of the method of the layer, for messages.
            call: Calls it.
            handed: The tensors that the call hands over.
            inputs: The inputs to which the call refers, which it must not change either.
            what: What the results are, for messages.

        """
        returned = _not_moved_in(handed) or attempt(call)
        if isinstance(returned, Raised):
            return {"error": returned, **self._memory({**handed, **inputs})}
        tensors = attempt(lambda: parts(returned, len(names)))
        results: dict[str, Array | Oddity | None]
        if isinstance(tensors, tuple):
            results = dict.fromkeys(names)
            for name, tensor in zip(names, tensors, strict=True):
                if tensor is not None:
                    results[name] = self._result(name, tensor, method)
        else:
            odd = Malformed(
                f"{method} returned {described(returned, tensors)}; expected {len(names)} {what}"
            )
            results = dict.fromkeys(names, odd)
        return {"results": results, **self._memory({**handed, **inputs})}

    def _save(self, _: Save) -> dict[str, Any]:
        returned = attempt(lambda: self.layer.save())
        named = attempt(lambda: by_name(returned))
        self.checkpoints.append(returned if isinstance(returned, Raised) else named)
        if isinstance(returned, Raised):
            return {"error": returned}
        if not isinstance(named, dict):
            sentence = f"save returned {described(returned, named)}; expected tensors by name"
            return {"error": Malformed(sentence)}
        results = {name: self._result(name, tensor, "save") for name, tensor in named.items()}
        return {"results": results}

    def _restore(self, step: Restore) -> dict[str, Any]:
        if step.fresh:
            built = self.build(None)
            if isinstance(built, Oddity):
                return {"error": built}
        checkpoint = self.checkpoints[step.of]
        if isinstance(checkpoint, Raised):
            return {"error": checkpoint}
        if not isinstance(checkpoint, Mapping):
            return {"error": Malformed("there is no checkpoint")}
        names = step.only or checkpoint
        tensors = {name: checkpoint[name] for name in names if name in checkpoint}
        return _raised(attempt(lambda: self.layer.load(tensors, strict=not step.only)))

    def _load(self, step: Load) -> dict[str, Any]:
        handed = self._all_handed_over(step.tensors())
        natives = {name: tensor.native for name, tensor in handed.items()}
        returned = _not_moved_in(handed)
        if returned is None:
            returned = attempt(lambda: self.layer.load(natives, strict=step.strict))
        return _raised(returned) | self._memory(handed)

    def _called(self, step: Step) -> dict[str, Any]:
        return _raised(attempt(lambda: _CALLS[type(step)](self.layer, step)))

    def _handed_over(self, array: Array) -> _HandedOver:
        """Make a native tensor of a private copy of an array."""
        fence = Fenced(array) if self.memory else None
        copy = fence.array if fence else private_copy(array)
        return _HandedOver(array, attempt(lambda: self.backend.to_native(copy)), fence)

    def _all_handed_over(self, arrays: Mapping[str, Array]) -> dict[str, _HandedOver]:
        return {name: self._handed_over(a) for name, a in arrays.items()}

    def _memory(self, handed: Mapping[str, _HandedOver]) -> dict[str, Any]:
        """Return the fields of an answer about memory.

        Args:
            handed: The tensors that were handed over for the step, and the inputs to which it
                refers.

        """
        if not self.memory:
            return {}
        self.handed[-1] = {name: tensor.native for name, tensor in handed.items()}
        # ``to_native`` names the method that made these tensors, in a message that one is wrong.
        now = {name: self._view(tensor.native, "to_native") for name, tensor in handed.items()}
        overrun = []
        for name, tensor in handed.items():
            if tensor.overrun() or _gaps_differ(tensor.array, now[name]):
                overrun.append(name)
        results = {name: self._view(native, name) for name, native in self.returned[-1].items()}
        shared = []
        for (name, result), (other, tensor_now) in product(results.items(), now.items()):
            if _share_memory(result, tensor_now):
                shared.append(f"{name} and {other}")
        return {
            "handed": {name: (tensor.array, copied(now[name])) for name, tensor in handed.items()},
            "overrun": tuple(overrun),
            "shared": tuple(shared),
        }

    def _result(self, name: str, tensor: Native, method: str) -> Array | Oddity:
        """Remember a result that a method of the layer returned, and read it."""
        self.returned[-1][name] = tensor
        return self._read(tensor, method)

    def _read(self, tensor: Any, method: str) -> Array | Oddity:
        """Return a native tensor as an array, copied if tensors are to be copied."""
        array = self._view(tensor, method)
        return copied(array) if self.copies else array

    def _view(self, tensor: Any, method: str) -> Array | Oddity:
        """Return a native tensor as an array, which may be a view of its memory."""
        if isinstance(tensor, Raised):
            return tensor
        if tensor is None:
            return Malformed(f"{method} returned None; expected a tensor of shape (N, C, H, W)")
        kind = type(tensor).__name__
        array = attempt(lambda: self.backend.to_numpy(tensor))
        if isinstance(array, Raised):
            return Malformed(
                f"{method} returned {kind}, which the backend's to_numpy could not convert"
                f" ({array})"
            )
        if isinstance(array, np.ndarray):
            # A subclass of ndarray could answer anything to the judge.
            plain = np.asarray(array)
            if plain.dtype.kind in "fiub" or is_floating(plain.dtype):
                return plain
        return Malformed(
            f"{method} returned {kind}; expected a tensor that becomes a numeric NumPy array"
        )


def _not_moved_in(handed: Mapping[str, _HandedOver]) -> Raised | None:
    """Return what ``to_native`` raised for the first of these tensors for which it did."""
    for tensor in handed.values():
        if isinstance(tensor.native, Raised):
            return tensor.native
    return None


def _raised(returned: object) -> dict[str, Any]:
    """Return the fields of an answer to a step that returns nothing."""
    return {"error": returned} if isinstance(returned, Raised) else {}


def _arrays(step: Step) -> dict[str, Array]:
    """Return the arrays of a step by name."""
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return {name: a for name, a in values.items() if isinstance(a, np.ndarray)}


def _gaps_differ(array: Array, now: Array | Oddity) -> bool:
    """Return whether the backend has written into the gaps of a tensor that it copied.

    This concerns a backend whose ``to_native`` copies an array in its layout, gaps included. The
    fence around the private copy cannot see what happens in such a tensor.
    """
    between = gaps(array)
    if not between.size or not isinstance(now, np.ndarray):
        return False
    if now.strides != array.strides or now.shape != array.shape:
        return False
    return not same_bits(take_apart(array).flat[between], take_apart(now).flat[between])


def _share_memory(a: Array | Oddity, b: Array | Oddity) -> bool:
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)


_CALLS: dict[type[Step], Callable[[Any, Any], object]] = {
    Train: lambda layer, _: layer.train(True),
    Eval: lambda layer, _: layer.train(False),
    ResetRunningStats: lambda layer, _: layer.reset_running_stats(),
    ResetParameters: lambda layer, _: layer.reset_parameters(),
    Set: lambda layer, step: layer.configure(step.name, step.value),
}
"""The calls of steps that return nothing and hand over no array, by the class of the step."""


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
"""The methods that play each class of steps, and return the fields of its answer."""
