"""Known failures of the BatchNorm layers of JAX's libraries: what was found, why, and where.

Needs no JAX.
"""

from __future__ import annotations

import numpy as np

from bn_spec.backend.adapters.composed import through_rsqrt
from bn_spec.backend.adapters.passes import backwards, forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, Load, ResetParameters, ResetRunningStats, Restore

HALF = ("mixed_float16", "mixed_bfloat16")
"""Dtypes of layers with half-precision data and float32 parameters."""


def _differentiates_batch_statistics(case: Case) -> bool:
    """Whether a backward of a case goes through the statistics of a batch."""
    return any(forward.batch_statistics for forward, _ in backwards(case))


RSQRT = through_rsqrt(
    "the derivative of lax.rsqrt (jax/_src/lax/lax.py) forms rsqrt(v) / v. In float32 the quotient"
    " is flushed to zero for v above 1.2e25, so that dx lacks the part that goes through the"
    " variance; it is infinite for v below 2e-26 (measured on jax 0.10.2)"
)
"""Known failures of every layer that is differentiated through lax.rsqrt."""

_SUM_OF_HALVES = tuple(
    KnownFailure(
        requirement,
        observable,
        "the layer converts half-precision data to float32 twice, for the statistics and for"
        " x − mean. So its transpose rounds both parts of dx to half precision before it adds them:"
        " digits that cancel in the sum are lost, and the sum is NaN where both parts overflow"
        " (measured on flax 0.12.8 and jax 0.10.2)",
        dtypes=HALF,
        where=_differentiates_batch_statistics,
    )
    for requirement, observable in (
        ("*", "grad_input"),
        ("GRD-*", "numbers"),
        ("GRD-10", "gradient_linearity"),
        ("GRD-11", "gradient_sums"),
    )
)


def _is_promoted(case: Case) -> bool:
    """Whether a forward of a case uses tensors that the promotion to half precision changes.

    These are running statistics, and a weight or bias with more digits or a wider range than the
    dtype of the data.
    """
    if any(not forward.batch_statistics for forward in forwards(case)):
        return True
    data = case.config.arithmetic.data.dtype
    loads = [step for step in case.steps if isinstance(step, Load)]
    with np.errstate(over="ignore", invalid="ignore"):
        for source in (case.state, *loads):
            if source is None:
                continue
            for parameter in (source.weight, source.bias):
                if parameter is not None and _changes(parameter, data):
                    return True
    return False


def _changes(parameter: Array, dtype: np.dtype) -> bool:
    """Whether the conversion to a dtype changes a value of a tensor."""
    return not np.array_equal(parameter.astype(dtype).astype(parameter.dtype), parameter)


_TENSORS_IN_HALF = (
    *(
        KnownFailure(
            "*",
            observable,
            "BatchNorm.__call__ (flax/nnx/nn/normalization.py) promotes weight, bias and running"
            " statistics to the dtype of the output. So a layer of half-precision outputs computes"
            " in half precision in eval mode, where a running_var above 65504 is infinite, and"
            " rounds its parameters in training; Linen does not (measured on flax 0.12.8)",
            dtypes=HALF,
            where=_is_promoted,
        )
        for observable in ("output", "numbers", "grad_input", "gradient_*", *LAWS, *OTHER_LAWS)
    ),
    *(
        KnownFailure(
            "*",
            observable,
            "the promotion of weight and bias to the dtype of the output, in"
            " flax/nnx/nn/normalization.py, rounds their gradients to half precision. In eval mode"
            " these gradients are also summed in half precision; in float16 they are infinite above"
            " 65504 (measured on flax 0.12.8)",
            dtypes=HALF,
            where=lambda case: any(isinstance(step, Backward) for step in case.steps),
        )
        for observable in ("grad_weight", "grad_bias", "gradient_*", "numbers")
    ),
)

LINEN = (*RSQRT, *_SUM_OF_HALVES)
"""Known failures of Flax Linen."""


def _may_be_negative(case: Case) -> bool:
    """Whether rounding may make E[x²] − E[x]² of a batch negative.

    It may where the variance of a channel is not larger than the rounding errors of both terms.
    """
    u = case.config.arithmetic.accumulation.u

    def cancels(batch: Array) -> bool:
        x = batch.astype(np.float64)
        values = x.size // x.shape[1]
        with np.errstate(all="ignore"):
            rounding = 4 * (values + 4) * u * np.square(x).mean(axis=(0, 2, 3))
            return bool(np.any(x.var(axis=(0, 2, 3)) <= rounding))

    return any(
        cancels(forward.x)
        for forward in forwards(case)
        if forward.batch_statistics and forward.x.size
    )


HAIKU = (
    *RSQRT,
    *(
        KnownFailure(
            "*",
            observable,
            "BatchNorm.__call__ (haiku/_src/batch_norm.py) does not clip E[x²] − E[x]² at zero."
            " Where rounding makes it negative, outputs grow or are NaN, in eval mode too (measured"
            " on haiku 0.0.17)",
            where=_may_be_negative,
        )
        for observable in (
            "output",
            "running_var_sign",
            "numbers",
            "grad*",
            "special",
            "elsewhere",
            *LAWS,
            *OTHER_LAWS,
        )
    ),
)
"""Known failures of Haiku."""


def _is_first(case: Case) -> bool:
    """Whether a layer may track its first batch, or its first after the counter was set back."""
    new = case.state is None or case.state.num_batches_tracked == 0
    again = any(
        isinstance(step, ResetRunningStats | ResetParameters | Restore | Load)
        for step in case.steps
    )
    return (new or again) and any(forward.training for forward in forwards(case))


EQUINOX = tuple(
    KnownFailure(
        "*",
        observable,
        "the layer divides its averages by 1 − momentum ** batches, which is right for averages"
        " that start at zero. The average of the variance starts at one"
        " (equinox/nn/_batch_norm.py; patrick-kidger/equinox#955 asked for this start, for eval"
        " before training). So running_var is too large by momentum / (1 − momentum) after the"
        " first batch (measured on equinox 0.13.8)",
        where=_is_first,
    )
    for observable in ("running_var", *OTHER_LAWS)
)
"""Known failures of Equinox with mode="batch"."""

NNX = (*LINEN, *_TENSORS_IN_HALF)
"""Known failures of Flax NNX."""
