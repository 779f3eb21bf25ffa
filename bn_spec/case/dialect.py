"""Dialects: the conventions by which a framework's BatchNorm differs from PyTorch's.

A departure from PyTorch is not a fault, but it is tested like everything else: a kernel that claims
the biased estimator and computes the unbiased one fails.

Cases are always in PyTorch's terms: momentum is the weight of the new value. A backend translates
them with :meth:`Dialect.momentum` and :meth:`Dialect.eps`, and the reference computes with the
translated values.
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
        ConfigError: A convention has an unknown value.

    """

    momentum_weighs: str = "new"
    """The value in running statistics whose weight momentum is: the ``new`` or the ``old`` one."""
    running_var: str = "unbiased"
    """The estimator of the variance with which running_var is updated.

    It is ``biased``, or ``unbiased``: n / (n − 1) times the biased variance of n values.
    """
    averages: str = "from the initial value"
    """The values that running statistics are averages of.

    - ``from the initial value``: the initial value and all batches since.
    - ``from the first batch``: the batches alone; the first one replaces the initial value.
    - ``debiased``: the batches alone, weighted in the same ratios, by division by 1 − (1 − m)^k
      after batch k. Momentum m = 0 has no meaning in such a dialect.
    """
    training_output: str = "batch"
    """The statistics that normalise in training.

    They are those of the ``batch``, or the ``running`` ones after the batch has updated them.
    """
    single_value: str = "refused"
    """Whether a single value per channel in training is ``refused`` or ``answered``.

    Where it is answered, its variance counts as 0 in either estimator.
    """
    attributes: str = "float64"
    """The format in which eps, momentum and the 1 / k of a cumulative mean are stored."""
    mixed_output: str = "data"
    """The dtype of an output of half-precision data where weight and bias are float32.

    It is the dtype of the ``data`` or of the ``parameters``. The suite hands over a gradient of the
    output in the dtype of the data in either case; where necessary, a backend widens it.
    """
    counter: bool = True
    """Whether the framework counts batches, in num_batches_tracked; if not, the adapter does."""
    eps_range: tuple[float, float] = (0.0, inf)
    """The smallest and the largest eps that the framework accepts."""

    def __post_init__(self) -> None:
        for name, known in KNOWN.items():
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(allowed(name.replace("_", " "), str(value), map(str, known)))

    def eps(self, eps: float) -> float:
        """Return eps as a layer stores it: rounded to the format of :attr:`attributes`."""
        return self._rounded(eps)

    def momentum(self, weight_of_new: float) -> float:
        """Return momentum as a layer stores it: in the terms of the dialect, and rounded."""
        return self._rounded(weight_of_new if self.momentum_weighs == "new" else 1 - weight_of_new)

    def as_stored(self, config: Config) -> Config:
        """Return the config with eps and momentum as a layer stores them.

        Momentum is still the weight of the new value, but changed by the translation into the
        terms of the dialect, by its rounding, and by the translation back.
        """
        momentum = None if config.momentum is None else self.weight(config.momentum)
        return replace(config, eps=self.eps(config.eps), momentum=momentum)

    def weight(self, weight_of_new: float) -> float:
        """Return the weight of the new value that follows from momentum as a layer stores it."""
        stored = self.momentum(weight_of_new)
        return stored if self.momentum_weighs == "new" else 1 - stored

    def output(self, config: Config) -> Format:
        """Return the format of an output.

        Without weight and bias, no operand of the output is wider than the data.
        """
        row = config.arithmetic
        return row.parameters if self.mixed_output == "parameters" and config.affine else row.data

    def _rounded(self, value: float) -> float:
        return float(np.dtype(self.attributes).type(value))

    def estimator(self, n: int) -> float:
        """Return the factor from the biased variance of n values to the estimate in running_var."""
        return n / (n - 1) if self.running_var == "unbiased" and n > 1 else 1.0

    def departures(self) -> list[str]:
        """Return a sentence for each convention that differs from PyTorch's."""
        sentences = [self.departure(field.name) for field in fields(self)]
        return [sentence for sentence in sentences if sentence]

    def departure(self, convention: str) -> str:
        """Return a sentence about a convention that differs from PyTorch's.

        Args:
            convention: Name of a field, or an empty string.

        Returns:
            The sentence; empty if the convention is PyTorch's, or none was named.

        """
        if not convention or getattr(self, convention) == getattr(PYTORCH, convention):
            return ""
        return SENTENCES[convention].format(getattr(self, convention))


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
"""The possible values of each convention; ``eps_range`` may have any value."""

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
"""Sentence about each convention where it differs from PyTorch's, with a place for its value."""

PYTORCH = Dialect()
"""The normative dialect."""
