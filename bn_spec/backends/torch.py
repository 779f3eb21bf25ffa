"""PyTorch: ``torch.nn.BatchNorm2d`` as users call it, on a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Capabilities, KnownFailure, Layer
from ..config import STATE_FIELDS, Config, State
from ..dtypes import DTYPES, Array, format_named
from ..errors import UnavailableBackend
from ..memory import Parts, put_together, take_apart

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise UnavailableBackend("PyTorch is not installed; install it with: pip install 'bn-spec[torch]'") from error

_COUNTS_REFUSED = KnownFailure(
    "ERR-04",
    "num_batches_tracked",
    "_BatchNorm.forward adds 1 to num_batches_tracked before F.batch_norm checks the number of values per channel"
    " and the number of channels, so a refused batch is counted (measured on torch 2.13.0)",
)

_INVERSE_STD_OVERFLOWS = KnownFailure(
    "NUM-06",
    "numbers",
    "all-float16 layers keep 1 / sqrt(var + eps) in float16: for a constant channel and eps below 2.3e-10 it exceeds"
    " 65504, becomes infinite, and times zero gives NaN (measured on torch 2.13.0)",
    dtypes=("float16",),
    where=lambda case: case.config.eps < 65504.0**-2,
)


class Torch:
    """``torch.nn.BatchNorm2d`` on one device.

    Arrays travel as the flat memory that they span, so that their strides survive on any device.
    """

    def __init__(
        self, name: str, device: str, device_name: str, known_failures: tuple[KnownFailure, ...], **claims: Any
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.description = f"torch {torch.__version__}, {device_name}"
        self.known_failures = known_failures
        self.capabilities = Capabilities(dtypes=tuple(DTYPES), **claims)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build the module with the arguments that depart from its defaults; load the state."""
        module = torch.nn.BatchNorm2d(
            config.num_features,
            **config.departures(),
            device=self.device,
            dtype=getattr(torch, config.arithmetic.parameters.name),
        )
        if state is not None:
            tensors = {name: _tensor(a) for name, a in state.items() if a is not None}
            module.load_state_dict(tensors)
        return _Layer(module)

    def to_native(self, array: Array) -> torch.Tensor:
        """Move the memory to the device and view it with the array's strides."""
        flat, shape, strides = take_apart(array)
        return _tensor(flat.copy()).to(self.device).as_strided(shape, strides)

    def to_numpy(self, tensor: torch.Tensor) -> Array:
        """Move the memory that the tensor spans to the host and view it with the tensor's strides."""
        tensor = tensor.detach()
        extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        flat = _array(tensor.as_strided((extent if tensor.numel() else 0,), (1,)))
        return put_together(Parts(flat, tuple(tensor.shape), tensor.stride()))


_BFLOAT16 = format_named("bfloat16").dtype


def _tensor(array: Array) -> torch.Tensor:
    """Return a tensor on the memory of an array; bfloat16, which NumPy does not know, goes through its bits."""
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: torch.Tensor) -> Array:
    """Return the array on the memory of a tensor, moved to the host."""
    host = tensor.detach().cpu()
    if host.dtype == torch.bfloat16:
        host = host.view(torch.int16)
    array: Array = host.numpy()
    return array.view(_BFLOAT16) if tensor.dtype == torch.bfloat16 else array


class _Layer:
    def __init__(self, module: torch.nn.BatchNorm2d) -> None:
        self.module = module
        self.train = module.train
        self.forward = module
        self.reset_running_stats = module.reset_running_stats
        self.reset_parameters = module.reset_parameters

    def state(self) -> State:
        tensors = {name: getattr(self.module, name) for name in STATE_FIELDS}
        return State(**{name: None if t is None else _array(t).copy() for name, t in tensors.items()})


def cpu() -> Torch:
    """The CPU; its kernels subtract the mean before they square.

    All-half layers keep mean and 1 / sqrt(var + eps) in the dtype of the parameters, and bfloat16 ones update their
    running statistics in it; inputs of other strides than NCHW and NHWC take every step of the output in half
    precision.
    """
    claims = {"statistics": "parameters", "elementwise": "parameters", "overflow_safe": True}
    return Torch("torch-cpu", "cpu", "CPU", (_COUNTS_REFUSED, _INVERSE_STD_OVERFLOWS), grade="two-pass", **claims)


def cuda() -> Torch:
    """The current CUDA device; its kernels merge Welford statistics, and take 1 / sqrt to within two ulps.

    Raises:
        UnavailableBackend: torch sees no CUDA device.

    """
    if not torch.cuda.is_available():
        raise UnavailableBackend("torch sees no CUDA device")
    device = torch.cuda.get_device_name()
    return Torch("torch-cuda", "cuda", device, (_COUNTS_REFUSED,), grade="welford", unbiased=False)
