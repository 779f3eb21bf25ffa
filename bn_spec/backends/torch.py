"""PyTorch: ``torch.nn.BatchNorm2d`` as users call it, on a device."""

from __future__ import annotations

from ..backend import Capabilities, KnownFailure, Layer
from ..config import STATE_FIELDS, Config, State
from ..dtypes import DTYPES, Array
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


class Torch:
    """``torch.nn.BatchNorm2d`` on one device.

    Arrays travel as the flat memory that they span, so that their strides survive on any device.
    """

    known_failures = (_COUNTS_REFUSED,)

    def __init__(self, name: str, device: str, device_name: str, grade: str) -> None:
        self.name = name
        self.device = torch.device(device)
        self.description = f"torch {torch.__version__}, {device_name}"
        self.capabilities = Capabilities(dtypes=tuple(DTYPES), grade=grade)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build the module with the arguments that depart from its defaults; load the state."""
        module = torch.nn.BatchNorm2d(
            config.num_features,
            **config.departures(),
            device=self.device,
            dtype=getattr(torch, config.arithmetic.parameters.name),
        )
        if state is not None:
            tensors = {name: torch.from_numpy(a) for name, a in state.items() if a is not None}
            module.load_state_dict(tensors)
        return _Layer(module)

    def to_native(self, array: Array) -> torch.Tensor:
        """Move the memory to the device and view it with the array's strides."""
        flat, shape, strides = take_apart(array)
        return torch.from_numpy(flat.copy()).to(self.device).as_strided(shape, strides)

    def to_numpy(self, tensor: torch.Tensor) -> Array:
        """Move the memory that the tensor spans to the host and view it with the tensor's strides."""
        tensor = tensor.detach()
        extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        flat = tensor.as_strided((extent if tensor.numel() else 0,), (1,)).cpu().numpy()
        return put_together(Parts(flat, tuple(tensor.shape), tensor.stride()))


class _Layer:
    def __init__(self, module: torch.nn.BatchNorm2d) -> None:
        self.module = module
        self.train = module.train
        self.forward = module
        self.reset_running_stats = module.reset_running_stats
        self.reset_parameters = module.reset_parameters

    def state(self) -> State:
        tensors = {name: getattr(self.module, name) for name in STATE_FIELDS}
        return State(**{name: None if t is None else t.detach().cpu().numpy().copy() for name, t in tensors.items()})


def cpu() -> Torch:
    """The CPU; its kernels subtract the mean before they square."""
    return Torch("torch-cpu", "cpu", "CPU", grade="two-pass")


def cuda() -> Torch:
    """The current CUDA device; its kernels merge Welford statistics.

    Raises:
        UnavailableBackend: torch sees no CUDA device.

    """
    if not torch.cuda.is_available():
        raise UnavailableBackend("torch sees no CUDA device")
    return Torch("torch-cuda", "cuda", torch.cuda.get_device_name(), grade="welford")
