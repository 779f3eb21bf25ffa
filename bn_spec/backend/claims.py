"""What a backend claims: one field and one row of a table per claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from bn_spec.case.dialect import PYTORCH
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.steps import STEP_KINDS
from bn_spec.errors import ConfigError, allowed
from bn_spec.oracle.bounds import GRADES, Accuracy

_COSTS = ("expensive_signatures",)


@dataclass(frozen=True)
class Capabilities(Accuracy):
    """What a backend claims. A claim is tested; what is not claimed is reported as *not claimed*.

    ``dtypes`` and ``layouts`` list what inputs may have; the flags say which variants of the
    operator exist. The claims about the arithmetic, ``grade`` first among them, are those of
    :class:`bn_spec.oracle.bounds.Accuracy`.

    Raises:
        ConfigError: a dtype, a layout or a class of the arithmetic is not known.

    """

    dtypes: tuple[str, ...] = ("float32",)
    layouts: tuple[str, ...] = LAYOUTS
    inference: bool = True
    """Has an eval mode."""
    affine_off: bool = True
    """Supports affine=False."""
    tracking_off: bool = True
    """Supports track_running_stats=False."""
    cumulative_momentum: bool = True
    """Supports momentum=None."""
    gradients: bool = False
    """Has a backward pass: its layers have ``record`` and ``backward``."""
    gradient_layout: bool = False
    """The gradient of an input in NCHW or NHWC order is in the same order."""
    double_backward: tuple[str, ...] = ()
    """Dtypes in which the backward pass can be differentiated: layers have ``double_backward``."""
    expensive_signatures: bool = False
    """Each new shape, layout, eps, momentum or set of gradients costs seconds: values are drawn over few of them."""
    output_layout: bool = False
    """The output for an input in NCHW or NHWC order is in the same order."""
    strided_state: bool = False
    """Layers are built on the tensors of a state as they lie in memory, with whatever strides."""
    checkpoints: bool = False
    """Layers have ``save`` and ``load``."""
    live_attributes: bool = False
    """eps and momentum of a layer can be changed: layers have ``configure``."""
    empty_batch: bool = False
    """Answers a batch without samples, or without pixels, with an output as empty."""
    deterministic: bool = False
    """The same case gives the same bits, on this layer or on another."""
    threads: bool = False
    """Layers can be driven from several threads at a time, each by one of them."""
    folding: bool = False
    """Layers can be folded into a convolution before them: they have ``fold``."""
    input_checks: bool = True
    """Rejects inputs of wrong rank, wrong channel count, and a single value per channel."""
    unbiased: bool = True
    """Rounds to nearest everywhere, so that errors are as often too large as too small."""

    @property
    def answers_single_values(self) -> bool:
        """Whether its dialect answers a single value per channel in training."""
        return self.dialect.single_value == "answered"

    @property
    def normalises_by_batch(self) -> bool:
        """Whether the statistics of the batch normalise in training, in its dialect."""
        return self.dialect.training_output == PYTORCH.training_output

    @property
    def momentum_zero(self) -> bool:
        """Whether momentum 0 keeps running statistics as they are, in its dialect."""
        return self.dialect.averages == PYTORCH.averages

    @property
    def refuses_single_values(self) -> bool:
        """Whether it checks its inputs, and its dialect refuses a single value per channel in training."""
        return self.input_checks and not self.answers_single_values

    def has(self, flag: str, dtype: str) -> bool:
        """Whether a flag is claimed in a dtype; those that list dtypes are claimed in these."""
        claim = getattr(self, flag)
        return dtype in claim if isinstance(claim, tuple) else bool(claim)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradients and not self.normalises_by_batch:
            raise ConfigError(
                "gradients are claimed of a layer whose running statistics normalise in training; allowed:"
                " none, since there is no reference for them"
            )
        for kind, received, known in (
            ("dtype", self.dtypes, tuple(DTYPES)),
            ("dtype with a double backward", self.double_backward, self.dtypes),
            ("layout", self.layouts, LAYOUTS),
        ):
            for name in received:
                if name not in known:
                    raise ConfigError(allowed(kind, name, known))


_FLAGS: dict[str, Any] = {
    f.name: True for f in fields(Capabilities) if f.type == "bool" and f.name not in _COSTS
}


EVERYTHING = Capabilities(dtypes=tuple(DTYPES), double_backward=tuple(DTYPES), **_FLAGS)
"""All that can be claimed of an operator."""


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims: how ``bn-spec doctor`` looks at a claim.

    Attributes:
        flag: Field of :class:`Capabilities`.
        label: Name of the probe; empty if nothing can be probed.
        judged_by: Requirements whose properties judge the claim, the plainest first.
        provable: Whether passing examples are reason enough to propose the claim. Claims about
            how a kernel computes can only be refuted by examples.
        least: The value that claims nothing, for claims that decide what is drawn and how it is
            judged; None for others, which stay as declared while other claims are probed.

    """

    flag: str
    label: str = ""
    judged_by: tuple[str, ...] = ()
    provable: bool = True
    least: object = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps that are handed only to backends with this claim."""
        kinds = STEP_KINDS.values()
        return tuple(kind.step.__name__ for kind in kinds if kind.claim == self.flag)


CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {
        claim.flag: claim
        for claim in (
            # Probes run in this order, and each relies on what the ones before have established.
            Claim("dialect", "dialect"),
            Claim("layouts", "layouts"),
            Claim("affine_off", "without affine", ("CFG-05", "TRN-01"), least=False),
            Claim("tracking_off", "without tracking", ("CFG-06", "TRN-08"), least=False),
            Claim("cumulative_momentum", "cumulative momentum", ("RUN-04",), least=False),
            Claim("inference", "eval mode", ("EVL-01", "EVL-04"), least=False),
            Claim("grade", "grade", ("NUM-01",), least=GRADES[-1]),
            Claim("dtypes", "other dtypes"),
            Claim("subnormals", "subnormal numbers", ("NUM-07",), least=False),
            Claim("overflow_safe", "overflowing squares", ("NUM-13",), least=False),
            Claim("input_checks", "input checks", ("ERR-02", "ERR-03", "ERR-04")),
            Claim("empty_batch", "empty batch", ("SHP-06",)),
            Claim("strided_state", "strided state", ("LAY-04",)),
            Claim("output_layout", "layout of the output", ("LAY-08",)),
            Claim("checkpoints", "checkpoints", ("STA-01", "STA-02", "STA-04", "ERR-05")),
            Claim("live_attributes", "live attributes", ("STA-06", "STA-07")),
            Claim("gradients", "gradients", ("GRD-01", "GRD-02", "GRD-03", "GRD-04"), least=False),
            Claim("gradient_layout", "layout of gradients", ("GRD-22",)),
            Claim("double_backward", "double backward", ("GRD-23", "GRD-24"), least=()),
            Claim("folding", "folding", ("FLD-01", "FLD-02")),
            Claim("deterministic", "determinism", ("DET-01",)),
            Claim("threads", "threads", ("DET-02",), provable=False),
            Claim("summation", "summation", ("NUM-10",), provable=False, least="any order"),
            Claim("direct_means", "means", ("NUM-02",), provable=False, least=False),
            Claim("centred_products", "products", ("GRD-25",), provable=False, least=False),
            Claim("unbiased", "bias of errors", ("NUM-09",), provable=False),
            # Formats and costs are facts about a kernel that its answers do not show.
            Claim("statistics"),
            Claim("elementwise"),
            Claim("expensive_signatures"),
        )
    }
)
"""The table of claims, by flag: one row for each field of :class:`Capabilities`."""
