"""What a layer is built with (``Config``) and what it holds (``State``)."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bn_spec.case.dtypes import Array, DType, dtype_named
from bn_spec.errors import ConfigError, allowed


@dataclass(frozen=True)
class Config:
    """The arguments of a BatchNorm2d, in PyTorch's names, order and defaults.

    ``momentum`` is the weight of the *new* value in the running statistics; None asks for the
    cumulative mean of all batches. ``eps`` is added to the variance, inside the root.

    Raises:
        ConfigError: when an argument is of a kind that no BatchNorm2d takes.

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
        """The row of the table of dtypes in which the layer works.

        A layer that holds no floating-point tensors has no dtype of parameters but that of its
        data.
        """
        row = dtype_named(self.dtype)
        return row if self.affine or self.track_running_stats else replace(row, parameters=row.data)

    def changed(self, attribute: str, value: float | None) -> "Config":
        """Return the config with another ``eps`` or ``momentum``; these can be changed of a live layer.

        Raises:
            ConfigError: the attribute is another, or the value one that no BatchNorm2d takes.

        """
        changes: dict[str, Any] = {attribute: value}
        if attribute not in ("eps", "momentum"):
            raise ConfigError(allowed("attribute of a live layer", attribute, ("eps", "momentum")))
        return replace(self, **changes)

    def departures(self) -> dict[str, Any]:
        """The arguments of the constructor that differ from its defaults (dtype aside), by name.

        An adapter that passes only these lets the framework's own defaults be judged.
        """
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("num_features", "dtype")
            and getattr(self, field.name) != field.default
        }


STATE_FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, eq=False)
class State:
    """The five tensors of a layer.

    ``weight``, ``bias``, ``running_mean`` and ``running_var`` have shape ``(num_features,)``;
    ``num_batches_tracked`` is an int64 scalar of shape ``()``. A tensor that the config excludes is
    None.
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
        """Return the state with a function applied to the tensors that exist."""
        return State(**{name: None if a is None else change(a) for name, a in self.items()})

    def tensors(self) -> dict[str, Array]:
        """Return the tensors that exist, by name."""
        return {name: a for name, a in self.items() if a is not None}

    def items(self) -> list[tuple[str, Array | None]]:
        """Return the five names with their tensors, in the order of :data:`STATE_FIELDS`."""
        return [(name, getattr(self, name)) for name in STATE_FIELDS]


def initial_state(config: Config) -> State:
    """Return the state of a freshly built layer: weight and running_var one, the rest zero."""
    shape, dtype = (config.num_features,), config.arithmetic.parameters.dtype
    affine, tracked = config.affine, config.track_running_stats
    return State(
        weight=np.ones(shape, dtype) if affine else None,
        bias=np.zeros(shape, dtype) if affine else None,
        running_mean=np.zeros(shape, dtype) if tracked else None,
        running_var=np.ones(shape, dtype) if tracked else None,
        num_batches_tracked=np.zeros((), np.int64) if tracked else None,
    )
