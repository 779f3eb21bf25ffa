"""Steps: what can be done to a layer, with one class and one row of a table each."""

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
"""Names of the tensors with respect to which an output has gradients."""

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
"""Names of the results of a backward step.

They are the parts of :class:`bn_spec.backend.contract.Gradients`.
"""

DOUBLE_GRADIENTS = ("double_dy", "double_input", "double_weight")
"""Names of the results of a double-backward step.

They are the parts of :class:`bn_spec.backend.contract.DoubleGradients`.
"""

FOLDED = ("folded_weight", "folded_bias")
"""Names of the results of a fold step: the parameters of the convolution that it returns."""


@dataclass(frozen=True)
class Train:
    """Switch the layer to training mode, in which a new layer is already."""


@dataclass(frozen=True)
class Eval:
    """Switch the layer to eval mode."""


@dataclass(frozen=True, eq=False)
class Forward:
    """Call the layer on an input.

    Attributes:
        x: The input, normally of shape (N, C, H, W) and in the dtype of the data. If it equals the
            input of the last forward, strides included, the same native tensor is handed over
            again.
        wrt: Names of :data:`DIFFERENTIABLE` that require a gradient. Without any, the forward is
            not recorded, and no backward can refer to it.

    """

    x: Array
    wrt: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Backward:
    """Ask for the gradients of Σ ``dy`` · y, where y is the output of a recorded forward.

    Attributes:
        dy: The cotangent of y, normally of the shape of y.
        of: Index of the forward among those of the case so far: 0 is the first one, -1 the last.

    """

    dy: Array
    of: int = -1


@dataclass(frozen=True, eq=False)
class DoubleBackward:
    """Ask for the gradients of Σ ``input`` · dx + Σ ``weight`` · dweight + Σ ``bias`` · dbias.

    dx, dweight and dbias are the gradients of ``Backward(dy, of)``.

    Attributes:
        dy: The cotangent of the output, of shape (N, C, H, W).
        input: The cotangent of dx, of shape (N, C, H, W).
        weight: The cotangent of dweight, of shape (C,); None without weight.
        bias: The cotangent of dbias, of shape (C,); None without bias.
        of: Index of the forward among those of the case so far: 0 is the first one, -1 the last.

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
    """Reset weight and bias, the running statistics and num_batches_tracked."""


@dataclass(frozen=True)
class Save:
    """Save a checkpoint: a copy of every tensor of the layer, by name."""


@dataclass(frozen=True)
class Restore:
    """Load a checkpoint that the case has saved.

    Attributes:
        of: Index of the checkpoint among those of the case so far: 0 is the first one, -1 the last.
        only: Names of the tensors that are loaded; all, strictly, if there are none.
        fresh: Whether to load into a new layer, which then replaces the old one. It is built with
            the config at this point, and is in training mode.

    """

    of: int = -1
    only: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class Load:
    """Load tensors from outside.

    Attributes:
        weight: Shape (C,); None to load none. Likewise for the other tensors.
        bias: Shape (C,).
        running_mean: Shape (C,).
        running_var: Shape (C,).
        num_batches_tracked: Shape ().
        strict: Whether these must be exactly the tensors of the layer; otherwise, the layer keeps
            those that are missing.

    """

    weight: Array | None = None
    bias: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None
    num_batches_tracked: Array | None = None
    strict: bool = True

    def tensors(self) -> dict[str, Array]:
        """Return the tensors that are loaded, by name."""
        tensors = {name: getattr(self, name) for name in STATE_FIELDS}
        return {name: a for name, a in tensors.items() if a is not None}


@dataclass(frozen=True)
class Set:
    """Set an attribute of the live layer.

    Attributes:
        name: ``"eps"`` or ``"momentum"``.
        value: The new value, in PyTorch's terms.

    """

    name: str
    value: float | None


@dataclass(frozen=True, eq=False)
class Fold:
    """Fold the layer, as it is in eval mode, into a convolution whose output is its input.

    Attributes:
        weight: Weight of the convolution (C, I, h, w).
        bias: Bias of the convolution (C,), or None.

    """

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
"""Any step; its fields are plain values and arrays."""


# Wordings: how a step reads in a finding. The second argument is the number of forwards so far,
# this step included.


def _forward_wording(step: Forward, _: int) -> str:
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


def _restore_wording(step: Restore, _: int) -> str:
    tensors = " and ".join(step.only) or "all"
    target = "a new layer, which takes its place" if step.fresh else "the layer"
    return f"load {tensors} of checkpoint {step.of} into {target}"


def _load_wording(step: Load, _: int) -> str:
    tensors = ", ".join(f"{name} = {shown_values(a)}" for name, a in step.tensors().items())
    return f"load {tensors or 'nothing'}{'' if step.strict else ', not strictly'}"


def _fold_wording(step: Fold, _: int) -> str:
    bias = "" if step.bias is None else f", bias = {shown_values(step.bias)}"
    weight = f"weight {step.weight.shape} = {shown_values(step.weight)}"
    return f"fold into a convolution of {weight}{bias}"


@dataclass(frozen=True)
class StepKind:
    """One row of the table of steps.

    Attributes:
        step: Class of the steps.
        wording: Function from a step and the number of forwards so far, this step included, to the
            phrase about the step in a finding.
        claim: Claim of :class:`bn_spec.backend.claims.Capabilities` that a backend must make to get
            such steps; empty if every backend gets them.
        results: Names of the tensors that a backend returns, besides an output.
        word: The word for the step in histories; empty if the step needs drawn arguments.

    """

    step: type[Any]
    wording: Callable[[Any, int], str]
    claim: str = ""
    results: tuple[str, ...] = ()
    word: str = ""


def _always(wording: str) -> Callable[[object, int], str]:
    return lambda _step, _forwards: wording


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
    """Return the config of a layer after a step.

    Raises:
        ConfigError: The step sets an attribute other than eps and momentum, or one of them to a
            value that is not allowed.

    """
    return config.changed(step.name, step.value) if isinstance(step, Set) else config


def training_after(step: Step, training: bool) -> bool:
    """Return whether a layer is in training mode after a step."""
    if isinstance(step, Train) or (isinstance(step, Restore) and step.fresh):
        return True
    return training and not isinstance(step, Eval)
