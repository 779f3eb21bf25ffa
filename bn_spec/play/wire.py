"""Frames: cases and observations as bytes, for messages between processes and for notes.

A frame is a prefix, a header and a piece of memory. The header is JSON: plain data, and the form of
each array. The data refer to arrays by their position, and the memory contains the arrays. There is
no pickle.

A reader trusts nothing in a frame. If a frame is damaged or foreign, the reader raises
:class:`WireError`, and allocates no more memory than the frame has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import prod
from struct import Struct
from typing import Any

import numpy as np

from bn_spec.case.arrays import Parts, put_together, take_apart
from bn_spec.case.config import STATE_FIELDS, State
from bn_spec.case.dtypes import Array
from bn_spec.case.encoding import decode, encode
from bn_spec.case.script import Case
from bn_spec.errors import BnSpecError
from bn_spec.play.observation import Answer, Died, Malformed, Observation, Oddity, Raised

PREFIX = Struct("<4sIQ")
"""Prefix of a frame: a mark, the length of the header and that of the memory, in bytes."""

_MARK = b"bn1\n"

_ALIGNMENT = 64
"""Alignment in bytes of each array in the memory of a frame."""

_LONGEST_HEADER = 2**26
"""Length in bytes above which a header is taken for damaged."""


class WireError(BnSpecError):
    """Bytes that are not a frame, or a frame whose content makes no sense."""


def frame(script: Any, arrays: Sequence[Array] = ()) -> bytes:
    """Return one frame of plain data and arrays.

    Args:
        script: Data that JSON can represent, with positions in ``arrays`` instead of arrays.
        arrays: The arrays.

    """
    forms, pieces, size = [], [b"", b""], 0
    for array in arrays:
        shape, strides = array.shape, None
        if array.strides == _strides(shape, array.itemsize):
            # Most arrays are in C order, and this takes a tenth of the time.
            memory = array.tobytes()
        else:
            flat, shape, strides = take_apart(array)
            memory = flat.tobytes()
        forms.append((_name(array.dtype), shape, strides, len(memory)))
        pieces += memory, bytes(-len(memory) % _ALIGNMENT)
        size += len(memory) + len(pieces[-1])
    pieces[1] = _written((script, forms)).encode()
    pieces[0] = PREFIX.pack(_MARK, len(pieces[1]), size)
    return b"".join(pieces)


_written = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Returns plain data as JSON without spaces."""


@cache
def _strides(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the strides of C order for elements of ``size`` bytes, in bytes."""
    return tuple(size * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def lengths(prefix: bytes) -> tuple[int, int]:
    """Return the length of the header and that of the memory of a frame, in bytes.

    Raises:
        WireError: ``prefix`` is not the prefix of a frame.

    """
    mark, header, size = PREFIX.unpack(prefix)
    if mark != _MARK or header > _LONGEST_HEADER:
        raise WireError("not the start of a frame")
    return header, size


def unframed(header: bytes | bytearray, memory: bytearray) -> tuple[Any, list[Array]]:
    """Return the plain data and the arrays of a frame; the arrays are views of ``memory``.

    Raises:
        WireError: The header is damaged, or does not fit the memory.

    """
    try:
        script, forms = json.loads(bytes(header))
        arrays, start = list[Array](), 0
        for name, lengths_, strides, size in forms:
            kind, shape = _kind(name), tuple(lengths_)
            if size:
                flat = np.frombuffer(memory, kind, size // kind.itemsize, start)
            else:
                flat = np.empty(0, kind)  # frombuffer refuses to return an empty array
            in_elements = _strides(shape, 1) if strides is None else tuple(strides)
            arrays.append(put_together(Parts(flat, shape, in_elements)))
            start += size + -size % _ALIGNMENT
    except Exception as error:  # json, NumPy and unpacking raise anything on a damaged frame
        raise WireError(
            f"not a frame, or a damaged one ({type(error).__name__}: {error})"
        ) from error
    return script, arrays


def _name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype in a header; that of bfloat16 in NumPy's notation is ambiguous."""
    return dtype.name if dtype.kind == "V" else dtype.str


@cache
def _kind(name: str) -> np.dtype[Any]:
    """Return the dtype of a name in a header."""
    kind = np.dtype(name)
    if kind.kind not in "fiubc" and kind.name != "bfloat16":
        raise WireError(f"dtype {name!r}; allowed: numbers")
    return kind


# Cases --------------------------------------------------------------------------------------------


def of_cases(cases: Iterable[Case]) -> tuple[list[Any], list[Array]]:
    """Return cases as plain data and arrays; an array that occurs twice is listed twice."""
    arrays: list[Array] = []

    def place(a: Array) -> dict[str, Any]:
        arrays.append(a)
        return {"array": len(arrays) - 1}

    return [encode(case, place) for case in cases], arrays


def to_cases(script: Any, arrays: Sequence[Array]) -> list[Case]:
    """Return the cases from which :func:`of_cases` made a script and arrays.

    Raises:
        WireError: The script is not one of cases.

    """
    try:
        return [decode(each, lambda entry: arrays[entry["array"]]) for each in script]
    except Exception as error:  # damaged scripts raise anything
        raise WireError(
            f"not a case, or a damaged one ({type(error).__name__}: {error})"
        ) from error


# Observations -------------------------------------------------------------------------------------


def of_observations(
    observations: Iterable[Observation], known: Sequence[Array] = ()
) -> tuple[list[Any], list[Array]]:
    """Return observations as plain data and arrays.

    Args:
        observations: The observations.
        known: Arrays that the reader already has, such as those of the cases. Positions in the
            script count these first.

    Returns:
        The script, and the arrays that the reader does not have.

    """
    writer = _Writer(known)
    script = [writer.observation(each) for each in observations]
    return script, writer.arrays


class _Writer:
    """Turns observations into plain data, with positions instead of arrays.

    Attributes:
        arrays: The arrays so far that the reader does not have.

    """

    def __init__(self, known: Sequence[Array]) -> None:
        self.arrays: list[Array] = []
        self._known = len(known)
        self._places = {id(array): place for place, array in enumerate(known)}

    def observation(self, observation: Observation) -> tuple[Any, ...]:
        """Return an observation as plain data."""
        answers = [self._answer(answer) for answer in observation.answers]
        return self._value(observation.initial), answers

    def _answer(self, answer: Answer) -> tuple[Any, ...]:
        value, named = self._value, self._named
        handed = {name: (value(was), value(now)) for name, (was, now) in answer.handed.items()}
        return (
            answer.training,
            value(answer.before),
            value(answer.after),
            value(answer.output),
            value(answer.error),
            named(answer.results),
            handed,
            answer.overrun,
            answer.shared,
            answer.mode,
            named(answer.later),
        )

    def _value(self, a: Any) -> Any:
        match a:
            case np.ndarray():
                return self._position(a)
            case State():
                return {"state": [self._value(tensor) for _, tensor in a.items()]}
            case Raised():
                return {"raised": [a.kinds, a.message]}
            case Malformed():
                return {"malformed": a.sentence}
            case Died():
                return {"died": [a.step, a.sentence]}
            case _:
                return a

    def _position(self, a: Array) -> int | dict[str, Any]:
        """Return the position of an array, which is new or occurred before."""
        place = self._places.get(id(a))
        if place is not None:
            return place
        if not _sendable(a):
            return {"foreign": a.shape}
        self.arrays.append(_apart(a))
        place = self._known + len(self.arrays) - 1
        self._places[id(a)] = place
        return place

    def _named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._value(a) for name, a in values.items()}


