"""Known failures of PyTorch's BatchNorm2d: what was found, why it fails, and on which cases.

Needs no PyTorch.
"""

from __future__ import annotations

from typing import Any

from bn_spec.backend.adapters.memory_formats import (
    are_read_directly,
    is_channels_last,
    is_dense,
    orders,
    suggests_channels_last,
)
from bn_spec.backend.adapters.passes import backwards, forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case

MIXED = ("mixed_float16", "mixed_bfloat16")
HALF = (*MIXED, "float16", "bfloat16")


# State --------------------------------------------------------------------------------------------


def _is_counted(x: Array, channels: int) -> bool:
    """Whether a batch is refused after it was counted: not for its rank."""
    return x.ndim == 4 and (x.shape[1] != channels or x.size == channels)


COUNTS_REFUSED = tuple(
    KnownFailure(
        requirement,
        "num_batches_tracked",
        "_BatchNorm.forward counts a batch that is refused: it adds 1 to num_batches_tracked before"
        " F.batch_norm checks the number of channels and the number of values per channel"
        " (measured on torch 2.13.0)",
        where=lambda case: any(_is_counted(x, case.config.num_features) for x in case.forwards()),
    )
    for requirement in ("ERR-04", "STA-09")
)

LOADS_IN_PART = KnownFailure(
    "ERR-06",
    "*",
    "load_state_dict of torch.nn.Module copies the tensors that fit before it raises for the others"
    " (measured on torch 2.13.0)",
)

INVERSE_STD_OVERFLOWS = KnownFailure(
    "NUM-06",
    "numbers",
    "all-float16 layers keep 1 / sqrt(var + eps) in float16. For a constant channel and eps below"
    " 2.3e-10 it exceeds 65504 and becomes infinite; multiplied by zero it gives NaN (measured on"
    " torch 2.13.0)",
    dtypes=("float16",),
    where=lambda case: case.config.eps < 65504.0**-2,
)


# Gradients on the CPU -----------------------------------------------------------------------------


def is_misread(case: Case) -> bool:
    """Whether a backward of a case on the CPU reads dy in an order in which dy does not lie."""
    return any(
        are_read_directly(forward.x, dy) and orders(forward.x) != orders(dy)
        for forward, dy in backwards(case)
    )


def is_read_by_strides(case: Case) -> bool:
    """Whether a backward of a case on the CPU reads x and dy by their strides, the slower way."""
    return any(not are_read_directly(forward.x, dy) for forward, dy in backwards(case))


def _of_gradients(reason: str, **scope: Any) -> tuple[KnownFailure, ...]:
    """Return a failure of everything that is judged of gradients.

    This is their values, whether they are numbers, and how far special values spread.
    """
    judged = (("*", "grad*"), ("GRD-*", "numbers"), ("SPV-*", "special"), ("SPV-*", "elsewhere"))
    return tuple(
        KnownFailure(requirement, observable, reason, **scope) for requirement, observable in judged
    )


_MEMORY_FORMATS_MIXED_UP = _of_gradients(
    "batch_norm_backward_cpu reads dy in the order of x wherever suggest_memory_format gives both"
    " the same answer. That answer depends on the strides of axes of length 1 too: a dy of shape"
    " (1, C, 1, W) in NHWC order whose first stride is 1 is read as if it were in NCHW order"
    " (measured on torch 2.13.0; similar to pytorch/pytorch#115940)",
    where=is_misread,
)

_STEPS_IN_HALF = _of_gradients(
    "unless x and dy are dense in the same order, batch_norm_backward_cpu rounds intermediate"
    " results to half precision, whatever the dtype of the parameters: the sum of dy and the"
    " products with x − mean. In float16 they overflow (measured on torch 2.13.0)",
    dtypes=HALF,
    where=is_read_by_strides,
)

RUNNING_STATISTICS_NOT_SAVED = KnownFailure(
    "GRD-15",
    "grad_*",
    "an eval forward saves its running statistics by reference, and a training forward changes them"
    " in place without a new version: pytorch/pytorch#13402",
)


# torch.compile ------------------------------------------------------------------------------------

SAVED_IN_HALF = _of_gradients(
    "the decomposition of native_batch_norm (torch/_decomp/decompositions.py) casts the saved mean"
    " and 1 / sqrt(var + eps) to the dtype of the input. So the backward of half-precision data has"
    " them in half precision, although the parameters are float32; in float16 1 / sqrt(var + eps)"
    " overflows (measured on torch 2.13.0)",
    dtypes=MIXED,
)

_VERSION_CHECKED = KnownFailure(
    "GRD-15",
    "error",
    "a compiled training forward records that it changes the running statistics in place. So a"
    " version check refuses the backward of an earlier eval forward, where eager mode computes with"
    " the wrong statistics (pytorch/pytorch#13402)",
)


# CUDA ---------------------------------------------------------------------------------------------

