"""The formulas that PyTorch's compilers put in place of ``native_batch_norm`` and its backward, computed eagerly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bn_spec.backend.adapters import torch_paths_known as known
from bn_spec.backend.adapters.torch import cpu  # it says how to install PyTorch
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend

# isort: split
import torch

_EAGER = cpu()
_TABLE = torch._decomp.decomposition_table
_forward = _TABLE[torch.ops.aten.native_batch_norm.default]
_gradients = _TABLE[torch.ops.aten.native_batch_norm_backward.default]


def _train(x: Any, momentum: float, eps: float, **tensors: Any) -> tuple[Any, ...]:
    y, *saved = _forward(x, **tensors, training=True, momentum=momentum, eps=eps)
    return y, tensors["running_mean"], tensors["running_var"], saved


def _infer(x: Any, eps: float, **tensors: Any) -> Any:
    return _forward(x, **tensors, training=False, momentum=0.0, eps=eps)[0]


def _backward(
    dy: Any, x: Any, eps: float, training: bool, saved: Any, wrt: tuple[str, ...], **tensors: Any
) -> Any:
    mean, inverse = saved or (None, None)
    mask = [name in wrt for name in ("input", "weight", "bias")]
    del tensors["bias"]  # no gradient depends on it
    dx, *others = _gradients(
        dy,
        x,
        **tensors,
        save_mean=mean,
        save_invstd=inverse,
        train=training,
        eps=eps,
        output_mask=mask,
    )
    return dx if mask[0] else None, *others  # it computes dx whatever the mask says


def decomposed() -> Backend:
    """The decompositions: as compilers use them, the backward is a formula of its own and not derived.

    ``var_mean`` merges Welford statistics. Outputs are computed in the format of the accumulation
    and rounded once; the saved statistics are rounded to the format of the data. Nothing is
    checked.
    """
    claims = replace(
        _EAGER.capabilities,
        grade="welford",
        elementwise="accumulation",
        gradient_layout=False,
        double_backward=(),
        empty_batch=False,
        folding=False,
        input_checks=False,
    )
    return kernel_backend(
        "torch-decomp",
        _train,
        _infer,
        _backward,
        capabilities=claims,
        description=f"{_EAGER.description}, decomposed",
        to_native=_EAGER.to_native,
        to_numpy=_EAGER.to_numpy,
        known_failures=known.DECOMPOSED,
    )
