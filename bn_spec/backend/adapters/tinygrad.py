"""tinygrad: ``tinygrad.nn.BatchNorm`` through ``TinyJit``, as its training loops call it, on its default device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np

from bn_spec.backend.adapters import tinygrad_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.case.dtypes import Array, format_named
from bn_spec.errors import UnavailableBackend

with framework("tinygrad", "tinygrad"):
    from tinygrad import Context, Device, Tensor, TinyJit, dtypes, nn

_BFLOAT16 = format_named("bfloat16").dtype

CLAIMS = Capabilities(
    dtypes=("float32", "float64", "float16"),
    layouts=("contiguous",),
    cumulative_momentum=False,
    gradients=True,
    expensive_signatures=True,
    grade="two-pass",
    statistics="parameters",
    elementwise="parameters",
    deterministic=True,
    input_checks=False,
)
"""Kernels are compiled for every shape, eps and momentum; inputs of other ranks are taken."""


@cache
def _compiled(call: Callable[..., list[Tensor]], _: object, **options: Any) -> TinyJit:
    """Return a call with these options, compiled; each signature has one of its own, as each needs."""

    def jitted(**arrays: Tensor) -> list[Tensor]:
        moved = {
            name: _as(dtypes.bfloat16, dtypes.uint16, t.to(Device.DEFAULT))
            for name, t in arrays.items()
        }
        results = [_as(dtypes.uint16, dtypes.bfloat16, tensor) for tensor in call(moved, **options)]
        Tensor.realize(*results)
        return results

    return TinyJit(jitted)


def _as(dtype: Any, other: Any, tensor: Tensor) -> Tensor:
    return (tensor.bitcast(dtype) if tensor.dtype == other else tensor).contiguous()


def _called(call: Any, arrays: Mapping[str, Array | None], **options: Any) -> list[Array]:
    """Return copies of what a call returns, for copies of arrays; bfloat16, which NumPy lacks, goes as its bits."""
    given = {
        name: a.view(np.uint16) if a.dtype == _BFLOAT16 else a
        for name, a in arrays.items()
        if a is not None
    }
    signature = tuple((name, a.shape, a.dtype) for name, a in given.items())
    results = _compiled(call, signature, **options)(
        **{name: Tensor(a, device="NPY") for name, a in given.items()}
    )
    copied = [np.array(tensor.numpy()) for tensor in results]
    return [a.view(_BFLOAT16) if a.dtype == np.uint16 else a for a in copied]


def _module(tensors: Mapping[str, Tensor], momentum: float, eps: float) -> nn.BatchNorm:
    """Build the module that holds these tensors."""
    module = nn.BatchNorm(
        tensors["x"].shape[1], eps, "weight" in tensors, "running_mean" in tensors, momentum
    )
    for name in tensors.keys() - {"x", "dy"}:
        setattr(module, name, tensors[name])
    return module


def _forward(
    tensors: Mapping[str, Tensor], momentum: float, eps: float, training: bool
) -> list[Tensor]:
    module = _module(tensors, momentum, eps)
    with Context(TRAINING=int(training)):
        y = module(tensors["x"])
    return (
        [y, module.running_mean, module.running_var]
        if training and module.track_running_stats
        else [y]
    )


def _gradients(
    tensors: Mapping[str, Tensor], eps: float, training: bool, wrt: tuple[str, ...]
) -> list[Tensor]:
    leaves = [tensors["x" if name == "input" else name] for name in wrt]
    y, *_ = _forward(tensors, 0.0, eps, training)
    return list(y.gradient(*leaves, gradient=tensors["dy"]))


def forward_training(
    x: Array, momentum: float, eps: float, **arrays: Array | None
) -> tuple[Array | None, ...]:
    """Return the output, and the running statistics that the module holds after it."""
    y, *running = _called(_forward, {"x": x, **arrays}, momentum=momentum, eps=eps, training=True)
    return y, *(running or (None, None))


def forward_inference(x: Array, eps: float, **arrays: Array | None) -> Array:
    """Return the output of the module outside of training."""
    return _called(_forward, {"x": x, **arrays}, momentum=0.0, eps=eps, training=False)[0]


def backward(
    dy: Array, eps: float, training: bool, wrt: tuple[str, ...], **arrays: Any
) -> tuple[Any, Any, Any]:
    """Return what ``Tensor.gradient`` finds of the forward, which it runs once more."""
    of = dict(
        zip(
            wrt,
            _called(_gradients, {"dy": dy, **arrays}, eps=eps, training=training, wrt=wrt),
            strict=True,
        )
    )
    return of.get("input"), of.get("weight"), of.get("bias")


def backend() -> Backend:
    """The default device; the CPU needs clang. Raises :class:`UnavailableBackend` if none works."""
    try:
        (Tensor([1.0]) + 1).realize()
    except Exception as error:
        raise UnavailableBackend(
            f"tinygrad finds no device that works; its CPU needs clang: {error}"
        ) from error
    return kernel_backend(
        "tinygrad",
        forward_training,
        forward_inference,
        backward,
        capabilities=CLAIMS,
        description=f"tinygrad {version('tinygrad')}, {Device.DEFAULT}, through TinyJit",
        to_native=partial(np.array, order="C"),
        known_failures=known.CPU,
    )