CUDNN = ("float32", "float64", "mixed_float16")
"""Dtypes of the affine layers that run on cuDNN.

cuDNN takes all their forwards, and the backwards of training.
"""


def _takes_cudnn(case: Case) -> bool:
    return case.config.affine and case.config.dtype in CUDNN


def _has_rounded_means(case: Case) -> bool:
    """Whether PyTorch's own kernels take the mean of a batch in neither NCHW nor NHWC order."""
    inputs = (
        forward.x for forward in forwards(case) if forward.batch_statistics and forward.x.ndim == 4
    )
    return not _takes_cudnn(case) and not all(map(is_dense, inputs))


def _is_reduced_in_half(case: Case) -> bool:
    """Whether a kernel that sums in half precision computes a backward of a case.

    A layer on cuDNN has such backwards in eval mode only: when x and dy are not both in NHWC order,
    or when x was brought to NCHW order, because ATen suggests that order for it.
    """
    cudnn = _takes_cudnn(case)
    return any(
        not (is_channels_last(forward.x) and is_channels_last(dy))
        or (cudnn and _is_brought_to_nchw(forward.x))
        for forward, dy in backwards(case)
        if not (cudnn and forward.training)
    )


def _is_brought_to_nchw(x: Array) -> bool:
    return not x.flags.c_contiguous and not suggests_channels_last(x)


def _has_eval_backward_in_nhwc(case: Case) -> bool:
    """Whether a backward in eval mode has an input in NHWC order alone, not in NCHW order too."""
    only_nhwc = (False, True)
    return any(
        not forward.training and orders(forward.x) == only_nhwc for forward, _ in backwards(case)
    )


def _has_gaps(case: Case) -> bool:
    """Whether a layer on cuDNN has running statistics with gaps in memory."""
    statistics = (case.state.running_mean, case.state.running_var) if case.state else ()
    return _takes_cudnn(case) and any(
        a is not None and not a.flags.c_contiguous for a in statistics
    )


_MEAN_IN_HALF = tuple(
    KnownFailure(
        "*",
        observable,
        "where x is in neither NCHW nor NHWC order, the mean of float16 data is rounded to float16,"
        " whatever the dtype of the parameters; the variance is not. WelfordOps::project in"
        " aten/src/ATen/native/SharedReduceOps.h casts the mean to the type of the data. cuDNN,"
        " which computes affine layers with float32 parameters, does not round it (measured on"
        " torch 2.11.0)",
        dtypes=("float16", "mixed_float16"),
        where=_has_rounded_means,
    )
    for observable in ("output", "running_mean", "grad*", "numbers", *LAWS, *OTHER_LAWS)
)

_SUMS_IN_HALF = _of_gradients(
    "unless x and dy are both in NHWC order, the backward kernels pass the products dy (x − mean),"
    " and the partial sums within a warp, to the constructor of Float2"
    " (aten/src/ATen/native/cuda/Normalization.cuh). It rounds them to the type of the data,"
    " whatever the dtype of the parameters; in float16 they overflow. The training backward of"
    " affine layers of float16 data with float32 parameters is cuDNN's (measured on torch 2.11.0)",
    dtypes=HALF,
    where=_is_reduced_in_half,
)

_GRADIENT_IN_NCHW = KnownFailure(
    "GRD-22",
    "gradient_layout",
    "batch_norm_elementwise_backward_eval (aten/src/ATen/native/cuda/Normalization.cu) returns the"
    " gradient of the input of an eval forward in NCHW order, whatever the order of the input"
    " (measured on torch 2.11.0)",
    where=_has_eval_backward_in_nhwc,
)

_UPDATES_A_COPY = tuple(
    KnownFailure(
        "LAY-04",
        observable,
        "before it calls cuDNN, _batch_norm_impl_index (aten/src/ATen/native/Normalization.cpp)"
        " copies running statistics with gaps in memory into contiguous ones. cuDNN updates the"
        " copy, so the update is lost (measured on torch 2.11.0)",
        dtypes=CUDNN,
        where=_has_gaps,
    )
    for observable in ("running_mean", "running_var")
)


# By backend ---------------------------------------------------------------------------------------

CPU = (
    *COUNTS_REFUSED,
    LOADS_IN_PART,
    INVERSE_STD_OVERFLOWS,
    *_MEMORY_FORMATS_MIXED_UP,
    *_STEPS_IN_HALF,
    RUNNING_STATISTICS_NOT_SAVED,
)
"""Known failures of the eager kernels for the CPU."""

COMPILED = (LOADS_IN_PART, *SAVED_IN_HALF, _VERSION_CHECKED)
"""Known failures of ``torch.compile`` with Inductor."""

CUDA = (
    *COUNTS_REFUSED,
    LOADS_IN_PART,
    RUNNING_STATISTICS_NOT_SAVED,
    *_MEAN_IN_HALF,
    *_SUMS_IN_HALF,
    _GRADIENT_IN_NCHW,
    *_UPDATES_A_COPY,
)
"""Known failures of the eager kernels for CUDA."""
