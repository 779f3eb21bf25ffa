"""What docs/ambiguities.md says of PyTorch on the CPU is so: eps and momentum."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import (  # noqa: E402 - it needs torch
    INF,
    NAN,
    each_layout,
    each_mode,
    laid_out,
    norm,
    row,
    statistics,
    with_,
)


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
def test_without_momentum_the_factor_is_one_over_the_counter_after_the_batch(
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
    of_nan = norm(momentum=0.0)
    over_nan = with_(norm(momentum=1.0), running_mean=NAN, running_var=NAN)
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
