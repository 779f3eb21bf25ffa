"""Steps: the things that can be done to a layer, one class and one row of a table each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from bn_spec.case.config import STATE_FIELDS, Config
from bn_spec.case.dtypes import Array

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
"""What people call the parts of :class:`Gradients`."""


DOUBLE_GRADIENTS = ("double_dy", "double_input", "double_weight")
"""What people call the parts of :class:`DoubleGradients`."""


FOLDED = ("folded_weight", "folded_bias")
"""What people call the parameters of a convolution into which a layer was folded."""


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


STEPS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Step)}


def config_after(config: Config, step: Step) -> Config:
    """Return the config of a layer after a step; raise :class:`ConfigError` where it cannot be."""
    return config.changed(step.name, step.value) if isinstance(step, Set) else config


def training_after(step: Step, training: bool) -> bool:
    """Return whether a layer is in training mode after a step."""
    if isinstance(step, Train) or (isinstance(step, Restore) and step.fresh):
        return True
    return training and not isinstance(step, Eval)
