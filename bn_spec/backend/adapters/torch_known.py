"""Known failures of PyTorch's BatchNorm2d: what was found, why it fails, and on which cases. Needs no PyTorch."""

from __future__ import annotations

from typing import Any

from bn_spec.backend.adapters.passes import backwards, forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case

MIXED = ("mixed_float16", "mixed_bfloat16")
HALF = (*MIXED, "float16", "bfloat16")


def _is_counted(x: Array, channels: int) -> bool:
    """Whether a batch that is refused was counted before."""
    return x.ndim == 4 and (x.shape[1] != channels or x.size == channels)


COUNTS_REFUSED = tuple(
    KnownFailure(
        requirement,
        "num_batches_tracked",
        "_BatchNorm.forward adds 1 to num_batches_tracked before F.batch_norm checks the number of values per channel"
        " and the number of channels, so a refused batch is counted (measured on torch 2.13.0)",
        where=lambda case: any(_is_counted(x, case.config.num_features) for x in case.forwards()),
    )
    for requirement in ("ERR-04", "STA-09")
)

LOADS_IN_PART = KnownFailure(
    "ERR-06",
    "*",
    "load_state_dict of torch.nn.Module copies the tensors that fit before it raises for the others (measured on"
    " torch 2.13.0)",
)

INVERSE_STD_OVERFLOWS = KnownFailure(
    "NUM-06",
    "numbers",
    "all-float16 layers keep 1 / sqrt(var + eps) in float16: for a constant channel and eps below 2.3e-10 it exceeds"
    " 65504, becomes infinite, and times zero gives NaN (measured on torch 2.13.0)",
    dtypes=("float16",),
    where=lambda case: case.config.eps < 65504.0**-2,
)


def _is_dense(a: Array) -> bool:
    """Whether an array lies in NCHW or NHWC order, whatever the strides of its axes of length 1."""
    return a.flags.c_contiguous or _is_channels_last(a)


def _is_channels_last(a: Array) -> bool:
    return a.transpose(0, 2, 3, 1).flags.c_contiguous


def _suggests_channels_last(a: Array) -> bool:
    """Whether ATen's suggest_memory_format says NHWC, which goes by the strides of axes of length 1 too."""
    n, c, h, w = a.strides
    _, channels, height, width = a.shape
    return bool(w >= c * channels and h >= w * width and n >= h * height != c)


def _is_fast(x: Array, dy: Array) -> bool:
    """Whether batch_norm_backward_cpu reads x and dy directly, because it takes them for dense in the same order."""
    return (
        _is_dense(x) and _is_dense(dy) and _suggests_channels_last(x) == _suggests_channels_last(dy)
    )


def _is_misread(case: Case) -> bool:
    return any(
        _is_fast(of.x, dy) and _direct_order(of.x) != _direct_order(dy)
        for of, dy in backwards(case)
    )


def _direct_order(a: Array) -> tuple[bool, bool]:
    return a.flags.c_contiguous, _is_channels_last(a)


def _is_slow(case: Case) -> bool:
    return any(not _is_fast(of.x, dy) for of, dy in backwards(case))


def _of_gradients(reason: str, **scope: Any) -> tuple[KnownFailure, ...]:
    """Return a failure of whatever is judged of gradients: values, whether they are numbers, what stays apart."""
    judged = (("*", "grad*"), ("GRD-*", "numbers"), ("SPV-*", "special"), ("SPV-*", "elsewhere"))
    return tuple(
        KnownFailure(requirement, observable, reason, **scope) for requirement, observable in judged
    )


_MEMORY_FORMATS_MIXED_UP = _of_gradients(
    "batch_norm_backward_cpu reads dy in the order of x where suggest_memory_format agrees, which goes by the strides"
    " of axes of length 1 too: a dy of shape (1, C, 1, W) in NHWC order whose first stride is 1 is read as if it were"
    " in NCHW order (measured on torch 2.13.0; of the kind of pytorch/pytorch#115940)",
    where=_is_misread,
)

_STEPS_IN_HALF = _of_gradients(
    "unless x and dy are dense in the same order, batch_norm_backward_cpu rounds the sum of dy and the products with"
    " x − mean to half precision on the way, whatever the dtype of the parameters; in float16 they overflow"
    " (measured on torch 2.13.0)",
    dtypes=HALF,
    where=_is_slow,
)

RUNNING_STATISTICS_NOT_SAVED = KnownFailure(
    "GRD-15",
    "grad_*",
    "an eval forward saves its running statistics by reference, and a training forward changes them in place without"
    " a new version: pytorch/pytorch#13402",
)

SAVED_IN_HALF = _of_gradients(
    "the decomposition of native_batch_norm casts the saved mean and 1 / sqrt(var + eps) to the dtype of the input"
    " (torch/_decomp/decompositions.py), so that the backward of half-precision data has them in half precision,"
    " though the parameters are float32; in float16 the latter overflows (measured on torch 2.13.0)",
    dtypes=MIXED,
)

