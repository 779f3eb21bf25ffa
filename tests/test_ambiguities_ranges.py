"""What docs/ambiguities.md says of PyTorch on the CPU is so: variances and overflow."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import (  # noqa: E402 - it needs torch
    INF,
    NAN,
    each_layout,
    laid_out,
    norm,
    row,
    with_,
)


@each_layout
def test_a_running_variance_of_zero_leaves_the_root_of_eps(layout: str) -> None:
    layer = with_(norm(2, False), running_var=0, running_mean=1)
    assert layer(laid_out(row(2, 1, channels=2), layout)).ravel().tolist() == pytest.approx(
        [316.2278, 0] * 2
    )


@each_layout
@pytest.mark.parametrize(("var", "y"), [(-1e-6, 333.3333), (-1.0, NAN), (-2e-5, NAN)])
def test_a_negative_running_variance_follows_the_formula_above_minus_eps_and_gives_nan_below(
    var: float, y: float, layout: str
) -> None:
    x = laid_out(row(1, 1, channels=2), layout).requires_grad_()
    output = with_(norm(2, False), running_var=var)(x)
    assert output.ravel().tolist() == pytest.approx([y] * 4, nan_ok=True)
    (dx,) = torch.autograd.grad(output.sum(), x)
    assert dx.ravel().tolist() == pytest.approx([y] * 4, nan_ok=True)


def test_training_uses_a_negative_running_variance_in_the_average_alone() -> None:
    layer = with_(norm(), running_var=-1)
    assert layer(row(1, 3)).isfinite().all()
    assert layer.running_var.item() == pytest.approx(-0.9 + 0.1 * 2)


# Overflow -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "output", "mean"),
    [("NCHW", -INF, 2.0**127), ("NHWC", NAN, INF), ("other strides", NAN, INF)],
)
def test_sums_that_overflow_are_answered_by_layout(layout: str, output: float, mean: float) -> None:
    layer = norm(2, momentum=1.0)
    y = layer(laid_out(row(2.0**127, 2.0**127, channels=2), layout))
    assert y.ravel().tolist() == pytest.approx([output] * 4, nan_ok=True)
    assert layer.running_mean.tolist() == [mean, mean]


@each_layout
@pytest.mark.parametrize(
    ("dtype", "number", "overflows"),
    [(torch.float16, 6e4, False), (torch.bfloat16, 1e38, False), (torch.bfloat16, 3e38, True)],
)
def test_half_precision_is_added_in_float32(
    dtype: Any, number: float, overflows: bool, layout: str
) -> None:
    layer = norm(2, momentum=1.0)
    x = laid_out(row(number, number, channels=2, dtype=dtype), layout)
    layer(x)
    assert layer.running_mean.tolist() == ([INF, INF] if overflows else x[0, :, 0, 0].tolist())


@each_layout
@pytest.mark.parametrize(("dtype", "number"), [(torch.float32, 1e20), (torch.float64, 1e160)])
def test_squares_that_overflow_give_an_infinite_variance_or_the_right_output_and_never_nan(
    dtype: Any, number: float, layout: str
) -> None:
    layer = with_(norm(2, momentum=1.0, dtype=dtype), bias=3)
    y = layer(laid_out(row(number, -number, channels=2, dtype=dtype), layout))
    right = dtype == torch.float32 and layout == "other strides"
    assert y.ravel().tolist() == pytest.approx([4, 2, 4, 2] if right else [3, 3, 3, 3], rel=1e-5)
    assert layer.running_var.tolist() == [INF, INF]


@each_layout
def test_a_variance_too_large_for_its_buffer_is_infinite_and_the_output_right(layout: str) -> None:
    layer = norm(2, momentum=1.0, dtype=torch.float16)
    y = layer(laid_out(row(200, -200, channels=2, dtype=torch.float16), layout))
    assert y.ravel().tolist() == [1, -1, 1, -1]
    assert layer.running_var.tolist() == [INF, INF]
    mixed = norm(2, momentum=1.0)
    mixed(laid_out(row(6e4, -6e4, channels=2, dtype=torch.float16), layout))
    assert mixed.running_var.tolist() == pytest.approx([7.2e9] * 2, rel=1e-3)
