"""Dialects: what a framework means by the arguments of a BatchNorm, where PyTorch means something else.

A departure is no fault, and it is tested like all else: a kernel that claims the biased estimator
and computes the unbiased one fails. Cases are always in PyTorch's terms (momentum weighs the new
value); a backend translates them with :meth:`Dialect.momentum` and :meth:`Dialect.eps`, and the
reference computes with what these return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from types import MappingProxyType

import numpy as np

from bn_spec.case.config import Config
from bn_spec.case.dtypes import Format
from bn_spec.errors import ConfigError, allowed


@dataclass(frozen=True)
class Dialect:
    """The conventions of a framework; the defaults are those of ``torch.nn.BatchNorm2d``.

    Raises:
        ConfigError: a convention is not known.

    """

    momentum_weighs: str = "new"
    """What momentum is the weight of in running statistics: the ``new`` value, or the ``old``."""
    running_var: str = "unbiased"
    """The estimator that running_var is updated with: ``unbiased``, n / (n − 1) times the variance, or ``biased``."""
    averages: str = "from the initial value"
    """What running statistics are averages of: the initial value and the batches since (``from the
    initial value``); the batches alone, the first of which takes the place of the initial value
    (``from the first batch``), or all of them, in the ratio of their weights (``debiased``, by 1 −
    (1 − m)^k; momentum 0 has no meaning then)."""
    training_output: str = "batch"
    """What normalises in training: the statistics of the ``batch``, or the ``running`` ones that it has moved."""
    single_value: str = "refused"
    """A single value per channel in training is ``refused``, or ``answered``: its variance is 0 in any estimator."""
    attributes: str = "float64"
    """The format in which eps and momentum are held, and 1 / k of a cumulative mean."""
    mixed_output: str = "data"
    """What an output of half-precision data has the dtype of, where weight and bias are float32:
    the ``data``, or the ``parameters``. A gradient of it is handed over in the dtype of the data,
    which a backend widens."""
    counter: bool = True
    """Whether batches are counted, in num_batches_tracked; otherwise the adapter does it, for the suite."""
    eps_range: tuple[float, float] = (0.0, inf)
    """The least and the largest eps that is taken."""

    def __post_init__(self) -> None:
        for name, known in KNOWN.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    allowed(name.replace("_", " "), f"{getattr(self, name)}", map(str, known))
                )

    def eps(self, eps: float) -> float:
        """Return eps as it is held."""
        return self._held(eps)

    def momentum(self, weight_of_new: float) -> float:
        """Return momentum in the terms of the dialect, as it is held."""
        return self._held(weight_of_new if self.momentum_weighs == "new" else 1 - weight_of_new)

    def held(self, config: Config) -> Config:
        """Return the config that a layer has once its eps and momentum are held."""
        momentum = None if config.momentum is None else self.weight(config.momentum)
        return replace(config, eps=self.eps(config.eps), momentum=momentum)

    def weight(self, weight_of_new: float) -> float:
        """Return the weight that the new value has once momentum is held."""
        held = self.momentum(weight_of_new)
        return held if self.momentum_weighs == "new" else 1 - held

    def output(self, config: Config) -> Format:
        """Return the format of an output; without weight and bias there is nothing that could widen it."""
        row = config.arithmetic
        return row.parameters if self.mixed_output == "parameters" and config.affine else row.data

    def _held(self, value: float) -> float:
        return float(np.dtype(self.attributes).type(value))

    def estimator(self, n: int) -> float:
        """Return what the biased variance of n values is multiplied by for running_var."""
        return n / (n - 1) if self.running_var == "unbiased" and n > 1 else 1.0

    def departures(self) -> list[str]:
        """Return a sentence for each convention that is not PyTorch's."""
        return [*filter(None, (self.departure(field.name) for field in fields(self)))]

    def departure(self, convention: str) -> str:
        """Return a sentence for a convention, or none for one that is PyTorch's."""
        departs = convention and getattr(self, convention) != getattr(PYTORCH, convention)
        return SENTENCES[convention].format(getattr(self, convention)) if departs else ""


KNOWN: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "momentum_weighs": ("new", "old"),
        "running_var": ("unbiased", "biased"),
        "averages": ("from the initial value", "from the first batch", "debiased"),
        "training_output": ("batch", "running"),
        "single_value": ("refused", "answered"),
        "attributes": ("float64", "float32"),
        "mixed_output": ("data", "parameters"),
        "counter": (True, False),
    }
)
"""The values of each convention that has a few."""

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "momentum_weighs": "momentum is the weight of the {} value of running statistics",
        "running_var": "running_var is updated with the {} variance of the batch",
        "averages": "running statistics are averages ({})",
        "training_output": "in training, the {} statistics normalise",
        "single_value": "a single value per channel in training is {}",
        "attributes": "eps and momentum are held in {}",
        "mixed_output": "outputs of half-precision data have the dtype of the {}",
        "counter": "batches are not counted",
        "eps_range": "eps must lie in {}",
    }
)
"""What to say of each convention that departs from PyTorch's."""

PYTORCH = Dialect()
"""The normative one."""
