"""PyTorch's other paths to ``torch.nn.BatchNorm2d`` on the CPU.

These are TorchScript, torch.export, and tensors in oneDNN's layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

from bn_spec.backend.adapters import torch_paths_known as known

# This import comes before that of torch: without PyTorch it says how to install it.
from bn_spec.backend.adapters.torch import ModuleCall, Torch, cpu
from bn_spec.backend.known_failure import KnownFailure

# isort: split
import torch


def _without_warnings(
    function: Callable[[torch.nn.Module], torch.nn.Module], module: torch.nn.Module
) -> Any:
    """Call a function of TorchScript on a module, without its warning that it is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return function(module)


def call_scripted(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Call a module through TorchScript, which compiles it at the first call.

    The compiled module shares the tensors of the original, but has a mode of its own.
    """
    attributes = vars(module)
    if "scripted" not in attributes:
        # setattr would register it as a submodule.
        attributes["scripted"] = _without_warnings(torch.jit.script, module)
    y: torch.Tensor = attributes["scripted"].train(module.training)(x)
    return y


_ATTRIBUTES = ("training", "num_features", "eps", "momentum", "affine", "track_running_stats")
"""Attributes of a module that become constants of an exported program."""


def _exported(finish: Callable[[Any], Any]) -> ModuleCall:
    """Return a call of a module through ``torch.export``.

    A module is exported once for each signature, and ``finish`` is applied to the program. Each
    call hands the tensors of the module to the program.
    """
    programs: dict[tuple[Any, ...], torch.nn.Module] = {}

    def call(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        tensors = module.state_dict(keep_vars=True)
        dtypes = tuple(tensor.dtype for tensor in (x, *tensors.values()))
        attributes = tuple(getattr(module, name) for name in _ATTRIBUTES)
        # No strides: exported programs have no guards on them.
        signature = (x.shape, dtypes, *attributes)
        if signature not in programs:
            program = torch.export.export(deepcopy(module), (x.detach(),))
            programs[signature] = finish(program).module()
        y: torch.Tensor = torch.func.functional_call(programs[signature], tensors, (x,))
        return y

    return call


def _in_onednns_layout(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Call a module on a tensor in oneDNN's layout.

    An eval module is converted to that layout too, where no gradient is asked.
    """
    if module.track_running_stats and not (module.training or torch.is_grad_enabled()):
        from torch.utils.mkldnn import to_mkldnn

        module = _without_warnings(to_mkldnn, module)
    y: torch.Tensor = module(x.to_mkldnn()).to_dense()
    return y


class _Path(NamedTuple):
    """A path to the module.

    Attributes:
        how: Name of the path, for people.
        call: How the module is called.
        known_failures: Known failures on this path.
        lacks: Flags that eager mode claims and this path does not, separated by spaces.
        claims: Other claims that differ from those of eager mode.

    """

    how: str
    call: ModuleCall
    known_failures: tuple[KnownFailure, ...]
    lacks: str
    claims: dict[str, Any]


_UNSCRIPTED = "live_attributes folding threads"
"""Flags that neither TorchScript nor the exporter has.

Attributes become constants, and modules become other modules. Neither compiler can be called from
several threads.
"""

_UNEXPORTED = f"{_UNSCRIPTED} cumulative_momentum"
"""Flags that the exporter does not have.

With momentum=None it asks for the value of the counter.
"""

_PATHS: Mapping[str, _Path] = {
    # Without input_checks: TorchScript raises torch.jit.Error, whatever the module raises.
    "torch-script": _Path(
        "TorchScript", call_scripted, known.EAGER, f"{_UNSCRIPTED} input_checks", {}
    ),
    "torch-export": _Path(
        "torch.export",
        _exported(lambda program: program),
        known.EAGER,
        _UNEXPORTED,
        {"expensive_signatures": True},
    ),
    # Without gradients: autograd refuses a backward, since the program updates in place the running
    # statistics that its forward has saved.
    "torch-export-decomposed": _Path(
        "torch.export and run_decompositions",
        _exported(lambda program: program.run_decompositions()),
        known.FORWARD,
        f"{_UNEXPORTED} gradients gradient_layout",
        {"expensive_signatures": True, "double_backward": ()},
    ),
    # Eval modules are scripted. Without strided_state, and without dtypes whose parameters are
    # bfloat16: oneDNN reads or writes past the memory of such tensors (docs/findings).
    "torch-mkldnn": _Path(
        "oneDNN's layout",
        _in_onednns_layout,
        known.ONEDNN,
        "threads affine_off strided_state empty_batch input_checks subnormals output_layout"
        " gradient_layout folding",
        {"dtypes": ("float32", "mixed_bfloat16"), "double_backward": ()},
    ),
}


def _path(name: str) -> Torch:
    path = _PATHS[name]
    claims = vars(cpu().capabilities) | dict.fromkeys(path.lacks.split(), False) | path.claims
    # Some processors have no bfloat16 for oneDNN.
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported() and name == "torch-mkldnn":
        claims["dtypes"] = ("float32",)
    return Torch(name, "cpu", f"CPU, {path.how}", path.known_failures, path.call, **claims)


scripted, exported, exported_decomposed, mkldnn = (partial(_path, name) for name in _PATHS)
