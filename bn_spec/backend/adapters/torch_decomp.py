"""PyTorch's decompositions of ``native_batch_norm`` and its backward, computed eagerly.

PyTorch's compilers replace the two operators by these formulas.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bn_spec.backend.adapters import torch_paths_known as known

# This import comes before that of torch: without PyTorch it says how to install it.
from bn_spec.backend.adapters.torch import cpu
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend

# isort: split
import torch

_EAGER = cpu()
_TABLE = torch._decomp.decomposition_table
_forward = _TABLE[torch.ops.aten.native_batch_norm.default]
_gradients = _TABLE[torch.ops.aten.native_batch_norm_backward.default]


def forward_training(x: Any, momentum: float, eps: float, **tensors: Any) -> tuple[Any, ...]:
    """Return output, running statistics, and what the decomposition saves for the backward.

    The decomposition updates the running statistics in place. It saves the mean and
    1 / sqrt(var + eps) of the batch.
    """
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
    # The decomposition computes dx whatever the mask says.
    return dx if mask[0] else None, *others


def decomposed() -> Backend:
    """Return the backend of the decompositions.

    As compilers use them, the backward is a formula of its own: autograd does not derive it.
    ``var_mean`` merges Welford statistics. Outputs are computed in the format of the accumulation
    and rounded once. The saved statistics are rounded to the format of the data. Nothing is
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
        forward_training,
        _infer,
        _backward,
        capabilities=claims,
        description=f"{_EAGER.description}, decomposed",
        to_native=_EAGER.to_native,
        to_numpy=_EAGER.to_numpy,
        known_failures=known.DECOMPOSED,
    )
