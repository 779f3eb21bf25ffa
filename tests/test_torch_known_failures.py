"""PyTorch has the known failures that the adapter declares; once torch mends one, a test fails."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.case.steps import Forward
from bn_spec.play.observation import Raised
from bn_spec.play.player import play
from bn_spec.suite.cell import Cell
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_layers import CPU, X  # noqa: E402 - it needs torch
from tests.torch_modules import MENDED, batch, strided  # noqa: E402


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 1)], ids=["a single value", "other channels"]
)
def test_a_refused_batch_is_counted_and_has_a_weight_in_the_cumulative_mean(
    shape: tuple[int, ...],
) -> None:
    layer = torch.nn.BatchNorm2d(1, momentum=None)
    layer(batch(1, 1))
    with pytest.raises((ValueError, RuntimeError)):
        layer(torch.ones(shape))
    assert layer.num_batches_tracked == 2, MENDED
    assert layer.running_mean.tolist() == [1]
    layer(batch(4, 4))
    assert layer.running_mean.tolist() == [2]  # 1 + (4 - 1) / 3; the mean of both batches is 2.5


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"running_mean": torch.ones(3)}, id="another size"),
        pytest.param({"running_mean": torch.ones(2, 2)}, id="another rank"),
        pytest.param({"running_mean": None}, id="one too few"),
    ],
)
def test_a_refused_load_loads_the_tensors_that_fit(changes: dict[str, Any]) -> None:
    layer = torch.nn.BatchNorm2d(2)
    fitting = {"bias": torch.ones(2), "num_batches_tracked": torch.tensor(5)}
    tensors = layer.state_dict() | fitting | changes
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(RuntimeError, match="running_mean"):
        layer.load_state_dict(present)
    assert layer.running_mean.tolist() == [0, 0]
    found = layer.bias.tolist(), layer.num_batches_tracked.item()
    assert found == ([1, 1], 5), MENDED


@pytest.mark.parametrize("requirement", ["ERR-04", "ERR-06", "STA-09"])
def test_the_properties_see_the_known_failures_of_the_state(
    requirement: str,
) -> None:
    import_module(f"conformance.test_{requirement[:3].lower()}")
    prop = PROPERTIES[requirement]
    cell = Search(Cell(prop, CPU, "float32"), PROFILES["ci"].settings(40))
    cell.examine()
    assert [failure for failure in cell.tally.known if failure.requirement == requirement]


def test_a_dy_in_another_order_whose_first_stride_is_1_is_misread() -> None:
    def gradient(first_stride: int) -> list[float]:
        x = torch.zeros(1, 2, 1, 3, requires_grad=True)
        dy = torch.tensor([1.0, 10, 2, 20, 3, 30]).as_strided((1, 2, 1, 3), (first_stride, 1, 6, 2))
        assert dy.ravel().tolist() == [1, 2, 3, 10, 20, 30]
        (dx,) = torch.autograd.grad(torch.nn.BatchNorm2d(2, eps=1e-12).eval()(x), x, dy)
        numbers: list[float] = dx.ravel().tolist()
        return numbers

    assert gradient(6) == [1, 2, 3, 10, 20, 30]
    assert gradient(1) == [1, 10, 2, 20, 3, 30], MENDED


@pytest.mark.parametrize("changes", ["forward", "reset_running_stats"])
def test_running_statistics_that_change_after_an_eval_forward_change_its_gradients(
    changes: str,
) -> None:
    layer = torch.nn.BatchNorm2d(1, eps=1e-12, momentum=1.0).eval()
    torch.nn.init.constant_(layer.running_var, 4.0)
    x = batch(1, 2, 3).requires_grad_()
    y = layer(x)
    (before,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert before.ravel().tolist() == [0.5, 0.5, 0.5]
    if changes == "forward":
        layer.train()(batch(0, 2**0.5))
        (after,) = torch.autograd.grad(y.sum(), x)
        assert after.ravel().tolist() == pytest.approx([1, 1, 1]), MENDED
    else:
        layer.reset_running_stats()  # autograd notices this change
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y.sum(), x)


def test_the_sum_of_a_strided_bfloat16_dy_is_rounded_to_bfloat16() -> None:
    ones = torch.ones(257, 1, 1, 1, dtype=torch.bfloat16)
    layer = torch.nn.BatchNorm2d(1)
    x = torch.arange(257).remainder(7).reshape(-1, 1, 1, 1).bfloat16()
    sums = []
    for dy in (ones, strided(ones)):
        (dbias,) = torch.autograd.grad(layer(x), layer.bias, dy)
        sums.append(dbias.item())
    assert sums == [257, 256], MENDED


def test_products_with_a_strided_float16_dy_overflow() -> None:
    x = batch(0, 1, 2, 3, dtype=torch.float16).requires_grad_()
    dy = batch(4e4, 4e4, 0, 0, dtype=torch.float16)
    y = torch.nn.BatchNorm2d(1)(x)
    (dense,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    assert torch.isfinite(dense).all()
    (apart,) = torch.autograd.grad(y, x, strided(dy))
    assert not torch.isfinite(apart).any(), MENDED


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param((1, 3, 1, 1), True, id="a single value per channel"),
        pytest.param((2, 4, 1, 1), True, id="a channel too many"),
        pytest.param((2, 2, 3, 1), True, id="a channel too few"),
        pytest.param((2, 3, 1, 1), False, id="two values per channel"),
        pytest.param((0, 3, 2, 2), False, id="no samples"),
        pytest.param((3, 1, 1), False, id="another rank"),
        pytest.param((3,), False, id="as many values as channels, of another rank"),
    ],
)
def test_a_refused_batch_is_expected_to_be_counted_where_its_rank_is_right(
    shape: tuple[int, ...], expected: bool
) -> None:
    case = Case(Config(3), None, (Forward(X), Forward(np.ones(shape, np.float32))))
    for requirement in ("ERR-04", "STA-09"):
        (failure,) = [
            failure for failure in CPU.known_failures if failure.requirement == requirement
        ]
        assert failure.covers("num_batches_tracked", case) is expected
        assert not failure.covers("running_mean", case)
    before, answer = play(case, CPU).answers
    counted = before.after.num_batches_tracked != answer.after.num_batches_tracked  # type: ignore[union-attr]
    assert bool(isinstance(answer.error, Raised) and counted) is expected
