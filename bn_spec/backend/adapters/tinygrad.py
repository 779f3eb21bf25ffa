"""tinygrad: ``tinygrad.nn.BatchNorm`` through ``TinyJit``, on tinygrad's default device.

tinygrad's own training loops call it through ``TinyJit`` too.
"""

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
"""What the adapter claims.

Kernels are compiled for every shape, eps and momentum. Inputs of other ranks are accepted.
"""


@cache
def _compiled(call: Callable[..., list[Tensor]], _: object, **options: Any) -> TinyJit:
    """Return a call with these options, compiled.

    A ``TinyJit`` is bound to one signature, so each signature (the second argument) has its own.
    """

    def jitted(**arrays: Tensor) -> list[Tensor]:
        moved = {}
        for name, tensor in arrays.items():
            on_device = tensor.to(Device.DEFAULT)
            moved[name] = _viewed(on_device, of=dtypes.uint16, as_=dtypes.bfloat16)
        results = [
            _viewed(tensor, of=dtypes.bfloat16, as_=dtypes.uint16)
            for tensor in call(moved, **options)
        ]
        Tensor.realize(*results)
        return results

    return TinyJit(jitted)


def _viewed(tensor: Tensor, *, of: Any, as_: Any) -> Tensor:
    """Return a tensor of one dtype with its bits as another dtype; other tensors as they are."""
    return (tensor.bitcast(as_) if tensor.dtype == of else tensor).contiguous()


def _called(call: Any, arrays: Mapping[str, Array | None], **options: Any) -> list[Array]:
    """Return copies of what a call returns for copies of arrays.

    bfloat16, which NumPy lacks, crosses as its bits.
    """
    present: dict[str, Array] = {}
    for name, array in arrays.items():
        if array is not None:
            present[name] = array.view(np.uint16) if array.dtype == _BFLOAT16 else array
    signature = tuple((name, array.shape, array.dtype) for name, array in present.items())
    compiled = _compiled(call, signature, **options)
    results = compiled(**{name: Tensor(array, device="NPY") for name, array in present.items()})
    copied = [np.array(tensor.numpy()) for tensor in results]
    return [array.view(_BFLOAT16) if array.dtype == np.uint16 else array for array in copied]


def _module(tensors: Mapping[str, Tensor], momentum: float, eps: float) -> nn.BatchNorm:
    """Build a module with these tensors."""
    module = nn.BatchNorm(
        tensors["x"].shape[1], eps, "weight" in tensors, "running_mean" in tensors, momentum
    )
    for name in tensors.keys() - {"x", "dy"}:
        setattr(module, name, tensors[name])
    return module


def _forward(
    tensors: Mapping[str, Tensor], momentum: float, eps: float, training: bool
) -> list[Tensor]:
    """Return the output and, in training, the running statistics if the module tracks them."""
    module = _module(tensors, momentum, eps)
    with Context(TRAINING=int(training)):
        y = module(tensors["x"])
    if training and module.track_running_stats:
        return [y, module.running_mean, module.running_var]
    return [y]


def _gradients(
    tensors: Mapping[str, Tensor], eps: float, training: bool, wrt: tuple[str, ...]
) -> list[Tensor]:
    leaves = [tensors["x" if name == "input" else name] for name in wrt]
    y, *_ = _forward(tensors, 0.0, eps, training)
    return list(y.gradient(*leaves, gradient=tensors["dy"]))


def forward_training(
    x: Array, momentum: float, eps: float, **arrays: Array | None
) -> tuple[Array | None, ...]:
    """Return the output, and the running statistics of the module after it."""
    y, *running = _called(_forward, {"x": x, **arrays}, momentum=momentum, eps=eps, training=True)
    return y, *(running or (None, None))


def forward_inference(x: Array, eps: float, **arrays: Array | None) -> Array:
    """Return the output of the module outside training."""
    return _called(_forward, {"x": x, **arrays}, momentum=0.0, eps=eps, training=False)[0]


def backward(
    dy: Array, eps: float, training: bool, wrt: tuple[str, ...], **arrays: Any
) -> tuple[Any, Any, Any]:
    """Return the gradients of the forward by ``Tensor.gradient``, after running it once more."""
    found = _called(_gradients, {"dy": dy, **arrays}, eps=eps, training=training, wrt=wrt)
    by_name = dict(zip(wrt, found, strict=True))
    return by_name.get("input"), by_name.get("weight"), by_name.get("bias")


def backend() -> Backend:
    """Return the backend of the default device. The CPU needs clang.

    Raises:
        UnavailableBackend: no device works.

    """
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
