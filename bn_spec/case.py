"""A case: config, initial state and a list of steps with their arrays. Data, that only checks that it makes sense.

Because a case is data it can be drawn and shrunk, printed as Python (``source``), kept in a file
(:mod:`bn_spec.case_file`) and played on any backend (:func:`bn_spec.play.play`).
"""

from __future__ import annotations

from base64 import b85decode, b85encode
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, get_args
from zlib import compress, decompress

import numpy as np

from .config import STATE_FIELDS, Config, State
from .dtypes import Array
from .errors import ConfigError, allowed
from .memory import Parts, interchangeable, put_together, take_apart


@dataclass(frozen=True)
class Train:
    """Switch the layer to training mode; a new layer is in it."""


@dataclass(frozen=True)
class Eval:
    """Switch the layer to eval mode."""


DIFFERENTIABLE = ("input", "weight", "bias")
"""The tensors that an output has gradients with respect to."""


@dataclass(frozen=True, eq=False)
class Forward:
    """Hand ``x``, normally of shape (N, C, H, W), to the layer.

    ``wrt`` names the tensors of :data:`DIFFERENTIABLE` that require a gradient; without any, none is recorded.
    An ``x`` that equals that of the forward before, strides included, is the same tensor handed over once more.
    """

    x: Array
    wrt: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Backward:
    """Ask for the gradients of Σ ``dy`` · y, the output y being that of a recorded forward.

    ``of`` counts the forwards of the case so far, as an index of Python: 0 is the first one, -1 the last.
    """

    dy: Array
    of: int = -1


@dataclass(frozen=True, eq=False)
class DoubleBackward:
    """Ask for the gradients of Σ ``input`` · dx + Σ ``weight`` · dweight + Σ ``bias`` · dbias.

    dx, dweight and dbias are what ``Backward(dy, of)`` answers; of shape (N, C, H, W), (C,) and (C,), like their
    cotangents, which are None for what the layer does not have.
    """

    dy: Array
    input: Array
    weight: Array | None = None
    bias: Array | None = None
    of: int = -1


@dataclass(frozen=True)
class ResetRunningStats:
    """Reset running_mean, running_var and num_batches_tracked."""


@dataclass(frozen=True)
class ResetParameters:
    """Reset weight and bias, and the running statistics with them."""


@dataclass(frozen=True)
class Save:
    """Take a checkpoint: a copy of every tensor that the layer has, by name."""


@dataclass(frozen=True)
class Restore:
    """Load a checkpoint of the case, whole or, with ``only``, these of its tensors.

    ``of`` counts the checkpoints of the case so far, as an index of Python. With ``fresh``, it goes into a new layer,
    which takes the place of the old one: built by the config as it is then, in training mode.
    """

    of: int = -1
    only: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class Load:
    """Load these tensors: those that the layer has, or, without ``strict``, some of them."""

    weight: Array | None = None
    bias: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None
    num_batches_tracked: Array | None = None
    strict: bool = True

    def tensors(self) -> dict[str, Array]:
        """Return the tensors that are given, by name."""
        return {name: a for name in STATE_FIELDS if (a := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Set:
    """Change an attribute of the live layer, eps or momentum."""

    name: str
    value: float | None


@dataclass(frozen=True, eq=False)
class Fold:
    """Fold the layer, in eval mode, into a convolution before it: of ``weight`` (C, I, h, w) and ``bias`` (C,)."""

    weight: Array
    bias: Array | None = None


Step: TypeAlias = (
    Train
    | Eval
    | Forward
    | Backward
    | DoubleBackward
    | ResetRunningStats
    | ResetParameters
    | Save
    | Restore
    | Load
    | Set
    | Fold
)

STEPS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Step)}


def config_after(config: Config, step: Step) -> Config:
    """Return the config of a layer after a step; raise :class:`ConfigError` where it cannot be."""
    return config.changed(step.name, step.value) if isinstance(step, Set) else config


def training_after(step: Step, training: bool) -> bool:
    """Return whether a layer is in training mode after a step."""
    if isinstance(step, Train) or (isinstance(step, Restore) and step.fresh):
        return True
    return training and not isinstance(step, Eval)


@dataclass(frozen=True, eq=False)
class Case:
    """A complete, replayable script; ``state`` None leaves the layer as it was built.

    Raises:
        ConfigError: a gradient is asked with respect to a tensor that the layer does not have, of a forward that is
            not there or was not recorded; a cotangent has another shape than what it belongs to; a checkpoint is not
            there, or has no such tensor; an attribute is set that cannot be; a convolution has other channels.

    """

    config: Config
    state: State | None = None
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        forwards: list[Forward] = []
        config, checkpoints = self.config, 0
        for number, step in enumerate(self.steps, 1):
            try:
                config = config_after(config, step)
            except ConfigError as error:
                raise ConfigError(f"step {number}: {error}") from None
            if isinstance(step, Forward):
                _check_wrt(config, number, step)
                forwards.append(step)
            elif isinstance(step, Backward | DoubleBackward):
                _check_of(number, step, forwards)
            elif isinstance(step, Save):
                checkpoints += 1
            elif isinstance(step, Restore):
                _check_restore(number, step, checkpoints)
            elif isinstance(step, Fold):
                _check_fold(config, number, step)

    def __repr__(self) -> str:
        return source(self)

    def forwards(self) -> Iterator[Array]:
        """Yield the input of each forward step, in order."""
        return (step.x for step in self.steps if isinstance(step, Forward))

    @property
    def values(self) -> int:
        """How many values all forwards together are handed."""
        return sum(x.size for x in self.forwards())

    @property
    def size(self) -> tuple[int, int]:
        """How large the case is: its steps, and its values."""
        return len(self.steps), self.values


