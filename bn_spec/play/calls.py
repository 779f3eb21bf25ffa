"""Calls into third-party code: what they return, and whatever they raise, becomes data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bn_spec.backend.contract import Layer
from bn_spec.case.config import State
from bn_spec.case.dtypes import Array
from bn_spec.play.observation import Malformed, Oddity, Raised

LONGEST_MESSAGE = 10_000
"""Maximum number of characters of an exception's message; the rest is cut off."""


def attempt(call: Callable[[], Any]) -> Any:
    """Call third-party code.

    Returns:
        What the call returns, or the exception that it raises as a
        :class:`bn_spec.play.observation.Raised`.

    Raises:
        KeyboardInterrupt: The user interrupts the run, or the call raises it: the two cannot be
            told apart.

    """
    here = os.getpid()
    try:
        with np.errstate(all="ignore"):
            returned = call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - third-party code may raise anything
        returned = Raised(tuple(kind.__name__ for kind in type(error).__mro__), _message(error))
    if os.getpid() != here:
        # The call has forked. The child must not go on with the run beside its parent.
        os._exit(0)
    return returned


def _message(error: BaseException) -> str:
    """Return the message of an exception as encodable text; nothing if it cannot be read."""
    try:
        return str(error)[:LONGEST_MESSAGE].encode("utf-8", "backslashreplace").decode()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - __str__ of an exception is third-party code too
        return ""


def parts(returned: Any, number: int) -> tuple[Any, ...] | None:
    """Return the items of a sequence of this length, or None if it is not such a sequence."""
    if not isinstance(returned, Sequence) or len(returned) != number:
        return None
    return tuple(returned[i] for i in range(number))


def by_name(returned: Any) -> dict[str, Any] | None:
    """Return the items of a mapping by ``str`` of their keys, or None if it is not a mapping."""
    if not isinstance(returned, Mapping):
        return None
    return {str(name): tensor for name, tensor in returned.items()}


def described(returned: object, read: object) -> str:
    """Return the class of an object that a backend returned, for a message.

    Args:
        returned: The object.
        read: What reading it gave. If that is a :class:`bn_spec.play.observation.Raised`, the
            description says so.

    """
    kind = type(returned).__name__
    return f"{kind}, reading which {read}" if isinstance(read, Raised) else kind


def copied(array: Array | Oddity) -> Array | Oddity:
    """Return a copy of an array; anything else as it is.

    A view can claim to be larger than any memory. The copy then fails, and the MemoryError is
    returned as a :class:`bn_spec.play.observation.Raised`.
    """
    if not isinstance(array, np.ndarray):
        return array
    copy: Array | Oddity = attempt(lambda: array.copy(order="K"))
    return copy


def read_state(layer: Layer) -> State | Oddity:
    """Return a copy of the state of a layer, or a sentence about why it cannot be read."""
    state = attempt(lambda: layer.state())
    if isinstance(state, Raised):
        return Malformed(f"reading the layer's state {state}")
    if not isinstance(state, State):
        return Malformed(f"the layer's state is {type(state).__name__}; expected bn_spec.State")
    for name, tensor in state.items():
        if tensor is not None and not isinstance(tensor, np.ndarray):
            return Malformed(f"{name} is {type(tensor).__name__}; expected a NumPy array or None")
    copy: State | Raised = attempt(state.copy)
    return Malformed(f"reading the layer's state {copy}") if isinstance(copy, Raised) else copy
