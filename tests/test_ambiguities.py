"""What docs/ambiguities.md says about torch.nn.BatchNorm2d on the CPU is so; tests/test_torch.py has the rest."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import shutil
from typing import Any

import pytest

from bn_spec.specification.requirement import REQUIREMENTS

from .process import REPOSITORY

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

INF, NAN = float("inf"), float("nan")
NCHW, NHWC = torch.contiguous_format, torch.channels_last
TENSORS = {"weight": 2.0, "bias": 3.0, "running_mean": 4.0, "running_var": 5.0}

each_mode = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
each_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC", "other strides"])
each_special = pytest.mark.parametrize("value", [NAN, INF, -INF])


def norm(channels: int = 1, training: bool = True, **arguments: Any) -> Any:
    return torch.nn.BatchNorm2d(channels, **arguments).train(training)


def row(*numbers: float, channels: int = 1, dtype: Any = torch.float32) -> Any:
    """One sample, with these numbers in each channel."""
    return torch.tensor(numbers, dtype=dtype).repeat(channels, 1)[None, :, None, :]


def laid_out(x: Any, layout: str) -> Any:
    if layout == "other strides":
        return torch.zeros(*x.shape[:3], 2 * x.shape[3], dtype=x.dtype)[..., ::2].copy_(x)
    return x.contiguous(memory_format=NCHW if layout == "NCHW" else NHWC)


def with_(layer: Any, **numbers: float) -> Any:
    """The layer, with every element of these tensors set to a number."""
    with torch.no_grad():
        for name, number in numbers.items():
            getattr(layer, name).fill_(number)
    return layer


def statistics(layer: Any) -> tuple[list[float], list[float], int]:
    """Running mean, running variance and counter."""
    return layer.running_mean.tolist(), layer.running_var.tolist(), layer.num_batches_tracked.item()


def numbers(tensor: Any) -> Any:
    """What compares equal to the numbers of the tensor, NaN included."""
    return pytest.approx(tensor.ravel().tolist(), rel=1e-6, abs=1e-30, nan_ok=True)


def checkpoint(**changes: Any) -> dict[str, Any]:
    whole = {name: torch.full((2,), number) for name, number in TENSORS.items()}
    tensors = whole | {"num_batches_tracked": torch.tensor(6)} | changes
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


# Which batches are answered ----------------------------------------------------------------------------


@each_mode
def test_a_single_value_is_refused_wherever_batch_statistics_are_used(training: bool) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(training=training, track_running_stats=False)(row(5))
    assert norm(training=False)(row(5)).tolist() == numbers_of(5 * (1 + 1e-5) ** -0.5)


def numbers_of(number: float) -> Any:
    return [[[[pytest.approx(number)]]]]


def test_the_operator_below_the_module_answers_a_single_value_with_the_bias_and_a_nan_variance() -> (
    None
):
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
def test_a_refused_batch_is_counted_but_for_its_rank(
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
                assert "mixed dtype" in str(error)  # noqa: PT017 - those that raise are not known beforehand
    assert accepted == {(name, name) for name in names} | {
        ("float16", "float32"),
        ("bfloat16", "float32"),
    }


def test_a_layer_without_tensors_accepts_any_channels_and_any_floating_dtype() -> None:
    layer = norm(3, affine=False, track_running_stats=False)
    assert layer(row(1, 2, channels=5, dtype=torch.float64)).dtype == torch.float64


# eps and momentum --------------------------------------------------------------------------------------


@each_mode
def test_a_negative_eps_is_refused_by_the_forward_not_by_the_constructor(training: bool) -> None:
    layer = norm(training=training, eps=-1e-5)
    with pytest.raises(ValueError, match="eps must be"):
        layer(row(1, 2))
    assert statistics(layer) == ([0], [1], int(training))


def test_an_eps_of_zero_is_refused_wherever_batch_statistics_are_used() -> None:
    with pytest.raises(ValueError, match="eps must be positive"):
        norm(training=False, track_running_stats=False, eps=0.0)(row(1, 2))
    with pytest.raises(ValueError, match="eps must be positive"):
        norm(eps=0.0)(row())
    assert with_(norm(training=False, eps=0.0), running_var=0)(row(0, 1)).isnan().all()


def test_an_eps_that_is_not_finite_is_accepted() -> None:
    assert norm(eps=NAN)(row(1, 2)).isnan().all()
    assert norm(eps=INF)(row(1, 2)).ravel().tolist() == [0, 0]


@each_layout
def test_an_eps_below_the_range_of_float32_counts_in_training_and_is_zero_in_eval_mode(
    layout: str,
) -> None:
    x = laid_out(row(2, 2, 2, channels=2), layout)
    assert norm(2, eps=1e-46)(x).tolist() == torch.zeros(1, 2, 1, 3).tolist()
    assert with_(norm(2, False, eps=1e-46), running_mean=2, running_var=0)(x).isnan().all()
    assert norm(2, eps=1e-80)(x).isnan().all()


@pytest.mark.parametrize(("momentum", "mean", "var"), [(-0.5, -1, 0.5), (1.5, 3, 2.5)])
def test_a_momentum_outside_0_to_1_extrapolates(momentum: float, mean: float, var: float) -> None:
    layer = norm(momentum=momentum)
    layer(row(1, 3))
    assert statistics(layer) == ([mean], [var], 1)


@pytest.mark.parametrize(
    ("counter", "mean", "after"),
    [(0, 2, 1), (9, 0.2, 10), (-2, -2, -1), (2**63 - 1, -(2.0**-62), -(2**63))],
)
def test_without_momentum_the_factor_is_one_over_whatever_the_counter_becomes(
    counter: int, mean: float, after: int
) -> None:
    layer = with_(norm(momentum=None), num_batches_tracked=counter)
    layer(row(1, 3))
    assert layer.num_batches_tracked.item() == after
    assert layer.running_mean.item() == pytest.approx(mean, rel=1e-6)


def test_without_momentum_a_counter_of_minus_one_divides_by_zero() -> None:
    layer = with_(norm(momentum=None), num_batches_tracked=-1)
    with pytest.raises(ZeroDivisionError):
        layer(row(1, 3))
    assert statistics(layer) == ([0], [1], 0)


def test_neither_momentum_0_nor_momentum_1_keeps_nan_out() -> None:
    of_nan, over_nan = (
        norm(momentum=0.0),
        with_(norm(momentum=1.0), running_mean=NAN, running_var=NAN),
    )
    of_nan(row(NAN, 1))
    over_nan(row(1, 2))
    for layer in (of_nan, over_nan):
        assert layer.running_mean.isnan().all()
        assert layer.running_var.isnan().all()


def test_momentum_0_changes_the_sign_of_a_running_mean_of_minus_zero() -> None:
    layer = with_(norm(momentum=0.0), running_mean=-0.0)
    layer(row(1, 2))
    assert not layer.running_mean.signbit().item()


@pytest.mark.parametrize("value", [0.5, None])
def test_eps_and_momentum_count_as_of_the_forward(value: float | None) -> None:
    layer = norm(momentum=1.0)
    layer(row(1, 3))
    layer.momentum = value
    layer(row(6, 6))
    assert layer.running_mean.tolist() == [4]
    layer.eval().eps = 3.0
    assert layer(row(4, 6)).ravel().tolist() == [0, 1]  # running_var is 1 by now


# Running statistics ------------------------------------------------------------------------------------


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


# Overflow ----------------------------------------------------------------------------------------------


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


# What is not finite ------------------------------------------------------------------------------------

each_dtype = pytest.mark.parametrize(
    ("data", "parameters"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("float16", "float32"),
        ("bfloat16", "bfloat16"),
    ],
)


def spoilt(x: Any, value: float) -> Any:
    """The tensor, of the same layout, with a value in the first place of its first channel."""
    with torch.no_grad():
        copy = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x)
        copy[0, 0, 0, 0] = value
    return copy


def ordinary(layout: str, data: str) -> Any:
    return laid_out(torch.arange(24.0).reshape(2, 3, 2, 2).sin().to(getattr(torch, data)), layout)


@each_layout
@each_special
@each_dtype
def test_a_special_value_in_training_spoils_its_channel_and_no_other(
    data: str, parameters: str, value: float, layout: str
) -> None:
    layers = [norm(3, dtype=getattr(torch, parameters)) for _ in range(2)]
    x = ordinary(layout, data)
    plain, bad = layers[0](x), layers[1](spoilt(x, value))
    assert bad[:, 0].isnan().all()
    assert torch.equal(bad[:, 1:], plain[:, 1:])
    assert layers[1].running_mean.tolist()[0] == pytest.approx(value, nan_ok=True)
    assert layers[1].running_var[0].isnan()
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(layers[1], name)[1:], getattr(layers[0], name)[1:])


@each_layout
def test_infinities_of_both_signs_have_no_mean(layout: str) -> None:
    layer = norm(2)
    assert layer(laid_out(row(INF, -INF, 1, channels=2), layout)).isnan().all()
    assert layer.running_mean.isnan().all()


@each_layout
@each_special
@each_dtype
def test_a_special_value_in_eval_mode_stays_in_its_element(
    data: str, parameters: str, value: float, layout: str
) -> None:
    layer = norm(3, False, dtype=getattr(torch, parameters))
    x = ordinary(layout, data)
    plain, bad = layer(x), layer(spoilt(x, value))
    assert bad[0, 0, 0, 0].item() == pytest.approx(value, nan_ok=True)
    assert torch.equal(spoilt(bad, 0), spoilt(plain, 0))
    assert with_(layer, weight=0)(spoilt(x, value))[0, 0, 0, 0].isnan()


def gradients(x: Any, dy: Any, training: bool) -> list[Any]:
    layer, x = norm(3, training), x.requires_grad_()
    return list(torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), dy))


@each_layout
@each_special
@each_mode
def test_a_special_value_in_dy_stays_in_its_channel_and_in_eval_mode_dx_in_its_element(
    training: bool, value: float, layout: str
) -> None:
    x, dy = ordinary(layout, "float32"), ordinary(layout, "float32").cos()
    plain, bad = gradients(x, dy, training), gradients(x, spoilt(dy, value), training)
    dx, *of_parameters = bad
    assert all(
        torch.equal(b[1:], p[1:]) and not b[0].isfinite()
        for p, b in zip(plain[1:], of_parameters, strict=True)
    )
    assert torch.equal(dx[:, 1:], plain[0][:, 1:])
    if training:
        assert not dx[:, 0].isfinite().any()
    else:
        assert not dx[0, 0, 0, 0].isfinite()
        assert torch.equal(spoilt(dx, 0), spoilt(plain[0], 0))


@each_layout
@each_special
@each_mode
def test_a_special_value_in_x_shows_in_the_gradients_of_its_channel_that_read_it(
    training: bool, value: float, layout: str
) -> None:
    x, dy = ordinary(layout, "float32"), ordinary(layout, "float32").cos()
    plain, (dx, dweight, dbias) = (
        gradients(x, dy, training),
        gradients(spoilt(x, value), dy, training),
    )
    assert torch.equal(dbias, plain[2])
    assert torch.equal(dweight[1:], plain[1][1:])
    assert torch.equal(dx[:, 1:], plain[0][:, 1:])
    if training:
        assert dx[:, 0].isnan().all()
        assert dweight[0].isnan()
    else:
        assert dx[:, 0].isfinite().all()
        assert not dweight[0].isfinite()


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
def test_a_negative_zero_becomes_a_positive_one(affine: bool) -> None:
    layer = norm(training=False, affine=affine)
    assert not layer(row(-0.0)).signbit().any()
    assert not layer.train()(row(-0.0, -0.0)).signbit().any()
    assert not layer.running_mean.signbit().any()


def test_a_negative_zero_stays_where_the_bias_is_one() -> None:
    assert with_(norm(training=False), bias=-0.0)(row(-0.0)).signbit().all()


@each_layout
@each_mode
def test_a_weight_of_nan_shows_in_its_channel_alone(training: bool, layout: str) -> None:
    layers = [norm(3, training) for _ in range(2)]
    torch.nn.init.constant_(layers[1].weight[:1], NAN)
    plain, bad = (layer(ordinary(layout, "float32")) for layer in layers)
    assert bad[:, 0].isnan().all()
    assert torch.equal(bad[:, 1:], plain[:, 1:])
    assert statistics(layers[0]) == statistics(layers[1])


# Loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 2), (1, 2), ()], ids=str)
def test_a_tensor_of_another_shape_is_refused_whether_strict_or_not_and_the_others_are_loaded(
    shape: tuple[int, ...], strict: bool
) -> None:
    layer = norm(2)
    with pytest.raises(RuntimeError, match="size mismatch for running_mean"):
        layer.load_state_dict(checkpoint(running_mean=torch.ones(shape)), strict=strict)
    assert (statistics(layer), layer.weight.tolist()) == (([0, 0], [5, 5], 6), [2, 2])


def test_missing_and_unexpected_tensors_are_refused_if_strict_and_the_others_are_loaded() -> None:
    missing, unexpected = norm(2), norm(2, affine=False)
    with pytest.raises(RuntimeError, match=r"Missing key.*bias"):
        missing.load_state_dict(checkpoint(bias=None))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias"):
        unexpected.load_state_dict(checkpoint())
    for layer in (missing, unexpected):
        assert statistics(layer) == ([4, 4], [5, 5], 6)
    assert missing.bias.tolist() == [0, 0]


def test_missing_and_unexpected_tensors_are_named_if_not_strict() -> None:
    missing, unexpected = norm(2), norm(2, track_running_stats=False)
    assert missing.load_state_dict(checkpoint(bias=None), strict=False).missing_keys == ["bias"]
    assert (missing.weight.tolist(), missing.bias.tolist()) == ([2, 2], [0, 0])
    named = unexpected.load_state_dict(checkpoint(), strict=False).unexpected_keys
    assert named == ["running_mean", "running_var", "num_batches_tracked"]
    assert unexpected.running_mean is None


@pytest.mark.parametrize(("counter", "held"), [(torch.tensor([7]), 7), (torch.tensor([2.7]), 2)])
def test_a_counter_of_one_dimension_becomes_a_scalar(counter: Any, held: int) -> None:
    layer = norm(2)
    layer.load_state_dict(checkpoint(num_batches_tracked=counter))
    assert (layer.num_batches_tracked.shape, layer.num_batches_tracked.item()) == ((), held)


def test_a_state_dict_refers_and_loading_copies() -> None:
    layer = norm()
    before, copied, other = layer.state_dict(), copy.deepcopy(layer), norm()
    other.load_state_dict(before)
    layer(row(10, 10))
    assert before["running_mean"].tolist() == [1]
    assert other.running_mean.tolist() == copied.running_mean.tolist() == [0]


# Attributes, and what a backward remembers -------------------------------------------------------------


def test_eps_and_momentum_are_no_part_of_a_checkpoint_and_not_checked_when_they_are_set() -> None:
    layer = norm()
    layer.eps, layer.momentum = -1.0, 7.0
    assert set(layer.state_dict()) == {*TENSORS, "num_batches_tracked"}


@pytest.mark.parametrize("name", ["input", "weight"])
def test_a_backward_is_refused_once_its_input_or_its_weight_has_been_changed_in_place(
    name: str,
) -> None:
    layer, x = norm(), row(1, 2)
    y = layer(x.requires_grad_() * 1 if name == "weight" else (inner := x.requires_grad_() * 1))
    with torch.no_grad():
        (layer.weight if name == "weight" else inner).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@each_mode
def test_a_backward_has_eps_the_mode_and_the_batch_statistics_of_its_forward(
    training: bool,
) -> None:
    layer, x = norm(training=training), row(1, 2, 4).requires_grad_()
    y, dy = layer(x), row(1, 0, 2)
    (before,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    layer.train(not training).eps = 3.0
    if training:
        layer.train()(row(7, 9))
    assert torch.equal(torch.autograd.grad(y, x, dy)[0], before)


# The layout of the output ------------------------------------------------------------------------------


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


# The documents -----------------------------------------------------------------------------------------

DOCUMENT, FINDINGS = (
    (REPOSITORY / "docs" / name).read_text() for name in ("ambiguities.md", "findings.md")
)


def snippets(text: str) -> list[Any]:
    """The Python of a document, each piece named by the heading above it."""
    heading, found = "", []
    for title, code in re.findall(r"^#+ ([^\n]+)$|```python\n(.*?)```", text, re.M | re.S):
        heading = title or heading
        if code:
            found.append(pytest.param(code, id=heading))
    assert len(found) == text.count("```python") > 0
    return found


def printed(code: str) -> list[str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue().splitlines()


@pytest.mark.parametrize("code", snippets(DOCUMENT))
def test_a_snippet_about_an_ambiguity_prints_what_its_comments_say(code: str) -> None:
    said = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.M)
    assert len(said) == code.count("print(")
    assert printed(code) == said


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch"
)  # of its own modules, when it compiles
@pytest.mark.parametrize("code", snippets(FINDINGS))
def test_a_finding_runs_and_prints_what_is_said_to_be_wrong(code: str) -> None:
    if "compile(" in code and not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    if "cuda" in code and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    lines = printed(code)
    for wrong in re.findall(r"wrong: (.+)$", code, re.M):
        assert any(wrong.replace("infinite", "inf") in line for line in lines), (
            "torch has mended it"
        )


def table() -> list[tuple[str, ...]]:
    """The rows of the table of questions: the anchor, what torch does, and what is demanded."""
    rows = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \| (.+?) \| (.+?) \|$", DOCUMENT, re.M)
    return [(anchor, torch_does, demanded) for _, anchor, torch_does, demanded in rows]


def test_every_section_has_a_row_in_the_table_and_every_row_a_section() -> None:
    headings = re.findall(r"^## (.+)$", DOCUMENT, re.M)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert [anchor for anchor, *_ in table()] == [
        anchor for anchor in anchors if anchor != "torchcompile"
    ]


def test_links_between_the_documents_lead_somewhere() -> None:
    for text in (DOCUMENT, FINDINGS):
        for name, anchor in re.findall(r"\]\(([\w./-]*?\.(?:md|py))?(?:#([\w-]+))?\)", text):
            target = (REPOSITORY / "docs" / name).read_text() if name else text
            headings = re.findall(r"^#+ (.+)$", target, re.M)
            anchors = {
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
            }
            assert not anchor or anchor in anchors, anchor


@pytest.mark.parametrize(("anchor", "_", "demanded"), table())
def test_what_is_demanded_is_a_requirement_and_what_is_not_is_nothing(
    anchor: str, _: str, demanded: str
) -> None:
    ids = re.findall(r"[A-Z]{3}-\d\d", demanded)
    assert set(ids) <= REQUIREMENTS.keys()
    assert bool(ids) == demanded.startswith(("one answer", "one of several"))
    assert ids or demanded.startswith("nothing"), anchor


def test_every_requirement_that_the_document_names_is_one() -> None:
    assert set(re.findall(r"\b[A-Z]{3}-\d\d\b", DOCUMENT + FINDINGS)) <= REQUIREMENTS.keys()