def _sendable(a: Array) -> bool:
    """Return whether a frame can contain an array."""
    try:
        _kind(_name(a.dtype))
    except (WireError, TypeError):
        return False
    return True


def _apart(a: Array) -> Array:
    """Return an array if it can be taken apart; otherwise a copy that can."""
    try:
        take_apart(a)
    except ValueError:
        return a.copy(order="K")
    return a


def to_observations(
    script: Any, arrays: Sequence[Array], cases: Sequence[Case]
) -> list[Observation]:
    """Return the observations from which :func:`of_observations` made a script and arrays.

    Args:
        script: The script.
        arrays: The arrays that the reader already had, and then those of the frame.
        cases: The case of each observation.

    Raises:
        WireError: The script is not one of observations of these cases.

    """
    try:
        observations = []
        for case, (initial, entries) in zip(cases, script, strict=True):
            # A layer whose state could not be read has fewer answers than the case has steps.
            answers = [
                Answer(step, *_answer(entry, arrays))
                for step, entry in zip(case.steps, entries, strict=False)
            ]
            observations.append(Observation(_state(initial, arrays), tuple(answers)))
        return observations
    except WireError:
        raise
    except Exception as error:  # damaged scripts raise anything
        raise WireError(
            f"not an observation, or a damaged one ({type(error).__name__}: {error})"
        ) from error


def _answer(content: Any, arrays: Sequence[Array]) -> Iterable[Any]:
    """Yield the fields of an answer, after its step."""
    training, before, after, output, error, results, handed, overrun, shared, mode, later = content
    yield bool(training)
    yield _state(before, arrays)
    yield _state(after, arrays)
    yield _value(output, arrays)
    yield _value(error, arrays)
    yield {name: _value(a, arrays) for name, a in results.items()}
    yield {name: (_value(was, arrays), _value(now, arrays)) for name, (was, now) in handed.items()}
    for names in (overrun, shared, mode):
        yield tuple(map(str, names))
    yield {name: _value(a, arrays) for name, a in later.items()}


def _state(content: Any, arrays: Sequence[Array]) -> State | Oddity:
    if isinstance(content, dict) and "state" in content:
        tensors = [_value(tensor, arrays) for tensor in content["state"]]
        if all(tensor is None or isinstance(tensor, np.ndarray) for tensor in tensors):
            return State(**dict(zip(STATE_FIELDS, tensors, strict=True)))
    else:
        oddity = _value(content, arrays)
        if isinstance(oddity, Oddity):
            return oddity
    raise WireError("not a state")


def _value(content: Any, arrays: Sequence[Array]) -> Any:
    match content:
        case None:
            return None
        case int() if 0 <= content < len(arrays):
            return arrays[content]
        case {"foreign": list(shape)}:
            # An array of a dtype that a frame cannot contain: only its shape has been sent.
            return np.broadcast_to(np.array(None, object), tuple(map(int, shape)))
        case {"raised": [[*kinds], message]}:
            return Raised(tuple(map(str, kinds)), str(message))
        case {"malformed": sentence}:
            return Malformed(str(sentence))
        case {"died": [int(step), sentence]}:
            return Died(step, str(sentence))
    raise WireError(f"not an answer: {str(content)[:100]}")
