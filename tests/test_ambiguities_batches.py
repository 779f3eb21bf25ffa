"""What docs/ambiguities.md says of PyTorch on the CPU is so: batches, dtypes and layouts."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import (  # noqa: E402 - it needs torch
    NAN,
    NCHW,
    NHWC,
    each_mode,
    laid_out,
    norm,
    row,
    statistics,
    with_,
)


@each_mode
def test_a_single_value_is_refused_wherever_batch_statistics_are_used(training: bool) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(training=training, track_running_stats=False)(row(5))
    assert norm(training=False)(row(5)).tolist() == numbers_of(5 * (1 + 1e-5) ** -0.5)


def numbers_of(number: float) -> Any:
    return [[[[pytest.approx(number)]]]]


def test_the_operator_answers_a_single_value_with_the_bias_and_a_nan_variance() -> None:
    mean, var = torch.zeros(1), torch.ones(1)
    y = torch.batch_norm(
        row(5), torch.ones(1), torch.full((1,), 3.0), mean, var, True, 0.1, 1e-5, False
    )
    assert y.item() == pytest.approx(3, rel=1e-4)  # the folded form cancels
    assert (mean.item(), var.item()) == pytest.approx((0.5, NAN), nan_ok=True)


@each_mode
@pytest.mark.parametrize("layout", [NCHW, NHWC], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0), (0, 2, 1, 1)], ids=str)
def test_an_empty_batch_leaves_running_statistics_and_gives_gradients_of_zero(
    shape: tuple[int, ...], layout: Any, training: bool
) -> None:
    layer = with_(norm(2, training), running_mean=3, running_var=4)
    x = torch.zeros(shape).contiguous(memory_format=layout).requires_grad_()
    y = layer(x)
    assert (y.shape, y.dtype) == (shape, x.dtype)
    assert statistics(layer) == ([3, 3], [4, 4], int(training))
    dx, dweight, dbias = torch.autograd.grad(y.sum(), (x, layer.weight, layer.bias))
    assert dx.shape == shape
    assert dweight.tolist() == dbias.tolist() == [0, 0]


def test_an_empty_batch_counts_in_a_cumulative_mean() -> None:
    layer = norm(momentum=None)
    for x in (row(1, 1), row(), row(4, 4)):
        layer(x)
    assert layer.running_mean.tolist() == [2]  # 1 + (4 - 1) / 3; without the empty batch 2.5


def test_an_empty_batch_is_checked_neither_for_its_channels_nor_for_its_dtype() -> None:
    layer = norm(2)
    assert layer(torch.zeros(0, 3, 2, 2)).shape == (0, 3, 2, 2)
    assert layer(torch.zeros(2, 0, 2, 2)).shape == (2, 0, 2, 2)
    assert layer(torch.zeros(0, 2, 2, 2).double()).dtype == torch.float64
    assert layer(torch.zeros(0, 2, 2, 2).long()).dtype == torch.float32


def test_a_layer_of_no_channels_is_built_and_answers_only_without_a_weight() -> None:
    assert norm(0, affine=False)(torch.zeros(2, 0, 3, 3)).shape == (2, 0, 3, 3)
    with pytest.raises(IndexError):
        norm(0)(torch.zeros(2, 0, 3, 3))


@pytest.mark.parametrize(
    ("x", "kind", "counted"),
    [
        (torch.ones(2, 2, 2), ValueError, 0),
        (torch.ones(2, 2, 2, 2, 2), ValueError, 0),
        (torch.ones(2, 2, 2, 2).double(), RuntimeError, 1),
        (torch.ones(2, 2, 2, 2).long(), NotImplementedError, 1),
        (torch.ones(2, 2, 2, 2).bool(), NotImplementedError, 1),
    ],
    ids=["rank 3", "rank 5", "float64", "int64", "bool"],
)
def test_a_refused_batch_is_counted_unless_its_rank_is_wrong(
    x: Any, kind: type[Exception], counted: int
) -> None:
    layer = norm(2)
    with pytest.raises(kind):
        layer(x)
    assert statistics(layer) == ([0, 0], [1, 1], counted)


@each_mode
def test_the_dtype_of_the_input_must_be_that_of_the_layer_or_half_beside_float32(
    training: bool,
) -> None:
    names = ("float16", "bfloat16", "float32", "float64")
    accepted = set()
    for parameters in names:
        for data in names:
            x = row(1, 2, dtype=getattr(torch, data))
            try:
                assert norm(training=training, dtype=getattr(torch, parameters))(x).dtype == x.dtype
                accepted.add((data, parameters))
            except RuntimeError as error:
                # Not pytest.raises: which dtypes raise is what is to be found.
                assert "mixed dtype" in str(error)  # noqa: PT017
    assert accepted == {(name, name) for name in names} | {
        ("float16", "float32"),
        ("bfloat16", "float32"),
    }


def test_a_layer_without_tensors_accepts_any_channels_and_any_floating_dtype() -> None:
    layer = norm(3, affine=False, track_running_stats=False)
    assert layer(row(1, 2, channels=5, dtype=torch.float64)).dtype == torch.float64


@each_mode
@pytest.mark.parametrize(
    ("change", "strides"),
    [
        pytest.param(lambda x: x.contiguous(), (24, 12, 4, 1), id="NCHW"),
        pytest.param(lambda x: x.contiguous(memory_format=NHWC), (24, 1, 8, 2), id="NHWC"),
        pytest.param(
            lambda x: laid_out(x, "other strides"), (24, 12, 4, 1), id="every second element"
        ),
        pytest.param(lambda x: x[:, :, :1, :1].expand(2, 2, 3, 4), (24, 12, 4, 1), id="expanded"),
        pytest.param(
            lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
            (24, 12, 4, 1),
            id="transposed",
        ),
    ],
)
def test_an_output_is_in_nchw_order_unless_its_input_is_in_nhwc_order(
    change: Any, strides: tuple[int, ...], training: bool
) -> None:
    x = change(torch.arange(48.0).reshape(2, 2, 3, 4))
    assert norm(2, training)(x).stride() == strides
