"""Known failures of the BatchNorm layers of JAX's libraries: what was found, why, and where. Needs no JAX."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bn_spec.backend.adapters.composed import through_rsqrt
from bn_spec.backend.adapters.passes import backwards, forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, Load, ResetParameters, ResetRunningStats, Restore

HALF = ("mixed_float16", "mixed_bfloat16")


def _differentiated(case: Case) -> Iterator[tuple[Array, float]]:
    """Yield the input and eps of each forward with statistics of the batch whose gradients are asked."""
    return ((of.x, of.eps) for of, _ in backwards(case) if of.batch_statistics)


RSQRT = through_rsqrt(
    "the derivative of lax.rsqrt (jax/_src/lax/lax.py) forms rsqrt(v) / v, which in float32 is flushed to zero"
    " for v above 1.2e25, so that dx is without the part that goes through the variance, and infinite for v below"
    " 2e-26"
    " (measured on jax 0.10.2)"
)
"""Of whatever is differentiated through lax.rsqrt."""

_SUM_OF_HALVES = tuple(
    KnownFailure(
        requirement,
        observable,
        "the layer converts half-precision data to float32 twice, for the statistics and for x − mean, so that its"
        " transpose rounds both parts of dx to half precision before it adds them: what they have in common is lost,"
        " and is NaN where both overflow (measured on flax 0.12.8 and jax 0.10.2)",
        dtypes=HALF,
        where=lambda case: any(True for _ in _differentiated(case)),
    )
    for requirement, observable in (
        ("*", "grad_input"),
        ("GRD-*", "numbers"),
        ("GRD-10", "gradient_linearity"),
        ("GRD-11", "gradient_sums"),
    )
)


def _is_promoted(case: Case) -> bool:
    """Whether a forward uses running statistics, or weight or bias are beyond the data's precision."""
    used = any(not forward.batch_statistics for forward in forwards(case))
    given = [case.state, *(step for step in case.steps if isinstance(step, Load))]
    parameters = [
        a for it in given if it is not None for a in (it.weight, it.bias) if a is not None
    ]
    held = case.config.arithmetic.data.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        return used or any(
            not np.array_equal(a.astype(held).astype(a.dtype), a) for a in parameters
        )


_TENSORS_IN_HALF = (
    *(
        KnownFailure(
            "*",
            observable,
            "BatchNorm.__call__ (flax/nnx/nn/normalization.py) promotes weight, bias and running statistics to the"
            " dtype of the output, so that a layer of half-precision outputs computes in half precision in eval mode,"
            " where a running_var above 65504 is infinite, and in training rounds its parameters; Linen does not"
            " (measured on flax 0.12.8)",
            dtypes=HALF,
            where=_is_promoted,
        )
        for observable in ("output", "numbers", "grad_input", "gradient_*", *LAWS, *OTHER_LAWS)
    ),
    *(
        KnownFailure(
            "*",
            observable,
            "gradients of weight and bias pass the promotion to the dtype of the output, in"
            " flax/nnx/nn/normalization.py, which rounds them to half precision, and in eval mode they are"
            " sums in it; in float16 they are infinite above 65504 (measured on flax 0.12.8)",
            dtypes=HALF,
            where=lambda case: any(isinstance(step, Backward) for step in case.steps),
        )
        for observable in ("grad_weight", "grad_bias", "gradient_*", "numbers")
    ),
)

LINEN = (*RSQRT, *_SUM_OF_HALVES)
"""Of Linen's."""


def _may_be_negative(case: Case) -> bool:
    """Whether rounding may make E[x²] − E[x]² of a batch negative: its variance is no larger than their errors."""
    u = case.config.arithmetic.accumulation.u

    def cancels(batch: Array) -> bool:
        x = batch.astype(np.float64)
        n = x.size // x.shape[1]
        with np.errstate(all="ignore"):
            return bool(
                np.any(x.var(axis=(0, 2, 3)) <= 4 * (n + 4) * u * np.square(x).mean(axis=(0, 2, 3)))
            )

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
            "BatchNorm.__call__ (haiku/_src/batch_norm.py) does not clip E[x²] − E[x]² at zero: where rounding makes"
            " it negative, outputs grow or are NaN, and so are those in eval mode (measured on haiku 0.0.17)",
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
"""Of Haiku's."""


def _is_first(case: Case) -> bool:
    """Whether a layer tracks its first batch, or that after its counter was set back."""
    new = case.state is None or case.state.num_batches_tracked == 0
    again = any(
        isinstance(step, ResetRunningStats | ResetParameters | Restore | Load)
        for step in case.steps
    )
    return (new or again) and any(of.training for of in forwards(case))


EQUINOX = tuple(
    KnownFailure(
        "*",
        observable,
        "averages are divided by 1 − momentum ** batches, which is right for those that began at zero; that of the"
        " variance begins at one (equinox/nn/_batch_norm.py; patrick-kidger/equinox#955 asked for the one, for eval"
        " before training): running_var is too large by momentum / (1 − momentum) after the first batch (measured on"
        " equinox 0.13.8)",
        where=_is_first,
    )
    for observable in ("running_var", *OTHER_LAWS)
)
"""Of Equinox's, with mode="batch"."""

NNX = (*LINEN, *_TENSORS_IN_HALF)
"""Of NNX's."""
