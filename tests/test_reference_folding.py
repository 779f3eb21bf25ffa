"""The reference layer folds into the convolution before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bn_spec import BatchNorm2d
from bn_spec.case.arrays import same_bits
from tests.convolution import correlated
from tests.reference_layers import assert_same_state, used_layer

QUARTER = {"running_mean": np.array([1]), "running_var": np.array([13])}
"""Running statistics of a layer that, with eps 3, subtracts 1 and divides by 4."""


@pytest.mark.parametrize(
    ("affine", "bias", "weights", "shift"),
    [
        pytest.param(True, 9, [1, -2.5], 9, id="affine and a bias"),  # (9 - 1) / 4 * 2 + 5
        pytest.param(True, None, [1, -2.5], 4.5, id="affine without a bias"),  # (0 - 1) / 4 * 2 + 5
        pytest.param(False, 9, [0.5, -1.25], 2, id="a bias without affine"),
        pytest.param(False, None, [0.5, -1.25], -0.25, id="neither"),
    ],
)
def test_a_convolution_takes_scale_and_shift_of_the_layer(
    affine: bool, bias: float | None, weights: list[float], shift: float
) -> None:
    layer = BatchNorm2d(1, eps=3.0, affine=affine)
    layer.load_state_dict(QUARTER | {"weight": np.array([2]), "bias": np.array([5])}, strict=False)
    kernel = np.array([2, -5], np.float32).reshape(1, 2, 1, 1)
    weight, moved = layer.fold(kernel, None if bias is None else np.array([bias], np.float32))
    assert same_bits(weight, np.array(weights, np.float32).reshape(1, 2, 1, 1))
    assert same_bits(moved, np.array([shift], np.float32))


@pytest.mark.parametrize("arguments", [{}, {"affine": False}, {"eps": 1.0}], ids=str)
def test_a_folded_convolution_has_the_output_of_the_convolution_and_the_layer(
    arguments: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    layer = BatchNorm2d(3, dtype="float64", **arguments)
    weight, bias, mean, var = rng.normal(size=(4, 3))
    state = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": 1 + var**2}
    layer.load_state_dict(state, strict=False)
    x, weight, bias = (
        rng.normal(size=(2, 2, 5, 4)),
        rng.normal(size=(3, 2, 3, 2)),
        rng.normal(size=3),
    )
    both = layer.eval()(correlated(x, weight, bias))
    assert np.abs(correlated(x, *layer.fold(weight, bias)) - both).max() < 1e-13
    without = layer(correlated(x, weight, 0 * bias))
    assert np.abs(correlated(x, *layer.fold(weight)) - without).max() < 1e-13


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_folding_changes_neither_layer_nor_convolution_and_is_the_same_in_both_modes(
    training: bool,
) -> None:
    layer = used_layer().train(training)
    weight, bias = np.arange(8, dtype=np.float32).reshape(2, 4, 1, 1), np.ones(2, np.float32)
    folded = layer.fold(weight, bias)
    assert_same_state(layer, used_layer().state_dict())
    assert layer.training is training
    assert weight.ravel().tolist() == [*range(8)]
    assert bias.tolist() == [1, 1]
    assert all(
        same_bits(a, b) for a, b in zip(folded, used_layer().eval().fold(weight, bias), strict=True)
    )


@pytest.mark.parametrize("arguments", [{}, {"affine": False}], ids=["affine", "no affine"])
def test_a_layer_without_running_statistics_cannot_be_folded(arguments: dict[str, Any]) -> None:
    layer = BatchNorm2d(2, track_running_stats=False, **arguments)
    with pytest.raises(
        ValueError, match="only a layer that tracks running statistics can be folded"
    ):
        layer.fold(np.ones((2, 1, 1, 1), np.float32))


def test_statistics_that_are_not_finite_are_folded_without_a_warning() -> None:
    layer = BatchNorm2d(3)
    state = {"running_var": np.array([np.inf, np.nan, 1]), "running_mean": np.array([0, 0, np.inf])}
    layer.load_state_dict(state, strict=False)
    weight, bias = layer.fold(np.full((3, 1, 1, 1), 3e38, np.float32))
    assert weight.ravel().tolist() == [
        0,
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(3e38, rel=1e-4),
    ]
    assert np.isnan(bias).tolist() == [False, True, False]
