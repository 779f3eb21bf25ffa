"""PyTorch: ``torch.nn.BatchNorm2d`` as users call it, on the CPU, on CUDA and compiled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bn_spec.backend.adapters import torch_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import DoubleGradients, Gradients, Layer
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.arrays import Parts, put_together, take_apart
from bn_spec.case.config import STATE_FIELDS, Config, State
from bn_spec.case.dtypes import DTYPES, Array, format_named
from bn_spec.errors import UnavailableBackend

with framework("torch", "torch"):
    import torch

ModuleCall: TypeAlias = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
"""A way to call a module on an input; it returns the output."""

SECOND_ORDER = ("float32", "float64")
"""Dtypes whose backward is differentiated.

In half precision a double backward is a chain of steps, each rounded to half precision.
"""


_CLAIMS: dict[str, Any] = {
    "dtypes": tuple(DTYPES),
    "gradients": True,
    "gradient_layout": True,
    "output_layout": True,
    "strided_state": True,
    "checkpoints": True,
    "live_attributes": True,
    "empty_batch": True,
    "deterministic": True,
    "threads": True,
    "folding": True,
}


def _called(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = module(x)
    return y


class Torch:
    """``torch.nn.BatchNorm2d`` on one device.

    Arrays travel as the flat memory that they span, so that their strides survive on any device.
    """

    def __init__(
        self,
        name: str,
        device: str,
        device_name: str,
        known_failures: tuple[KnownFailure, ...],
        call: ModuleCall = _called,
        **claims: Any,
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.description = f"torch {torch.__version__}, {device_name}"
        self.known_failures = known_failures
        self.call = call
        self.capabilities = Capabilities(**_CLAIMS | claims)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build the module with the arguments that differ from its defaults, and load the state.

        A state with gaps in memory becomes the module's own tensors, since loading would copy it
        into tensors without gaps.
        """
        module = torch.nn.BatchNorm2d(
            config.num_features,
            **config.departures(),
            device=self.device,
            dtype=getattr(torch, config.arithmetic.parameters.name),
        )
        layer = _Layer(module, self.call)
        if state is not None:
            arrays = state.tensors()
            tensors = {name: self.to_native(array) for name, array in arrays.items()}
            if any(not array.flags.c_contiguous for array in arrays.values()):
                layer.adopt(tensors)
            else:
                module.load_state_dict(tensors)
        return layer

    def to_native(self, array: Array) -> torch.Tensor:
        """Move the memory to the device and view it with the array's strides."""
        flat, shape, strides = take_apart(array)
        return _tensor(flat).to(self.device).as_strided(shape, strides)

    def to_numpy(self, tensor: torch.Tensor) -> Array:
        """Move the memory that the tensor spans to the host and view it with its strides."""
        tensor = tensor.detach()
        lengths_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
        # An empty tensor spans nothing; its last element would lie at a meaningless offset.
        extent = 1 + sum((n - 1) * stride for n, stride in lengths_and_strides)
        if not tensor.numel():
            extent = 0
        flat = _array(tensor.as_strided((extent,), (1,)))
        return put_together(Parts(flat, tuple(tensor.shape), tensor.stride()))


_BFLOAT16 = format_named("bfloat16").dtype


def _tensor(array: Array) -> torch.Tensor:
    """Return a tensor on the memory of an array, or of a copy if the array is read-only.

    No tensor can be read-only. bfloat16, a dtype that NumPy lacks, crosses as its bits.
    """
    array = array if array.flags.writeable else array.copy()
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


class _Recorded(NamedTuple):
    """The output of a forward with its graph, and those of its leaves that require a gradient."""

    y: torch.Tensor
    leaves: dict[str, torch.Tensor]