def negated(case: Case) -> Case:
    """Return the case with all numbers of forwards and backwards of the opposite sign."""
    steps = (
        replace(step, x=-step.x)
        if isinstance(step, Forward)
        else replace(step, dy=-step.dy)
        if isinstance(step, Backward)
        else step
        for step in case.steps
    )
    return replace(case, steps=tuple(steps))


def _check_wrt(config: Config, number: int, step: Forward) -> None:
    known = DIFFERENTIABLE if config.affine else DIFFERENTIABLE[:1]
    for name in step.wrt:
        if name not in known:
            raise ConfigError(f"step {number}: {allowed('tensor that requires a gradient', name, known)}")


def _check_restore(number: int, step: Restore, checkpoints: int) -> None:
    if not -checkpoints <= step.of < checkpoints:
        raise ConfigError(f"step {number}: checkpoint {step.of}; the case has {checkpoints} until then")
    for name in step.only:
        if name not in STATE_FIELDS:
            raise ConfigError(f"step {number}: {allowed('tensor of a checkpoint', name, STATE_FIELDS)}")


def _check_fold(config: Config, number: int, step: Fold) -> None:
    channels, shape = config.num_features, step.weight.shape
    if len(shape) != 4 or shape[0] != channels:
        raise ConfigError(f"step {number}: a convolution of weight {shape}; allowed: ({channels}, I, h, w)")
    if step.bias is not None and step.bias.shape != (channels,):
        raise ConfigError(f"step {number}: a convolution of bias {step.bias.shape}; allowed: ({channels},)")


def _check_of(number: int, step: Backward | DoubleBackward, forwards: list[Forward]) -> None:
    if not -len(forwards) <= step.of < len(forwards):
        raise ConfigError(f"step {number}: a backward of forward {step.of}; the case has {len(forwards)} until then")
    if not forwards[step.of].wrt:
        raise ConfigError(
            f"step {number}: a backward of forward {step.of}, in which nothing requires a gradient; give it"
            f" wrt={DIFFERENTIABLE}"
        )
    if isinstance(step, Backward):
        return  # a layer must refuse a dy of another shape
    shape = forwards[step.of].x.shape
    for name, wanted in (("dy", shape), ("input", shape), ("weight", shape[1:2]), ("bias", shape[1:2])):
        given = getattr(step, name)
        if given is not None and given.shape != wanted:
            raise ConfigError(f"step {number}: {name} has shape {given.shape}; allowed: {wanted}")


def identical(a: Case, b: Case) -> bool:
    """Whether two cases agree in every field, every stride and every bit."""
    ours, theirs = tuple(_leaves(a)), tuple(_leaves(b))
    return len(ours) == len(theirs) and all(map(_agree, ours, theirs))


def _leaves(case: Case) -> Iterator[object]:
    yield case.config
    yield from (case.state.tensors().items() if case.state is not None else ())
    for step in case.steps:
        yield type(step)
        yield from (getattr(step, field.name) for field in fields(step))


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return interchangeable(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_agree, one, other))
    return bool(type(one) is type(other) and one == other)


# Python source -----------------------------------------------------------------------------------------

LONGEST_LISTING = 64
"""Arrays of more elements are printed packed into text rather than as a list of numbers."""


def array(
    values: list[Any] | float | str,
    shape: tuple[int, ...] = (),
    dtype: str = "float32",
    strides: tuple[int, ...] | None = None,
) -> Array:
    """Build an array from a printed case.

    ``values`` are the elements in memory order: a list, or the text into which they were packed. ``strides`` count
    elements and default to C order.
    """
    kind = np.dtype(dtype)
    flat = _unpacked(values, kind) if isinstance(values, str) else np.ravel(np.array(values, kind))
    return put_together(Parts(flat, shape, _contiguous(shape) if strides is None else strides))


def _packed(flat: Array) -> str:
    """Return base-85 text of the elements: compressed differences of their little-endian bits.

    Large inputs are regular more often than not once they are shrunk: the differences of a ramp are few.
    """
    bits = flat.view(f"u{flat.itemsize}")
    differences = np.diff(bits, prepend=bits.dtype.type(0))
    return b85encode(compress(differences.astype(bits.dtype.newbyteorder("<")).tobytes(), 9)).decode()


def _unpacked(text: str, kind: np.dtype[Any]) -> Array:
    bits = np.dtype(f"u{kind.itemsize}")
    differences = np.frombuffer(decompress(b85decode(text)), bits.newbyteorder("<"))
    return np.cumsum(differences, dtype=bits).view(kind)


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
        values = repr(_packed(flat))
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
