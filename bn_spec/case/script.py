"""A case: config, initial state and a list of steps with their arrays.

A case is data, and checks only that it makes sense. It can therefore be drawn and shrunk, printed
as Python (:func:`bn_spec.case.script.source`), stored in a file (:mod:`bn_spec.case.npz`) and
played on any backend (:func:`bn_spec.play.player.play`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bn_spec.case.arrays import interchangeable
from bn_spec.case.config import STATE_FIELDS, Config, State
from bn_spec.case.dtypes import Array
from bn_spec.case.source import case_source
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    Backward,
    DoubleBackward,
    Fold,
    Forward,
    Restore,
    Save,
    Step,
    config_after,
)
from bn_spec.errors import ConfigError, allowed


@dataclass(frozen=True, eq=False)
class Case:
    """A complete script that can be replayed.

    Attributes:
        config: The arguments of the layer.
        state: The state into which the layer is brought; None to leave it as it was built.
        steps: The steps, in order.

    Raises:
        ConfigError: A step makes no sense. The message starts with its number, counted from 1:

            - a forward requires a gradient of a tensor that the layer does not have;
            - a backward refers to a forward that does not exist, or requires no gradient;
            - an array of a double backward has another shape than its tensor;
            - a checkpoint does not exist, or a tensor in it has an unknown name;
            - an attribute is not eps or momentum, or no layer takes its value;
            - a convolution has another rank or another number of channels.

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
        """Number of values of all inputs together."""
        return sum(x.size for x in self.forwards())

    @property
    def size(self) -> tuple[int, int]:
        """Number of steps and number of values; the smaller of two cases is the simpler one."""
        return len(self.steps), self.values


def source(case: Case) -> str:
    """Return Python that rebuilds the case after ``from bn_spec.case import *``."""
    return case_source(case.config, case.state, case.steps)


def negated(case: Case) -> Case:
    """Return the case with every x of a forward and every dy of a backward negated."""
    return replace(case, steps=tuple(map(_negated, case.steps)))


def _negated(step: Step) -> Step:
    if isinstance(step, Forward):
        return replace(step, x=-step.x)
    if isinstance(step, Backward):
        return replace(step, dy=-step.dy)
    return step


def _check_wrt(config: Config, number: int, step: Forward) -> None:
    known = DIFFERENTIABLE if config.affine else DIFFERENTIABLE[:1]
    for name in step.wrt:
        if name not in known:
            raise ConfigError(
                f"step {number}: {allowed('tensor that requires a gradient', name, known)}"
            )


def _check_restore(number: int, step: Restore, checkpoints: int) -> None:
    if not -checkpoints <= step.of < checkpoints:
        raise ConfigError(
            f"step {number}: checkpoint {step.of} does not exist;"
            f" {_counted(checkpoints, 'Save')} before it"
        )
    for name in step.only:
        if name not in STATE_FIELDS:
            raise ConfigError(
                f"step {number}: {allowed('tensor of a checkpoint', name, STATE_FIELDS)}"
            )


def _check_fold(config: Config, number: int, step: Fold) -> None:
    channels, shape = config.num_features, step.weight.shape
    if len(shape) != 4 or shape[0] != channels:
        raise ConfigError(
            f"step {number}: the convolution's weight has shape {shape};"
            f" allowed: ({channels}, I, h, w)"
        )
    if step.bias is not None and step.bias.shape != (channels,):
        raise ConfigError(
            f"step {number}: the convolution's bias has shape {step.bias.shape};"
            f" allowed: ({channels},)"
        )


def _check_of(number: int, step: Backward | DoubleBackward, forwards: list[Forward]) -> None:
    if not -len(forwards) <= step.of < len(forwards):
        raise ConfigError(
            f"step {number}: forward {step.of} does not exist;"
            f" {_counted(len(forwards), 'Forward')} before it"
        )
    if not forwards[step.of].wrt:
        raise ConfigError(
            f"step {number}: forward {step.of} requires no gradient;"
            f" write it as Forward(x, wrt={DIFFERENTIABLE})"
        )
    if isinstance(step, Backward):
        return  # any dy makes sense: that a layer refuses a wrong shape is a requirement
    _check_shapes(number, step, forwards[step.of].x.shape)


def _counted(steps: int, kind: str) -> str:
    """Return a phrase such as ``the case has 2 Forward steps``."""
    return f"the case has {steps} {kind} step{'' if steps == 1 else 's'}"


def _check_shapes(number: int, step: DoubleBackward, shape: tuple[int, ...]) -> None:
    """Check the arrays of a double backward of a forward whose input has this shape."""
    channels = shape[1:2]
    expected = (("dy", shape), ("input", shape), ("weight", channels), ("bias", channels))
    for name, wanted in expected:
        array = getattr(step, name)
        if array is not None and array.shape != wanted:
            raise ConfigError(f"step {number}: {name} has shape {array.shape}; allowed: {wanted}")


def identical(a: Case, b: Case) -> bool:
    """Return whether two cases agree in every field, every stride and every bit."""
    parts, others = tuple(_leaves(a)), tuple(_leaves(b))
    return len(parts) == len(others) and all(map(_agree, parts, others))


def _leaves(case: Case) -> Iterator[object]:
    """Yield everything in which two cases can differ, in a fixed order."""
    yield case.config
    if case.state is not None:
        yield from case.state.tensors().items()
    for step in case.steps:
        yield type(step)
        yield from (getattr(step, field.name) for field in fields(step))


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return interchangeable(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_agree, one, other))
    return bool(type(one) is type(other) and one == other)
