"""Cases and observations as bytes: what travels between processes, and what is noted before a crash. No pickle.

A frame is a header (JSON) and the memory of the arrays that it names by position. Who reads one
believes nothing: a frame that is damaged, or was written by somebody else, raises
:class:`WireError` and makes nobody allocate more than it holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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
"""What a frame starts with: a mark, and the lengths of its two parts."""

_MARK = b"bn1\n"
_ALIGNMENT = 64
_LONGEST_HEADER = 2**26


class WireError(BnSpecError):
    """Bytes that are no frame, or say what cannot be."""


def frame(script: Any, arrays: Sequence[Array] = ()) -> bytes:
    """Return what is plain data, and arrays that it refers to by position, as one frame."""
    kinds, parts, size = [], [b"", b""], 0
    for array in arrays:
        shape, strides = array.shape, None
        if array.strides == _strides(
            shape, array.itemsize
        ):  # most are, and this takes a tenth of the time
            memory = array.tobytes()
        else:
            flat, shape, strides = take_apart(array)
            memory = flat.tobytes()
        kinds.append((_name(array.dtype), shape, strides, len(memory)))
        parts += memory, bytes(-len(memory) % _ALIGNMENT)
        size += len(memory) + len(parts[-1])
    parts[1] = _written((script, kinds)).encode()
    parts[0] = PREFIX.pack(_MARK, len(parts[1]), size)
    return b"".join(parts)


_written = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@cache
def _strides(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the strides of an array in C order."""
    return tuple(size * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def lengths(prefix: bytes) -> tuple[int, int]:
    """Return the lengths of the two parts of a frame, from its start.

    Raises:
        WireError: it is not the start of a frame.

    """
    mark, header, size = PREFIX.unpack(prefix)
    if mark != _MARK or header > _LONGEST_HEADER:
        raise WireError("not the start of a frame")
    return header, size


def unframed(header: bytes | bytearray, memory: bytearray) -> tuple[Any, list[Array]]:
    """Return what :func:`frame` was given; the arrays lie in ``memory``.

    Raises:
        WireError: the two parts of the frame do not fit together.

    """
    try:
        script, kinds = json.loads(bytes(header))
        arrays, start = list[Array](), 0
        for name, shape, strides, size in kinds:
            kind = _kind(name)
            flat = (
                np.frombuffer(memory, kind, size // kind.itemsize, start)
                if size
                else np.empty(0, kind)
            )
            apart = Parts(
                flat, tuple(shape), _strides(tuple(shape), 1) if strides is None else tuple(strides)
            )
            arrays.append(put_together(apart))
            start += size + -size % _ALIGNMENT
    except Exception as error:  # json, NumPy and unpacking raise anything on what is not a frame
        raise WireError(
            f"not a frame, or a damaged one ({type(error).__name__}: {error})"
        ) from error
    return script, arrays


def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.kind == "V" else dtype.str


@cache
def _kind(name: str) -> np.dtype[Any]:
    kind = np.dtype(name)
    if kind.kind not in "fiubc" and kind.name != "bfloat16":
        raise WireError(f"dtype {name!r}; allowed: numbers")
    return kind


# Cases -------------------------------------------------------------------------------------------------


def of_cases(cases: Iterable[Case]) -> tuple[list[Any], list[Array]]:
    """Return cases as plain data and arrays, each array as often as it is in them."""
    arrays: list[Array] = []

    def place(a: Array) -> dict[str, Any]:
        arrays.append(a)
        return {"array": len(arrays) - 1}

    return [encode(case, place) for case in cases], arrays


def to_cases(script: Any, arrays: Sequence[Array]) -> list[Case]:
    """Return the cases that :func:`of_cases` took apart, on these arrays.

    Raises:
        WireError: The script is not that of cases.

    """
    try:
        return [decode(each, lambda entry: arrays[entry["array"]]) for each in script]
    except Exception as error:  # damaged scripts raise anything
        raise WireError(
            f"not a case, or a damaged one ({type(error).__name__}: {error})"
        ) from error


# Observations ------------------------------------------------------------------------------------------


def of_observations(
    observations: Iterable[Observation], given: Sequence[Array] = ()
) -> tuple[list[Any], list[Array]]:
    """Return observations as plain data and arrays; the first positions are those of arrays that were ``given``."""
    places = {id(array): place for place, array in enumerate(given)}
    arrays: list[Array] = []

    def value(a: Any) -> Any:
        match a:
            case np.ndarray():
                if id(a) not in places:
                    if not _sendable(a):
                        return {"foreign": a.shape}
                    places[id(a)] = len(given) + len(arrays)
                    arrays.append(_apart(a))
                return places[id(a)]
            case State():
                return {"state": [value(tensor) for _, tensor in a.items()]}
            case Raised():
                return {"raised": [a.kinds, a.message]}
            case Malformed():
                return {"malformed": a.sentence}
            case Died():
                return {"died": [a.step, a.sentence]}
            case _:
                return a

    def named(values: Any) -> dict[str, Any]:
        return {name: value(a) for name, a in values.items()}

    script = [
        (
            value(observation.initial),
            [
                (
                    answer.training,
                    value(answer.before),
                    value(answer.after),
                    value(answer.output),
                    value(answer.error),
                    named(answer.results),
                    {name: (value(was), value(now)) for name, (was, now) in answer.handed.items()},
                    answer.overrun,
                    answer.shared,
                    answer.mode,
                    named(answer.later),
                )
                for answer in observation.answers
            ],
        )
        for observation in observations
    ]
    return script, arrays


def _sendable(a: Array) -> bool:
    try:
        return bool(_kind(_name(a.dtype)))
    except (WireError, TypeError):
        return False


def _apart(a: Array) -> Array:
    """Return an array that can be taken apart: with strides of another kind, a copy."""
    try:
        take_apart(a)
    except ValueError:
        return a.copy(order="K")
    return a


def to_observations(
    script: Any, arrays: Sequence[Array], cases: Sequence[Case]
) -> list[Observation]:
    """Return the observations of these cases that :func:`of_observations` took apart.

    Raises:
        WireError: the script is not that of observations of these cases.

    """
    try:
        return [
            Observation(
                _state(initial, arrays),
                tuple(
                    Answer(step, *_answer(content, arrays))
                    for step, content in zip(case.steps, answers, strict=False)
                ),
            )
            for case, (initial, answers) in zip(cases, script, strict=True)
        ]
    except WireError:
        raise
    except Exception as error:
        raise WireError(
            f"not an observation, or a damaged one ({type(error).__name__}: {error})"
        ) from error


def _answer(content: Any, arrays: Sequence[Array]) -> Iterable[Any]:
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
    elif isinstance(odd := _value(content, arrays), Oddity):
        return odd
    raise WireError("not a state")


def _value(content: Any, arrays: Sequence[Array]) -> Any:
    match content:
        case None:
            return None
        case int() if 0 <= content < len(arrays):
            return arrays[content]
        case {"foreign": list(shape)}:
            return np.broadcast_to(
                np.array(None, object), tuple(map(int, shape))
            )  # whatever was in it
        case {"raised": [[*kinds], message]}:
            return Raised(tuple(map(str, kinds)), str(message))
        case {"malformed": sentence}:
            return Malformed(str(sentence))
        case {"died": [int(step), sentence]}:
            return Died(step, str(sentence))
    raise WireError(f"not an answer: {str(content)[:100]}")
