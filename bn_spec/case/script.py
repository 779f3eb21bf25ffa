"""A case: config, initial state and a list of steps with their arrays. Data, that only checks that it makes sense.

Because a case is data it can be drawn and shrunk, printed as Python (``source``), kept in a file
(:mod:`bn_spec.case.npz`) and played on any backend (:func:`bn_spec.play.player.play`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bn_spec.case.arrays import interchangeable
from bn_spec.case.config import STATE_FIELDS, Config, State
from bn_spec.case.dtypes import Array
from bn_spec.case.source import source
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
    """A complete, replayable script; ``state`` None leaves the layer as it was built.

    Raises:
        ConfigError: a gradient is asked with respect to a tensor that the layer does not have, of a
            forward that is not there or was not recorded; a cotangent has another shape than what
            it belongs to; a checkpoint is not there, or has no such tensor; an attribute is set
            that cannot be; a convolution has other channels.

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
            raise ConfigError(
                f"step {number}: {allowed('tensor that requires a gradient', name, known)}"
            )


def _check_restore(number: int, step: Restore, checkpoints: int) -> None:
    if not -checkpoints <= step.of < checkpoints:
        raise ConfigError(
            f"step {number}: checkpoint {step.of}; the case has {checkpoints} until then"
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
            f"step {number}: a convolution of weight {shape}; allowed: ({channels}, I, h, w)"
        )
    if step.bias is not None and step.bias.shape != (channels,):
        raise ConfigError(
            f"step {number}: a convolution of bias {step.bias.shape}; allowed: ({channels},)"
        )


def _check_of(number: int, step: Backward | DoubleBackward, forwards: list[Forward]) -> None:
    if not -len(forwards) <= step.of < len(forwards):
        raise ConfigError(
            f"step {number}: a backward of forward {step.of}; the case has {len(forwards)} until then"
        )
    if not forwards[step.of].wrt:
        raise ConfigError(
            f"step {number}: a backward of forward {step.of}, in which nothing requires a gradient; give it"
            f" wrt={DIFFERENTIABLE}"
        )
    if isinstance(step, Backward):
        return  # a layer must refuse a dy of another shape
    shape = forwards[step.of].x.shape
    for name, wanted in (
        ("dy", shape),
        ("input", shape),
        ("weight", shape[1:2]),
        ("bias", shape[1:2]),
    ):
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
