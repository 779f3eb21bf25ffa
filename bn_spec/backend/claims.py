"""The claims of a backend: one field and one row of a table per claim."""

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
    """The claims of a backend.

    The suite tests what is claimed, and reports the rest as *not claimed*. The claims about the
    arithmetic, such as ``grade`` and ``dialect``, are fields of the base class
    :class:`bn_spec.oracle.bounds.Accuracy`.

    Raises:
        ConfigError: A dtype, a layout or a class of the arithmetic is unknown, or gradients are
            claimed in a dialect that has no reference for them.

    """

    dtypes: tuple[str, ...] = ("float32",)
    """Rows of :data:`bn_spec.case.dtypes.DTYPES` that layers can have."""
    layouts: tuple[str, ...] = LAYOUTS
    """Memory layouts that inputs can have, of :data:`bn_spec.case.layouts.LAYOUTS`."""
    inference: bool = True
    """Layers have an eval mode."""
    affine_off: bool = True
    """Layers can be built with affine=False."""
    tracking_off: bool = True
    """Layers can be built with track_running_stats=False."""
    cumulative_momentum: bool = True
    """Layers can be built with momentum=None."""
    gradients: bool = False
    """Layers have a backward pass: the methods ``record`` and ``backward``."""
    gradient_layout: bool = False
    """The gradient of an input in NCHW or NHWC order is in the same order."""
    double_backward: tuple[str, ...] = ()
    """Dtypes in which the backward pass is differentiable: layers have ``double_backward``."""
    expensive_signatures: bool = False
    """Each new signature costs seconds, so the suite draws few signatures, and many values.

    A signature is a shape, a layout, eps, momentum and the set of gradients that is asked for.
    """
    output_layout: bool = False
    """The output for an input in NCHW or NHWC order is in the same order."""
    strided_state: bool = False
    """Layers can be built on the tensors of a state as they lie in memory, with any strides."""
    checkpoints: bool = False
    """Layers have ``save`` and ``load``."""
    live_attributes: bool = False
    """eps and momentum of a layer can be set: layers have ``configure``."""
    empty_batch: bool = False
    """An input without samples or without pixels has an empty output, instead of an error."""
    deterministic: bool = False
    """The same case gives the same bits, on the same layer and on another."""
    threads: bool = False
    """Different threads can use different layers at the same time."""
    folding: bool = False
    """Layers can be folded into a convolution before them: they have ``fold``."""
    input_checks: bool = True
    """Layers refuse a wrong rank, a wrong number of channels, and a single value per channel."""
    unbiased: bool = True
    """All operations round to nearest, so that errors are as often too large as too small."""

    @property
    def answers_single_values(self) -> bool:
        """Whether the dialect has an answer for a single value per channel in training."""
        return self.dialect.single_value == "answered"

    @property
    def normalises_by_batch(self) -> bool:
        """Whether, in the dialect, batch statistics normalise in training."""
        return self.dialect.training_output == PYTORCH.training_output

    @property
    def momentum_zero(self) -> bool:
        """Whether, in the dialect, momentum 0 keeps running statistics as they are."""
        return self.dialect.averages == PYTORCH.averages

    @property
    def refuses_single_values(self) -> bool:
        """Whether layers must refuse a single value per channel in training."""
        return self.input_checks and not self.answers_single_values

    def has(self, flag: str, dtype: str) -> bool:
        """Return whether a claim is made in a dtype.

        Args:
            flag: Name of a field or property: a Boolean, or a list of the dtypes in which the
                claim is made.
            dtype: Name of the dtype.

        """
        claim = getattr(self, flag)
        return dtype in claim if isinstance(claim, tuple) else bool(claim)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradients and not self.normalises_by_batch:
            raise ConfigError(
                f"gradients are claimed with training_output={self.dialect.training_output!r},"
                " for which there is no reference; claim gradients=False"
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
"""All claims about the operator that a backend can make."""


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims: how ``bn-spec doctor`` probes a claim.

    Attributes:
        flag: Field of :class:`Capabilities`.
        label: Name of the probe; empty if the claim cannot be probed.
        judged_by: Ids of the requirements whose properties judge the claim, the simplest first.
        provable: Whether the doctor proposes the claim when all examples pass. Examples can only
            refute a claim about how a kernel computes.
        least: The value that claims nothing, for a claim that changes which cases are drawn or how
            they are judged. None for other claims, which keep their declared value while the
            doctor probes another claim.

    """

    flag: str
    label: str = ""
    judged_by: tuple[str, ...] = ()
    provable: bool = True
    least: object = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps that only backends with this claim get."""
        kinds = STEP_KINDS.values()
        return tuple(kind.step.__name__ for kind in kinds if kind.claim == self.flag)


CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {
        claim.flag: claim
        for claim in (
            # Probes run in this order: each relies on the results of those before it.
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
            # The results of a kernel do not show its formats, nor what it costs to compile.
            Claim("statistics"),
            Claim("elementwise"),
            Claim("expensive_signatures"),
        )
    }
)
"""The table of claims, by flag: one row for each field of :class:`Capabilities`."""
