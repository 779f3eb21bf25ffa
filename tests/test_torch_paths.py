"""The adapters of PyTorch's other paths describe them truly."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, State, check
from bn_spec.backend.contract import Backend
from bn_spec.backend.known_failure import known_failures
from bn_spec.case.steps import DIFFERENTIABLE, Backward, Eval, Forward, ResetRunningStats, Step

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from bn_spec.backend.adapters import torch_decomp, torch_paths  # noqa: E402 - they need torch
from bn_spec.backend.registry import registered  # noqa: E402

PATHS: dict[str, Callable[[], Backend]] = {
    "torch-decomp": torch_decomp.decomposed,
    "torch-export": torch_paths.exported,
    "torch-export-decomposed": torch_paths.exported_decomposed,
    "torch-mkldnn": torch_paths.mkldnn,
    "torch-script": torch_paths.scripted,
}
X = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32).reshape(2, 2, 1, 2)
STATE = State(
    weight=np.array([1.5, -2], np.float32),
    bias=np.array([1, 2], np.float32),
    running_mean=np.array([3, -1], np.float32),
    running_var=np.array([2, 0.5], np.float32),
    num_batches_tracked=np.array(7),
)
ALL = Forward(X, DIFFERENTIABLE)

each_path = pytest.mark.parametrize("name", PATHS)
# PyTorch warns of its own module pytree.
filters = pytest.mark.filterwarnings("ignore::FutureWarning")


@each_path
def test_each_path_is_registered_under_its_name(name: str) -> None:
    assert registered()[name].load()().name == name == PATHS[name]().name


@filters
@each_path
def test_each_path_conforms_over_a_small_history(name: str) -> None:
    steps: list[Step] = [
        Forward(X),
        Forward(2 * X),
        ResetRunningStats(),
        Forward(X),
        Eval(),
        Forward(X),
    ]
    backend = PATHS[name]()
    if backend.capabilities.gradients:
        steps = [*steps[:-2], ALL, Backward(X), *steps[-2:]]
    assert check(Case(Config(2), STATE, tuple(steps)), backend) == []


@filters
@pytest.mark.parametrize("name", ["torch-export", "torch-export-decomposed"])
def test_running_statistics_are_updated_through_an_exported_program(name: str) -> None:
    layer = PATHS[name]().layer(Config(2, momentum=1.0), None)
    layer.forward(torch.from_numpy(X))
    state = layer.state().tensors()
    assert state["running_mean"].tolist() == [2.5, 4.5]
    assert state["running_var"].tolist() == pytest.approx([17 / 3, 17 / 3])
    assert state["num_batches_tracked"] == 1


@filters
def test_the_training_backward_of_a_decomposed_program_is_refused() -> None:
    layer: Any = PATHS["torch-export-decomposed"]().layer(Config(2), None)
    _, record = layer.record(torch.from_numpy(X.copy()), ("input",))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        layer.backward(record, torch.from_numpy(X))


def test_onednns_backward_of_an_eval_forward_is_refused() -> None:
    case = Case(Config(2), STATE, (Eval(), ALL, Backward(X)))
    backend = PATHS["torch-mkldnn"]()
    (refused,) = check(case, backend)
    assert "only support train model" in str(refused)
    assert any(known.covers(refused.observable, case) for known in known_failures(backend))


def test_onednn_reads_a_weight_with_gaps_as_if_it_were_contiguous() -> None:
    module = torch.nn.BatchNorm2d(2, eps=1e-12).eval()
    module.weight = torch.nn.Parameter(torch.tensor([1.0, 7.0, 2.0, 7.0])[::2])
    x = torch.ones(1, 2, 1, 1)
    assert module(x).ravel().tolist() == [1, 2]
    assert module(x.to_mkldnn()).to_dense().ravel().tolist() == [1, 7]


def test_onednn_has_no_layers_without_parameters() -> None:
    with pytest.raises(RuntimeError, match="only support affine model"):
        torch.nn.BatchNorm2d(2, affine=False)(torch.from_numpy(X).to_mkldnn())


def test_the_decomposition_saves_statistics_in_the_format_of_the_data() -> None:
    x = torch.tensor([201.0, 202.0], dtype=torch.bfloat16).reshape(2, 1, 1, 1)
    _, _, _, (mean, _) = torch_decomp.forward_training(
        x, 0.1, 1e-5, weight=None, bias=None, running_mean=None, running_var=None
    )
    assert mean.dtype == torch.bfloat16
    assert mean.item() == 202  # not 201.5


def test_a_scripted_module_shares_the_tensors_and_follows_the_mode() -> None:
    module = torch.nn.BatchNorm2d(2, momentum=1.0)
    with warnings.catch_warnings():
        # The adapter suppresses the warning that TorchScript is deprecated.
        warnings.simplefilter("error")
        torch_paths.call_scripted(module, torch.from_numpy(X))
    assert module.running_mean.tolist() == [2.5, 4.5]
    y = torch_paths.call_scripted(module.eval(), torch.zeros(1, 2, 1, 1))
    std = (17 / 3) ** 0.5
    assert y.ravel().tolist() == pytest.approx([-2.5 / std, -4.5 / std], rel=1e-5)
    assert module.num_batches_tracked == 1
