"""Steps: the things that can be done to a layer, one class and one row of a table each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from bn_spec.case.arrays import shown_values
from bn_spec.case.config import STATE_FIELDS, Config
from bn_spec.case.dtypes import Array

DIFFERENTIABLE = ("input", "weight", "bias")
"""The tensors that an output has gradients with respect to."""

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
"""Names of the results of a backward: the parts of :class:`bn_spec.backend.contract.Gradients`."""

DOUBLE_GRADIENTS = ("double_dy", "double_input", "double_weight")
"""Names of the results of a double backward.

They are the parts of :class:`bn_spec.backend.contract.DoubleGradients`.
"""

FOLDED = ("folded_weight", "folded_bias")
"""Names of the parameters of the convolution into which a layer is folded."""


@dataclass(frozen=True)
class Train:
    """Switch the layer to training mode; a new layer is in it."""


@dataclass(frozen=True)
class Eval:
    """Switch the layer to eval mode."""


@dataclass(frozen=True, eq=False)
class Forward:
    """Hand ``x``, normally of shape (N, C, H, W), to the layer.

    ``wrt`` names the tensors of :data:`DIFFERENTIABLE` that require a gradient; without any, none
    is recorded. An ``x`` that equals that of the forward before, strides included, is the same
    tensor handed over once more.
    """

    x: Array
    wrt: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Backward:
    """Ask for the gradients of Σ ``dy`` · y, the output y being that of a recorded forward.

    ``of`` counts the forwards of the case so far, as an index of Python: 0 is the first one, -1 the
    last.
    """

    dy: Array
    of: int = -1


@dataclass(frozen=True, eq=False)
class DoubleBackward:
    """Ask for the gradients of Σ ``input`` · dx + Σ ``weight`` · dweight + Σ ``bias`` · dbias.

    dx, dweight and dbias are what ``Backward(dy, of)`` answers; of shape (N, C, H, W), (C,) and
    (C,), like their cotangents, which are None for what the layer does not have.
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

    ``of`` counts the checkpoints of the case so far, as an index of Python. With ``fresh``, it goes
    into a new layer, which takes the place of the old one: built by the config as it is then, in
    training mode.
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


# Wordings: how a step reads in a finding; ``forwards`` counts the forwards up to and with it.


def _forward_wording(step: Forward, forwards: int) -> str:
    asked = f", for gradients of {', '.join(step.wrt)}" if step.wrt else ""
    return f"forward{asked}, x of shape {step.x.shape} = {shown_values(step.x)}"


def _backward_wording(step: Backward | DoubleBackward, forwards: int) -> str:
    name = "backward" if isinstance(step, Backward) else "double backward"
    which = ""
    if step.of != -1 and forwards > 1:
        which = f" of forward {step.of % forwards + 1}"
    arrays = []
    for part in fields(step):
        value = getattr(step, part.name)
        if isinstance(value, np.ndarray):
            arrays.append(f"{part.name} = {shown_values(value)}")
    return f"{name}{which}, {', '.join(arrays)}"


def _restore_wording(step: Restore, forwards: int) -> str:
    tensors = " and ".join(step.only) or "all"
    target = "a new layer, which takes its place" if step.fresh else "the layer"
    return f"load {tensors} of checkpoint {step.of} into {target}"


def _load_wording(step: Load, forwards: int) -> str:
    tensors = ", ".join(f"{name} = {shown_values(a)}" for name, a in step.tensors().items())
    return f"load {tensors or 'nothing'}{'' if step.strict else ', not strictly'}"


def _fold_wording(step: Fold, forwards: int) -> str:
    bias = "" if step.bias is None else f", bias = {shown_values(step.bias)}"
    weight = f"weight {step.weight.shape} = {shown_values(step.weight)}"
    return f"fold into a convolution of {weight}{bias}"


@dataclass(frozen=True)
class StepKind:
    """One row of the table of steps.

    Attributes:
        step: The class.
        wording: A sentence about a step of this kind, from the step and the number of forwards so
            far, this step included.
        claim: The flag of :class:`bn_spec.backend.claims.Capabilities` without which a backend is
            never handed such a step; empty if every backend is.
        results: Names of the tensors that a backend returns, besides an output.
        word: The word for the step in histories, where nothing has to be drawn for it.

    """

    step: type[Any]
    wording: Callable[[Any, int], str]
    claim: str = ""
    results: tuple[str, ...] = ()
    word: str = ""


def _always(wording: str) -> Callable[[object, int], str]:
    return lambda step, forwards: wording


STEP_KINDS: Mapping[type[Any], StepKind] = MappingProxyType(
    {
        kind.step: kind
        for kind in (
            StepKind(Train, _always("train mode"), word="train"),
            StepKind(Eval, _always("eval mode"), "inference", word="eval"),
            StepKind(Forward, _forward_wording),
            StepKind(Backward, _backward_wording, "gradients", GRADIENTS),
            StepKind(DoubleBackward, _backward_wording, "double_backward", DOUBLE_GRADIENTS),
            StepKind(
                ResetRunningStats, _always("reset_running_stats"), word="reset running statistics"
            ),
            StepKind(ResetParameters, _always("reset_parameters"), word="reset parameters"),
            StepKind(Save, _always("save a checkpoint"), "checkpoints", word="save"),
            StepKind(Restore, _restore_wording, "checkpoints"),
            StepKind(Load, _load_wording, "checkpoints"),
            StepKind(Set, lambda step, _: f"set {step.name} to {step.value}", "live_attributes"),
            StepKind(Fold, _fold_wording, "folding", FOLDED),
        )
    }
)
"""The table of steps, by class: one row for each member of :data:`Step`."""

STEPS: Mapping[str, type[Any]] = MappingProxyType({kind.__name__: kind for kind in STEP_KINDS})
"""The classes of steps, by name."""


def config_after(config: Config, step: Step) -> Config:
    """Return the config of a layer after a step; raise :class:`ConfigError` where it cannot be."""
    return config.changed(step.name, step.value) if isinstance(step, Set) else config


def training_after(step: Step, training: bool) -> bool:
    """Return whether a layer is in training mode after a step."""
    if isinstance(step, Train) or (isinstance(step, Restore) and step.fresh):
        return True
    return training and not isinstance(step, Eval)
