"""Cases as plain data: a script of JSON values, with each array in a place that the caller chooses.

Case files, messages between processes and the file of pinned cases use the same script. They differ
in where arrays go: into a member of an archive, into a message, or into the text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from bn_spec.case.arrays import Parts, put_together, take_apart
from bn_spec.case.config import STATE_FIELDS, Config, State
from bn_spec.case.dtypes import Array
from bn_spec.case.packing import LONGEST_LISTING, packed, unpacked
from bn_spec.case.script import Case
from bn_spec.case.steps import STEPS, Step

Place: TypeAlias = Callable[[Array], dict[str, Any]]
"""Stores an array, and returns a JSON object with which a :data:`Fetch` finds it again."""

Fetch: TypeAlias = Callable[[dict[str, Any]], Array]
"""Returns the array that a :data:`Place` stored, from the JSON object that it returned."""


def encode(case: Case, place: Place) -> dict[str, Any]:
    """Return a case as a JSON object, with the JSON object of ``place`` instead of each array."""
    state = case.state
    return {
        "config": {name: getattr(case.config, name) for name in _CONFIG},
        "state": None if state is None else _encoded_state(state, place),
        "steps": [_encoded_step(step, place) for step in case.steps],
    }


def decode(script: Mapping[str, Any], fetch: Fetch) -> Case:
    """Return the case that :func:`encode` wrote as ``script``.

    Raises:
        ConfigError: The script is well formed, but its case makes no sense.
        Exception: The script is damaged. The exception can be of any class: a caller that reads
            scripts from outside catches them all.

    """
    state = script["state"]
    return Case(
        config=Config(**script["config"]),
        state=None if state is None else _decoded_state(state, fetch),
        steps=tuple(_decoded_step(step, fetch) for step in script["steps"]),
    )


def outline(array: Array) -> tuple[Array, dict[str, Any]]:
    """Return the memory that an array spans, and a JSON object of its shape and strides.

    Strides count elements.
    """
    flat, shape, strides = take_apart(array)
    return flat, {"shape": list(shape), "strides": list(strides)}


def place_inline(array: Array) -> dict[str, Any]:
    """Return an array as a JSON object that contains its elements: a :data:`Place`."""
    flat, entry = outline(array)
    entry["dtype"] = flat.dtype.name
    if flat.size <= LONGEST_LISTING and np.isfinite(flat).all():
        entry["values"] = flat.tolist()
    else:
        entry["packed"] = packed(flat)
    return entry


def fetch_inline(entry: dict[str, Any]) -> Array:
    """Return the array that :func:`place_inline` wrote: a :data:`Fetch`."""
    kind = np.dtype(entry["dtype"])
    text = entry.get("packed")
    flat = np.array(entry["values"], kind) if text is None else unpacked(text, kind)
    return put_together(Parts(flat, tuple(entry["shape"]), tuple(entry["strides"])))


_CONFIG = tuple(field.name for field in fields(Config))
"""Names of the fields of a config."""
_STEP = {name: tuple(field.name for field in fields(kind)) for name, kind in STEPS.items()}
"""Names of the fields of each step, by the name of its class."""


def _encoded_state(state: State, place: Place) -> dict[str, Any]:
    return {name: None if a is None else place(a) for name, a in state.items()}


def _decoded_state(entries: Mapping[str, Any], fetch: Fetch) -> State:
    unknown = entries.keys() - set(STATE_FIELDS)
    if unknown:
        raise KeyError(sorted(unknown)[0])
    return State(**{name: None if a is None else fetch(a) for name, a in entries.items()})


def _encoded_step(step: Step, place: Place) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": type(step).__name__}
    for name in _STEP[entry["step"]]:
        value = getattr(step, name)
        entry[name] = place(value) if isinstance(value, np.ndarray) else value
    return entry


def _decoded_step(entry: Mapping[str, Any], fetch: Fetch) -> Step:
    arguments: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            arguments[name] = fetch(value)
        elif isinstance(value, list):
            arguments[name] = tuple(value)
        elif name != "step":
            arguments[name] = value
    step: Step = STEPS[entry["step"]](**arguments)
    return step