class _Layer:
    def __init__(self, module: torch.nn.BatchNorm2d, call: ModuleCall) -> None:
        self.module = module
        self.call = call
        self.train = module.train
        self.reset_running_stats = module.reset_running_stats
        self.reset_parameters = module.reset_parameters

    def adopt(self, tensors: dict[str, torch.Tensor]) -> None:
        """Make these tensors, with their strides, the parameters and buffers of the module."""
        for name, tensor in tensors.items():
            is_parameter = name in ("weight", "bias")
            setattr(self.module, name, torch.nn.Parameter(tensor) if is_parameter else tensor)

    def save(self) -> dict[str, torch.Tensor]:
        # A state_dict refers to the live tensors.
        return {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def load(self, tensors: Mapping[str, torch.Tensor], *, strict: bool) -> None:
        self.module.load_state_dict(tensors, strict=strict)

    def configure(self, name: str, value: float | None) -> None:
        setattr(self.module, name, value)

    def fold(
        self, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out_channels, in_channels, *kernel = weight.shape
        # The device "meta" allocates nothing: the tensors are replaced at once.
        convolution = torch.nn.Conv2d(in_channels, out_channels, kernel, device="meta")
        convolution.weight = torch.nn.Parameter(weight)
        convolution.bias = None if bias is None else torch.nn.Parameter(bias)
        fused = torch.nn.utils.fuse_conv_bn_eval(convolution.eval(), self.module)
        return fused.weight, fused.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.call(self.module, x)

    def record(self, x: torch.Tensor, wrt: tuple[str, ...]) -> tuple[torch.Tensor, _Recorded]:
        tensors = {"input": x, "weight": self.module.weight, "bias": self.module.bias}
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        for name, tensor in present.items():
            tensor.requires_grad_(name in wrt)
        try:
            y = self.call(self.module, x)
        finally:
            # A later backward may ask for gradients that another forward has recorded.
            for tensor in present.values():
                tensor.requires_grad_()
        return y, _Recorded(y, {name: present[name] for name in wrt})

    def backward(self, record: _Recorded, dy: torch.Tensor) -> Gradients:
        return self._gradients(record, dy)

    def double_backward(
        self, record: _Recorded, dy: torch.Tensor, cotangents: Gradients
    ) -> DoubleGradients:
        gradients = self._gradients(record, dy.requires_grad_(), create_graph=True)
        names = [name for name in record.leaves if getattr(cotangents, name) is not None]
        # The first gradients do not depend on the bias.
        leaves = {name: leaf for name, leaf in record.leaves.items() if name != "bias"}
        wanted = {"dy": dy, **leaves}
        second = torch.autograd.grad(
            [getattr(gradients, name) for name in names],
            list(wanted.values()),
            [getattr(cotangents, name) for name in names],
            materialize_grads=True,
        )
        return DoubleGradients(**dict(zip(wanted, second, strict=True)))

    def _gradients(
        self, record: _Recorded, dy: torch.Tensor, create_graph: bool = False
    ) -> Gradients:
        leaves = record.leaves
        gradients = torch.autograd.grad(
            record.y,
            list(leaves.values()),
            dy,
            retain_graph=True,  # a record may be asked again
            create_graph=create_graph,
        )
        return Gradients(**dict(zip(leaves, gradients, strict=True)))

    def state(self) -> State:
        arrays: dict[str, Array | None] = {}
        for name in STATE_FIELDS:
            tensor = getattr(self.module, name)
            arrays[name] = None if tensor is None else _array(tensor).copy()
        return State(**arrays)


def cpu() -> Torch:
    """Return the backend of the CPU, whose kernels subtract the mean before they square.

    All-half layers keep mean and 1 / sqrt(var + eps) in the dtype of the parameters. bfloat16
    layers update their running statistics in bfloat16. Inputs of strides other than NCHW and NHWC
    take every step of the output in half precision.
    """
    return Torch(
        "torch-cpu",
        "cpu",
        "CPU",
        known.CPU,
        grade="two-pass",
        statistics="parameters",
        elementwise="parameters",
        centred_products=True,
        overflow_safe=True,
        double_backward=SECOND_ORDER,
    )


def cuda() -> Torch:
    """Return the backend of the current CUDA device.

    Its kernels merge Welford statistics, and take 1 / sqrt to within two ulps.

    Raises:
        UnavailableBackend: torch sees no CUDA device.

    """
    if not torch.cuda.is_available():
        raise UnavailableBackend("torch sees no CUDA device")
    return Torch(
        "torch-cuda",
        "cuda",
        torch.cuda.get_device_name(),
        known.CUDA,
        grade="welford",
        unbiased=False,
        double_backward=SECOND_ORDER,
    )


def compiled() -> Torch:
    """Return the backend of ``torch.compile`` (Inductor) on the CPU.

    Shapes are static, and nothing falls back to eager mode. Sums of up to 1024 values are two-pass,
    longer ones Welford's. All-half layers hand mean and 1 / sqrt(var + eps) to their backward in
    half precision. A momentum of None, and errors inside the compiled function, end in exceptions
    of the compiler.

    Beyond the limits on recompilation Dynamo falls back to eager mode in silence, so this function
    lifts them. Dynamo's settings belong to one thread: calls from other threads are not claimed.

    Raises:
        UnavailableBackend: Inductor finds no C++ compiler.

    """
    compilers = filter(None, (os.environ.get("CXX"), "g++", "clang++"))
    if not any(map(shutil.which, compilers)):
        raise UnavailableBackend(
            "torch.compile needs a C++ compiler for the CPU; install g++ or clang++, or set CXX"
        )
    torch._dynamo.config.recompile_limit = 10**6
    torch._dynamo.config.accumulated_recompile_limit = 10**6
    # A second backward needs the buffers that the first has used.
    torch._functorch.config.donated_buffer = False
    return Torch(
        "torch-compile",
        "cpu",
        "CPU, compiled by Inductor",
        known.COMPILED,
        torch.compile(_called, fullgraph=True, dynamic=False),
        grade="welford",
        statistics="parameters",
        cumulative_momentum=False,
        input_checks=False,
        expensive_signatures=True,
        live_attributes=False,
        strided_state=False,
        threads=False,
        folding=False,
    )
