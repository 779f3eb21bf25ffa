"""A case as Python source that rebuilds it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from bn_spec.case.arrays import Parts, put_together, take_apart
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array
from bn_spec.case.packing import LONGEST_LISTING, packed, unpacked
from bn_spec.case.steps import Step


def array(
    values: list[Any] | float | str,
    shape: tuple[int, ...] = (),
    dtype: str = "float32",
    strides: tuple[int, ...] | None = None,
) -> Array:
    """Build an array of a printed case.

    Args:
        values: The memory that the array spans, gaps included: a list, a single number, or the text
            of :func:`bn_spec.case.packing.packed`.
        shape: Length of each axis.
        dtype: Name of the dtype.
        strides: Stride of each axis, in elements; C order by default.

    """
    kind = np.dtype(dtype)
    flat = unpacked(values, kind) if isinstance(values, str) else np.ravel(np.array(values, kind))
    return put_together(Parts(flat, shape, _contiguous(shape) if strides is None else strides))


def case_source(config: Config, state: State | None, steps: tuple[Step, ...]) -> str:
    """Return Python that rebuilds a case of these parts after ``from bn_spec.case import *``."""
    parts = [f"config={_config_source(config)}"]
    if state is not None:
        parts.append(f"state={_state_source(state)}")
    if steps:
        # Each step has a comma of its own, so that one step is a tuple too.
        sources = " ".join(f"{_step_source(step)}," for step in steps)
        parts.append(f"steps=({sources})")
    lines = [f"    {part},\n" for part in parts]
    return f"Case(\n{''.join(lines)})"


def _config_source(config: Config) -> str:
    arguments = [str(config.num_features)]
    arguments += [f"{name}={value!r}" for name, value in config.departures().items()]
    if config.dtype != "float32":
        arguments.append(f"dtype={config.dtype!r}")
    return f"Config({', '.join(arguments)})"


def _state_source(state: State) -> str:
    arguments = [f"{name}={_array_source(a)}" for name, a in state.tensors().items()]
    return f"State({', '.join(arguments)})"


def _step_source(step: Step) -> str:
    arguments = []
    for number, part in enumerate(fields(step)):
        value = getattr(step, part.name)
        if isinstance(value, np.ndarray):
            name = f"{part.name}=" if number else ""  # the first argument stands by its place
            arguments.append(f"{name}{_array_source(value)}")
        elif value != part.default:
            arguments.append(f"{part.name}={value!r}")
    return f"{type(step).__name__}({', '.join(arguments)})"


def _array_source(a: Array) -> str:
    flat, shape, strides = take_apart(a)
    if flat.size > LONGEST_LISTING:
        values = repr(packed(flat))
    elif shape:
        values = f"[{', '.join(map(_number_source, flat))}]"
    else:
        values = _number_source(flat[0])
    arguments = [values]
    if shape:
        arguments.append(str(shape))
    if a.dtype != np.float32:
        arguments.append(f"dtype={a.dtype.name!r}")
    if strides != _contiguous(shape):
        arguments.append(f"strides={strides}")
    return f"array({', '.join(arguments)})"


def _number_source(value: Any) -> str:
    """Return a short literal from which ``value`` can be rebuilt bit for bit."""
    if value.dtype.kind in "iu":
        return str(value)
    if not np.isfinite(value):
        return f"float({str(value)!r})"
    if value == 0:
        return "-0.0" if np.signbit(value) else "0"
    short = str(value).removesuffix(".0")
    return short if value.dtype.type(float(short)) == value else repr(float(value))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of C order, in elements."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))
