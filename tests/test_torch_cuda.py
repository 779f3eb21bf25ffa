"""The cases on which PyTorch's kernels for CUDA are expected to fail.

Whether they do fail, only a device can show.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.backend.adapters import torch_known as known
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.layouts import PLACED, spread
from bn_spec.case.steps import Backward, Eval, Forward, Restore, Save


def batch(order: str, dtype: str) -> Array:
    """Return a batch in a layout; "row" is in NHWC order, although ATen suggests NCHW for it."""
    data = DTYPES[dtype].data.dtype
    if order == "row":
        strides = [elements * data.itemsize for elements in (1, 1, 2, 2)]
        return np.lib.stride_tricks.as_strided(np.ones(6, data), (1, 2, 1, 3), strides)
    return PLACED[order](np.ones((2, 3, 2, 4), data))


def expected_on_cuda(
    x: Array, dy: Array, dtype: str, training: bool = True, **options: Any
) -> set[str]:
    """Return a word for each known failure that is expected of a forward and its backward."""
    mode = () if training else (Eval(),)
    case = Case(
        Config(x.shape[1], dtype=dtype, **options),
        None,
        (*mode, Forward(x, ("input",)), Backward(dy)),
    )
    # Each word stands for a part of a reason.
    words = {"Float2": "sums", "WelfordOps": "mean", "elementwise_backward_eval": "order"}
    expected = [f for f in known.CUDA if (not f.dtypes or dtype in f.dtypes) and f.where(case)]
    return {word for part, word in words.items() if any(part in f.reason for f in expected)}


@pytest.mark.parametrize(
    ("x", "dy", "dtype", "options", "expected"),
    [
        ("contiguous", "contiguous", "float32", {}, set()),
        ("sliced", "contiguous", "float32", {"affine": False}, set()),
        ("contiguous", "contiguous", "mixed_bfloat16", {}, {"sums"}),
        ("contiguous", "contiguous", "bfloat16", {}, {"sums"}),
        ("channels_last", "channels_last", "bfloat16", {}, set()),
        ("channels_last", "contiguous", "bfloat16", {}, {"sums"}),
        ("sliced", "contiguous", "bfloat16", {}, {"sums"}),
        ("contiguous", "contiguous", "mixed_float16", {}, set()),
        ("contiguous", "contiguous", "mixed_float16", {"affine": False}, {"sums"}),
        ("contiguous", "contiguous", "mixed_float16", {"training": False}, {"sums"}),
        ("sliced", "contiguous", "mixed_float16", {}, set()),
        ("sliced", "contiguous", "mixed_float16", {"affine": False}, {"sums", "mean"}),
        ("sliced", "contiguous", "float16", {}, {"sums", "mean"}),
        ("sliced", "contiguous", "float16", {"training": False}, {"sums"}),
        (
            "sliced",
            "contiguous",
            "float16",
            {"training": False, "track_running_stats": False},
            {"sums", "mean"},
        ),
        ("channels_last", "channels_last", "float16", {"training": False}, {"order"}),
        ("channels_last", "contiguous", "float32", {"training": False}, {"order"}),
        ("contiguous", "channels_last", "float32", {"training": False}, set()),
        ("row", "row", "bfloat16", {}, set()),
        ("row", "row", "mixed_float16", {"training": False}, {"sums", "order"}),
    ],
)
def test_the_failures_expected_on_cuda_depend_on_the_kernel_that_computes_the_case(
    x: str, dy: str, dtype: str, options: dict[str, Any], expected: set[str]
) -> None:
    assert expected_on_cuda(batch(x, dtype), batch(dy, dtype), dtype, **options) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_cudnn_is_expected_to_lose_the_updates_of_statistics_with_gaps(
    dtype: str, affine: bool, step: int
) -> None:
    config = Config(3, affine=affine, dtype=dtype)
    statistics = spread(np.ones(3, config.arithmetic.parameters.dtype), step)
    state = replace(initial_state(config), running_mean=statistics, running_var=statistics.copy())
    case = Case(config, state, (Forward(batch("contiguous", dtype)),))
    lost = [
        f
        for f in known.CUDA
        if f.requirement == "LAY-04" and f.concerns("LAY-04", dtype) and f.where(case)
    ]
    assert bool(lost) == (affine and step > 1 and dtype in ("float32", "float64", "mixed_float16"))


def test_a_new_layer_that_loads_a_checkpoint_is_in_training_mode() -> None:
    x = batch("sliced", "float16")
    for fresh in (True, False):
        steps = (Save(), Eval(), Restore(fresh=fresh), Forward(x))
        case = Case(Config(x.shape[1], affine=False, dtype="float16"), None, steps)
        assert (
            any(failure.where(case) for failure in known.CUDA if failure.requirement == "*")
            is fresh
        )


def test_the_expected_failures_do_not_cover_inputs_of_another_rank() -> None:
    case = Case(Config(3, affine=False, dtype="float16"), None, (Forward(np.ones(3, np.float16)),))
    assert not any(failure.where(case) for failure in known.CUDA if failure.requirement == "*")
