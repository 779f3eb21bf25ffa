"""Calls into third-party code: whatever they raise or return becomes data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bn_spec.backend.contract import Layer
from bn_spec.case.config import State
from bn_spec.case.dtypes import Array
from bn_spec.play.observation import Malformed, Oddity, Raised


def _parts(returned: Any, number: int) -> tuple[Any, ...] | None:
    """Return the parts of a sequence of so many, or None if it is none."""
    fits = isinstance(returned, Sequence) and len(returned) == number
    return tuple(returned[i] for i in range(number)) if fits else None


def _by_name(returned: Any) -> dict[str, Any] | None:
    return (
        {str(name): tensor for name, tensor in returned.items()}
        if isinstance(returned, Mapping)
        else None
    )


def _kind(returned: object, read: object) -> str:
    """Return what was returned, and what reading it has raised if it has."""
    return (
        f"{type(returned).__name__}{f', reading which {read}' if isinstance(read, Raised) else ''}"
    )


def _copied(array: Array | Oddity) -> Array | Oddity:
    """Return a copy; a view can claim to be larger than any memory."""
    copied: Array | Oddity = (
        _attempt(lambda: array.copy(order="K")) if isinstance(array, np.ndarray) else array
    )
    return copied


LONGEST_MESSAGE = 10_000
"""Characters of the message of an exception that are kept."""


def _attempt(call: Callable[[], Any]) -> Any:
    """Return what the call returns, or what it raised; where it forked, its other self ends here.

    A KeyboardInterrupt cannot be told from that of a person, and ends the run.
    """
    here = os.getpid()
    try:
        with np.errstate(all="ignore"):
            returned = call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a third party's layer may raise anything; it becomes data
        returned = Raised(tuple(kind.__name__ for kind in type(error).__mro__), _message(error))
    if os.getpid() != here:
        os._exit(0)
    return returned


def _message(error: BaseException) -> str:
    """Return the message of an exception, as text that can be written anywhere; nothing if it cannot be read."""
    try:
        return str(error)[:LONGEST_MESSAGE].encode("utf-8", "backslashreplace").decode()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - even the message is a third party's code
        return ""


def _read_state(layer: Layer) -> State | Oddity:
    state = _attempt(lambda: layer.state())
    if isinstance(state, Raised):
        return Malformed(f"reading the layer's state {state}")
    if not isinstance(state, State):
        return Malformed(f"the layer's state is {type(state).__name__}; expected bn_spec.State")
    for name, tensor in state.items():
        if tensor is not None and not isinstance(tensor, np.ndarray):
            return Malformed(f"{name} is {type(tensor).__name__}; expected a NumPy array or None")
    copied: State | Raised = _attempt(state.copy)
    return (
        Malformed(f"reading the layer's state {copied}") if isinstance(copied, Raised) else copied
    )
