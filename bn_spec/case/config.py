"""The arguments that a layer is built with (``Config``) and its tensors (``State``)."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bn_spec.case.dtypes import Array, DType, dtype_named
from bn_spec.errors import ConfigError, allowed


@dataclass(frozen=True)
class Config:
    """The arguments of a BatchNorm2d, in PyTorch's names, order and defaults.

    Attributes:
        num_features: Number of channels C of the input (N, C, H, W).
        eps: Positive number that is added to the variance, inside the root.
        momentum: Weight of the *new* value in the running statistics, from 0 to 1; None for the
            cumulative mean of all batches.
        affine: Whether the layer has weight and bias.
        track_running_stats: Whether the layer has running statistics and their counter.
        dtype: Name of a row of :data:`bn_spec.case.dtypes.DTYPES`.

    Raises:
        ConfigError: An argument has a value that no BatchNorm2d takes.

    """

    num_features: int
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        dtype_named(self.dtype)
        if not isinstance(self.num_features, int) or self.num_features < 1:
            raise ConfigError(f"num_features is {self.num_features!r}; allowed: a positive integer")
        if not (isinstance(self.eps, float | int) and self.eps > 0):
            raise ConfigError(f"eps is {self.eps!r}; allowed: a positive number")
        if self.momentum is not None and not (
            isinstance(self.momentum, float | int) and 0 <= self.momentum <= 1
        ):
            raise ConfigError(
                f"momentum is {self.momentum!r}; allowed: None or a number from 0 to 1"
            )

    @property
    def arithmetic(self) -> DType:
        """The row of :data:`bn_spec.case.dtypes.DTYPES` in which the layer computes.

        A layer without floating-point tensors has no parameters whose dtype could differ from that
        of its data, so both are the same in its row.
        """
        row = dtype_named(self.dtype)
        return row if self.affine or self.track_running_stats else replace(row, parameters=row.data)

    def changed(self, attribute: str, value: float | None) -> "Config":
        """Return the config of a layer after its ``eps`` or ``momentum`` was set.

        Args:
            attribute: ``"eps"`` or ``"momentum"``.
            value: The new value.

        Raises:
            ConfigError: The attribute is a different one, or no BatchNorm2d takes the value.

        """
        changes: dict[str, Any] = {attribute: value}
        if attribute not in ("eps", "momentum"):
            raise ConfigError(allowed("attribute of a live layer", attribute, ("eps", "momentum")))
        return replace(self, **changes)

    def departures(self) -> dict[str, Any]:
        """Return the optional arguments that differ from their defaults, by name; never the dtype.

        An adapter that passes only these to its framework also tests the framework's own defaults.
        """
        optional = [field for field in fields(self) if field.name not in ("num_features", "dtype")]
        values = {field.name: getattr(self, field.name) for field in optional}
        return {
            field.name: values[field.name]
            for field in optional
            if values[field.name] != field.default
        }


STATE_FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""Names of the tensors of a layer: the fields of :class:`State`, in order."""


@dataclass(frozen=True, eq=False)
class State:
    """The five tensors of a layer. A tensor that the config excludes is None.

    Attributes:
        weight: Shape (C,), in the dtype of parameters; None without ``affine``.
        bias: Likewise.
        running_mean: Shape (C,), in the dtype of parameters; None without ``track_running_stats``.
        running_var: Likewise.
        num_batches_tracked: The number of training batches so far, int64 of shape (); None without
            ``track_running_stats``.

    """

    weight: Array | None = None
    bias: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None
    num_batches_tracked: Array | None = None

    def copy(self) -> "State":
        """Return a state that shares no memory with this one."""
        return self.map(np.copy)

    def map(self, change: Callable[[Array], Array]) -> "State":
        """Return the state with ``change`` applied to each tensor that is not None."""
        return State(**{name: None if a is None else change(a) for name, a in self.items()})

    def tensors(self) -> dict[str, Array]:
        """Return the tensors that are not None, by name."""
        return {name: a for name, a in self.items() if a is not None}

    def items(self) -> list[tuple[str, Array | None]]:
        """Return the name and the tensor, or None, of each of the :data:`STATE_FIELDS`."""
        return [(name, getattr(self, name)) for name in STATE_FIELDS]


def initial_state(config: Config) -> State:
    """Return the state of a newly built layer: weight and running_var are 1, the rest is 0."""
    shape, dtype = (config.num_features,), config.arithmetic.parameters.dtype
    affine, tracked = config.affine, config.track_running_stats
    return State(
        weight=np.ones(shape, dtype) if affine else None,
        bias=np.zeros(shape, dtype) if affine else None,
        running_mean=np.zeros(shape, dtype) if tracked else None,
        running_var=np.ones(shape, dtype) if tracked else None,
        num_batches_tracked=np.zeros((), np.int64) if tracked else None,
    )