_VERSION_CHECKED = KnownFailure(
    "GRD-15",
    "error",
    "a compiled training forward notes that it changes the running statistics in place, so that the backward of an"
    " eval forward before it is refused: a version check, where eager mode computes with the wrong statistics"
    " (pytorch/pytorch#13402)",
)

CUDNN = ("float32", "float64", "mixed_float16")
"""The dtypes of which cuDNN takes layers, if they are affine: all their forwards, and the backwards of training."""


def _takes_cudnn(case: Case) -> bool:
    return case.config.affine and case.config.dtype in CUDNN


def _has_rounded_means(case: Case) -> bool:
    """Whether a forward of a case takes the mean of a batch that is in neither order, and is not cuDNN's."""
    inputs = (
        forward.x for forward in forwards(case) if forward.batch_statistics and forward.x.ndim == 4
    )
    return not _takes_cudnn(case) and not all(map(_is_dense, inputs))


def _is_reduced_in_half(case: Case) -> bool:
    """Whether a backward of a case is one of the kernels that sum in half precision.

    In eval mode a layer of cuDNN's has them too, of an input that was brought to the order
    suggested for it.
    """
    cudnn = _takes_cudnn(case)
    return any(
        not (_is_channels_last(of.x) and _is_channels_last(dy))
        or (cudnn and _is_brought_to_nchw(of.x))
        for of, dy in backwards(case)
        if not (cudnn and of.training)
    )


def _is_brought_to_nchw(x: Array) -> bool:
    return not x.flags.c_contiguous and not _suggests_channels_last(x)


def _is_given_order(case: Case) -> bool:
    """Whether there is a backward in eval mode of an input in NHWC order that is not in NCHW order as well."""
    return any(
        not of.training and _direct_order(of.x) == (False, True) for of, _ in backwards(case)
    )


def _has_gaps(case: Case) -> bool:
    """Whether running statistics with gaps in memory are those of a layer of cuDNN's."""
    statistics = (case.state.running_mean, case.state.running_var) if case.state else ()
    return _takes_cudnn(case) and any(
        a is not None and not a.flags.c_contiguous for a in statistics
    )


_MEAN_IN_HALF = tuple(
    KnownFailure(
        "*",
        observable,
        "where x is in neither NCHW nor NHWC order, the mean of float16 data is rounded to float16, whatever the"
        " dtype of the parameters, though the variance is not: WelfordOps::project in"
        " aten/src/ATen/native/SharedReduceOps.h casts it to the type of the data. Affine layers with float32"
        " parameters are cuDNN's, which does not (measured on torch 2.11.0)",
        dtypes=("float16", "mixed_float16"),
        where=_has_rounded_means,
    )
    for observable in ("output", "running_mean", "grad*", "numbers", *LAWS, *OTHER_LAWS)
)

_SUMS_IN_HALF = _of_gradients(
    "unless x and dy are both in NHWC order, the backward kernels pass the products dy (x − mean), and the partial"
    " sums within a warp, to the constructor of Float2 (aten/src/ATen/native/cuda/Normalization.cuh), which rounds"
    " them to the type of the data, whatever the dtype of the parameters; in float16 they overflow. For affine layers"
    " of float16 data with float32 parameters, cuDNN takes the backward in training (measured on torch 2.11.0)",
    dtypes=HALF,
    where=_is_reduced_in_half,
)

_GRADIENT_IN_NCHW = KnownFailure(
    "GRD-22",
    "gradient_layout",
    "batch_norm_elementwise_backward_eval (aten/src/ATen/native/cuda/Normalization.cu) lays the gradient of the input"
    " of an eval forward out in NCHW order, whatever that of the input (measured on torch 2.11.0)",
    where=_is_given_order,
)

_UPDATES_A_COPY = tuple(
    KnownFailure(
        "LAY-04",
        observable,
        "before it calls cuDNN, _batch_norm_impl_index makes running statistics with gaps contiguous, so that the"
        " update goes to a copy and is lost (aten/src/ATen/native/Normalization.cpp; measured on torch 2.11.0)",
        dtypes=CUDNN,
        where=_has_gaps,
    )
    for observable in ("running_mean", "running_var")
)

CPU = (
    *COUNTS_REFUSED,
    LOADS_IN_PART,
    INVERSE_STD_OVERFLOWS,
    *_MEMORY_FORMATS_MIXED_UP,
    *_STEPS_IN_HALF,
    RUNNING_STATISTICS_NOT_SAVED,
)
"""Of the eager kernels for the CPU."""

COMPILED = (LOADS_IN_PART, *SAVED_IN_HALF, _VERSION_CHECKED)
"""Of Inductor's."""

CUDA = (
    *COUNTS_REFUSED,
    LOADS_IN_PART,
    RUNNING_STATISTICS_NOT_SAVED,
    *_MEAN_IN_HALF,
    *_SUMS_IN_HALF,
    _GRADIENT_IN_NCHW,
    *_UPDATES_A_COPY,
)
"""Of the eager kernels for CUDA."""
