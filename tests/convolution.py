"""A convolution by its definition."""

from __future__ import annotations

import numpy as np

from bn_spec.case.dtypes import Array


def correlated(x: Array, weight: Array, bias: Array) -> Array:
    """Return a convolution of stride 1 without padding, by its definition."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("nihwpq,cipq->nchw", windows, weight) + bias.reshape(1, -1, 1, 1)  # type: ignore[no-any-return]
