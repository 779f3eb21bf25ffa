"""Known failures of PyTorch's BatchNorm2d: what was found, why it fails, and on which cases. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..backend import KnownFailure
from ..case import Backward, Case, Forward
from ..dtypes import Array

MIXED = ("mixed_float16", "mixed_bfloat16")
HALF = (*MIXED, "float16", "bfloat16")


def _is_counted(x: Array, channels: int) -> bool:
    """Whether a batch that is refused was counted before."""
    return x.ndim == 4 and (x.shape[1] != channels or x.size == channels)


_COUNTS_REFUSED = tuple(
    KnownFailure(
        requirement,
        "num_batches_tracked",
        "_BatchNorm.forward adds 1 to num_batches_tracked before F.batch_norm checks the number of values per channel"
        " and the number of channels, so a refused batch is counted (measured on torch 2.13.0)",
        where=lambda case: any(_is_counted(x, case.config.num_features) for x in case.forwards()),
    )
    for requirement in ("ERR-04", "STA-09")
)

_LOADS_IN_PART = KnownFailure(
    "ERR-06",
    "*",
    "load_state_dict of torch.nn.Module copies the tensors that fit before it raises for the others (measured on"
    " torch 2.13.0)",
)

_INVERSE_STD_OVERFLOWS = KnownFailure(
    "NUM-06",
    "numbers",
    "all-float16 layers keep 1 / sqrt(var + eps) in float16: for a constant channel and eps below 2.3e-10 it exceeds"
    " 65504, becomes infinite, and times zero gives NaN (measured on torch 2.13.0)",
    dtypes=("float16",),
    where=lambda case: case.config.eps < 65504.0**-2,
)


def _backwards(case: Case) -> Iterator[tuple[Array, Array]]:
    """Yield the input and the gradient of each backward of a case."""
    forwards: list[Array] = []
    for step in case.steps:
        if isinstance(step, Forward):
            forwards.append(step.x)
        elif isinstance(step, Backward):
            yield forwards[step.of], step.dy


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
    return _is_dense(x) and _is_dense(dy) and _suggests_channels_last(x) == _suggests_channels_last(dy)


def _is_misread(case: Case) -> bool:
    return any(_is_fast(x, dy) and _direct_order(x) != _direct_order(dy) for x, dy in _backwards(case))


def _direct_order(a: Array) -> tuple[bool, bool]:
    return a.flags.c_contiguous, _is_channels_last(a)


def _is_slow(case: Case) -> bool:
    return any(not _is_fast(x, dy) for x, dy in _backwards(case))


def _of_gradients(reason: str, **scope: Any) -> tuple[KnownFailure, ...]:
    """Return a failure of whatever is judged of gradients: values, whether they are numbers, what stays apart."""
    judged = (("*", "grad*"), ("GRD-*", "numbers"), ("SPV-*", "special"), ("SPV-*", "elsewhere"))
    return tuple(KnownFailure(requirement, observable, reason, **scope) for requirement, observable in judged)


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

_RUNNING_STATISTICS_NOT_SAVED = KnownFailure(
    "GRD-15",
    "grad_*",
    "an eval forward saves its running statistics by reference, and a training forward changes them in place without"
    " a new version: pytorch/pytorch#13402",
)

_SAVED_IN_HALF = _of_gradients(
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

CPU = (
    *_COUNTS_REFUSED,
    _LOADS_IN_PART,
    _INVERSE_STD_OVERFLOWS,
    *_MEMORY_FORMATS_MIXED_UP,
    *_STEPS_IN_HALF,
    _RUNNING_STATISTICS_NOT_SAVED,
)
"""Of the eager kernels for the CPU."""

COMPILED = (_LOADS_IN_PART, *_SAVED_IN_HALF, _VERSION_CHECKED)
"""Of Inductor's."""

CUDA = (*_COUNTS_REFUSED, _LOADS_IN_PART, _RUNNING_STATISTICS_NOT_SAVED)
"""Of the eager kernels for CUDA."""
