"""A case as Python source that rebuilds it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from bn_spec.case.arrays import Parts, put_together, take_apart
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array
from bn_spec.case.packing import packed, unpacked
from bn_spec.case.steps import Step

if TYPE_CHECKING:
    from bn_spec.case.script import Case


LONGEST_LISTING = 64
"""Arrays of more elements are printed packed into text rather than as a list of numbers."""


def array(
    values: list[Any] | float | str,
    shape: tuple[int, ...] = (),
    dtype: str = "float32",
    strides: tuple[int, ...] | None = None,
) -> Array:
    """Build an array from a printed case.

    ``values`` are the elements in memory order: a list, or the text into which they were packed.
    ``strides`` count elements and default to C order.
    """
    kind = np.dtype(dtype)
    flat = unpacked(values, kind) if isinstance(values, str) else np.ravel(np.array(values, kind))
    return put_together(Parts(flat, shape, _contiguous(shape) if strides is None else strides))


def source(case: Case) -> str:
    """Return the case as Python that rebuilds it, given ``from bn_spec.case import *``."""
    parts = [f"config={_config_source(case.config)}"]
    if case.state is not None:
        parts.append(f"state={_state_source(case.state)}")
    if case.steps:
        parts.append(f"steps=({' '.join(f'{_step_source(step)},' for step in case.steps)})")
    return "Case(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def _config_source(config: Config) -> str:
    arguments = config.departures() | ({"dtype": config.dtype} if config.dtype != "float32" else {})
    return f"Config({', '.join([str(config.num_features), *(f'{k}={v!r}' for k, v in arguments.items())])})"


def _state_source(state: State) -> str:
    return f"State({', '.join(f'{name}={_array_source(a)}' for name, a in state.items() if a is not None)})"


def _step_source(step: Step) -> str:
    arguments = []
    for number, part in enumerate(fields(step)):
        value = getattr(step, part.name)
        if isinstance(value, np.ndarray):
            arguments.append(f"{f'{part.name}=' if number else ''}{_array_source(value)}")
        elif value != part.default:
            arguments.append(f"{part.name}={value!r}")
    return f"{type(step).__name__}({', '.join(arguments)})"


def _array_source(a: Array) -> str:
    flat, shape, strides = take_apart(a)
    values: str
    if flat.size > LONGEST_LISTING:
        values = repr(packed(flat))
    else:
        values = f"[{', '.join(map(_number_source, flat))}]" if shape else _number_source(flat[0])
    arguments = [values]
    if shape:
        arguments.append(str(shape))
    if a.dtype != np.float32:
        arguments.append(f"dtype={a.dtype.name!r}")
    if strides != _contiguous(shape):
        arguments.append(f"strides={strides}")
    return f"array({', '.join(arguments)})"


def _number_source(value: Any) -> str:
    """Return the shortest literal that gives ``value`` back bit for bit."""
    if value.dtype.kind in "iu":
        return str(value)
    if not np.isfinite(value):
        return f"float({str(value)!r})"
    short = str(value).removesuffix(".0") if value else ("-0.0" if np.signbit(value) else "0")
    return short if value.dtype.type(float(short)) == value else repr(float(value))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))
