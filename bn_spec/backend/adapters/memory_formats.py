"""Memory formats of batches as ATen, PyTorch's tensor library, distinguishes them.

A batch (N, C, H, W) lies in NCHW order (``torch.contiguous_format``), in NHWC order
(``torch.channels_last``), in both, or in neither. Needs no PyTorch.
"""

from __future__ import annotations

from bn_spec.case.dtypes import Array


def is_channels_last(a: Array) -> bool:
    """Whether an array lies in NHWC order, whatever the strides of its axes of length 1."""
    return a.transpose(0, 2, 3, 1).flags.c_contiguous


def is_dense(a: Array) -> bool:
    """Whether an array lies in NCHW or NHWC order, whatever the strides of its axes of length 1."""
    return a.flags.c_contiguous or is_channels_last(a)


def orders(a: Array) -> tuple[bool, bool]:
    """Return whether an array lies in NCHW order, and whether it lies in NHWC order."""
    return a.flags.c_contiguous, is_channels_last(a)


def suggests_channels_last(a: Array) -> bool:
    """Whether ATen's suggest_memory_format answers NHWC.

    Unlike :func:`is_channels_last` it also compares the strides of axes of length 1.
    """
    n, c, h, w = a.strides
    _, channels, height, width = a.shape
    return bool(w >= c * channels and h >= w * width and n >= h * height != c)


def are_read_directly(x: Array, dy: Array) -> bool:
    """Whether batch_norm_backward_cpu reads x and dy directly, as two dense arrays in one order.

    It judges the order by suggest_memory_format, which may be wrong.
    """
    same_suggestion = suggests_channels_last(x) == suggests_channels_last(dy)
    return is_dense(x) and is_dense(dy) and same_suggestion
