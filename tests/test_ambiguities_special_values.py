"""What docs/ambiguities.md says of PyTorch on the CPU is so: NaN, infinities and zeros."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import (  # noqa: E402 - it needs torch
    INF,
    NAN,
    each_layout,
    each_mode,
    each_special,
    laid_out,
    norm,
    row,
    statistics,
    with_,
)

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
    """Return the tensor, in the same layout, with a value as the first of its first channel."""
    with torch.no_grad():
        copy = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x)
        copy[0, 0, 0, 0] = value
    return copy


def ordinary(layout: str, data: str) -> Any:
    """Return a batch of three channels without special values."""
    x = torch.arange(24.0).reshape(2, 3, 2, 2).sin().to(getattr(torch, data))
    return laid_out(x, layout)


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
    """Return the gradients of a new layer: of input, weight and bias."""
    layer, x = norm(3, training), x.requires_grad_()
    return list(torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), dy))


@each_layout
@each_special
@each_mode
def test_a_special_value_in_dy_stays_in_its_channel_and_in_eval_mode_in_its_element_of_dx(
    training: bool, value: float, layout: str
) -> None:
    x, dy = ordinary(layout, "float32"), ordinary(layout, "float32").cos()
    plain_dx, *plain_of_parameters = gradients(x, dy, training)
    dx, *of_parameters = gradients(x, spoilt(dy, value), training)
    for plain, bad in zip(plain_of_parameters, of_parameters, strict=True):
        assert torch.equal(bad[1:], plain[1:])
        assert not bad[0].isfinite()
    assert torch.equal(dx[:, 1:], plain_dx[:, 1:])
    if training:
        assert not dx[:, 0].isfinite().any()
    else:
        assert not dx[0, 0, 0, 0].isfinite()
        assert torch.equal(spoilt(dx, 0), spoilt(plain_dx, 0))


@each_layout
@each_special
@each_mode
def test_a_special_value_in_x_shows_in_the_gradients_of_its_channel_that_read_it(
    training: bool, value: float, layout: str
) -> None:
    x, dy = ordinary(layout, "float32"), ordinary(layout, "float32").cos()
    plain_dx, plain_dweight, plain_dbias = gradients(x, dy, training)
    dx, dweight, dbias = gradients(spoilt(x, value), dy, training)
    assert torch.equal(dbias, plain_dbias)
    assert torch.equal(dweight[1:], plain_dweight[1:])
    assert torch.equal(dx[:, 1:], plain_dx[:, 1:])
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


def test_a_negative_zero_stays_where_the_bias_is_a_negative_zero() -> None:
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
