"""PyTorch's other paths to ``torch.nn.BatchNorm2d`` on the CPU: TorchScript, torch.export and oneDNN's layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

from bn_spec.backend.adapters import torch_paths_known as known
from bn_spec.backend.adapters.torch import Call, Torch, cpu  # it says how to install PyTorch
from bn_spec.backend.known_failure import KnownFailure

# isort: split
import torch


def _without_warnings(
    function: Callable[[torch.nn.Module], torch.nn.Module], module: torch.nn.Module
) -> Any:
    """Return what a function makes of a module; those of TorchScript say that they are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return function(module)


def _scripted(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Call the module scripted, once; what is scripted shares its tensors, not its mode."""
    if "scripted" not in vars(module):
        vars(module)["scripted"] = _without_warnings(
            torch.jit.script, module
        )  # and is no submodule of it
    y: torch.Tensor = vars(module)["scripted"].train(module.training)(x)
    return y


_ATTRIBUTES = ("training", "num_features", "eps", "momentum", "affine", "track_running_stats")


def _exported(finish: Callable[[Any], Any]) -> Call:
    """Return a call of a module exported and finished, once for each signature; programs are handed its tensors."""
    programs: dict[tuple[Any, ...], torch.nn.Module] = {}

    def call(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        tensors = module.state_dict(keep_vars=True)
        dtypes = tuple(tensor.dtype for tensor in (x, *tensors.values()))
        signature = (
            x.shape,
            dtypes,
            *(getattr(module, name) for name in _ATTRIBUTES),
        )  # strides are not guarded
        if signature not in programs:
            programs[signature] = finish(
                torch.export.export(deepcopy(module), (x.detach(),))
            ).module()
        y: torch.Tensor = torch.func.functional_call(programs[signature], tensors, (x,))
        return y

    return call


def _in_onednns_layout(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Call the module on a tensor in oneDNN's layout; where no gradient is asked, an eval module is converted too."""
    if module.track_running_stats and not (module.training or torch.is_grad_enabled()):
        from torch.utils.mkldnn import to_mkldnn

        module = _without_warnings(to_mkldnn, module)
    y: torch.Tensor = module(x.to_mkldnn()).to_dense()
    return y


class _Path(NamedTuple):
    how: str
    call: Call
    known_failures: tuple[KnownFailure, ...]
    lacks: str
    claims: dict[str, Any]


_UNSCRIPTED = "live_attributes folding threads"
"""Attributes become constants, modules other modules, and neither compiler may be called from several threads."""
_UNEXPORTED = f"{_UNSCRIPTED} cumulative_momentum"
"""With momentum=None the exporter asks for the value of the counter."""

_PATHS: Mapping[str, _Path] = {
    # It raises torch.jit.Error, whatever the module raises.
    "torch-script": _Path("TorchScript", _scripted, known.EAGER, f"{_UNSCRIPTED} input_checks", {}),
    "torch-export": _Path(
        "torch.export",
        _exported(lambda program: program),
        known.EAGER,
        _UNEXPORTED,
        {"expensive_signatures": True},
    ),
    # A backward is refused, since the running statistics that it saved are updated in place.
    "torch-export-decomposed": _Path(
        "torch.export and run_decompositions",
        _exported(lambda program: program.run_decompositions()),
        known.FORWARD,
        f"{_UNEXPORTED} gradients gradient_layout",
        {"expensive_signatures": True, "double_backward": ()},
    ),
    # Eval modules are scripted. Weights with gaps and parameters in bfloat16 are not for it: it
    # reads, or writes, memory that is not theirs (docs/findings).
    "torch-mkldnn": _Path(
        "oneDNN's layout",
        _in_onednns_layout,
        known.ONEDNN,
        "threads affine_off strided_state empty_batch input_checks subnormals output_layout gradient_layout folding",
        {"dtypes": ("float32", "mixed_bfloat16"), "double_backward": ()},
    ),
}


def _path(name: str) -> Torch:
    path = _PATHS[name]
    claims = vars(cpu().capabilities) | dict.fromkeys(path.lacks.split(), False) | path.claims
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported() and name == "torch-mkldnn":
        claims["dtypes"] = ("float32",)
    return Torch(name, "cpu", f"CPU, {path.how}", path.known_failures, path.call, **claims)


scripted, exported, exported_decomposed, mkldnn = (partial(_path, name) for name in _PATHS)
