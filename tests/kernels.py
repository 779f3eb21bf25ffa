"""Kernels as functions: correct ones, and recorders of the arguments that they receive."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Capabilities, State, kernel_backend
from bn_spec.case.arrays import same_bits
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.suite.cell import Cell
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

for chapter in ("grd", "sta", "err"):
    import_module(f"conformance.test_{chapter}")  # declares its properties

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)

AXES = (0, 2, 3)


def over_channels(values: Array) -> Array:
    return values.reshape(1, -1, 1, 1)


def affine(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, eps: float
) -> Array:
    x_hat: Array = (x - over_channels(mean)) / np.sqrt(over_channels(var) + x.dtype.type(eps))
    return (
        x_hat
        if weight is None or bias is None
        else x_hat * over_channels(weight) + over_channels(bias)
    )


@np.errstate(all="ignore")
def forward_training(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
    eps: float,
) -> tuple[Array, Array | None, Array | None]:
    """A correct kernel in the arithmetic of its input, or in float32 if that is wider."""
    n = x.size // x.shape[1]
    if x.ndim != 4 or n < 2:
        raise ValueError(f"cannot normalise shape {x.shape}")
    data, x = x, widened(x)
    mean, var = x.mean(axis=AXES), x.var(axis=AXES)
    y = affine(x, weight, bias, mean, var, eps).astype(data.dtype)
    if running_mean is None or running_var is None:
        return y, None, None
    m, held = x.dtype.type(momentum), running_mean.dtype
    unbiased = var * x.dtype.type(n / (n - 1))
    return (
        y,
        ((1 - m) * running_mean + m * mean).astype(held),
        ((1 - m) * running_var + m * unbiased).astype(held),
    )


@np.errstate(all="ignore")
def forward_inference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    eps: float,
) -> Array:
    if x.ndim != 4:
        raise ValueError(f"cannot normalise shape {x.shape}")
    return affine(
        widened(x), weight, bias, widened(running_mean), widened(running_var), eps
    ).astype(x.dtype)


def widened(a: Array) -> Array:
    return a.astype(np.float64 if a.dtype == np.float64 else np.float32)


@np.errstate(all="ignore")
def backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    eps: float,
    training: bool,
    saved: object,
    wrt: tuple[str, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """A correct backward, that computes what it needs of the forward anew."""
    assert saved is None
    assert (weight is None) == (bias is None)
    g, data = widened(dy), widened(x)
    mean, var = (
        (data.mean(axis=AXES), data.var(axis=AXES))
        if training
        else map(widened, (running_mean, running_var))
    )
    s = 1 / np.sqrt(var + data.dtype.type(eps))
    x_hat = (data - over_channels(mean)) * over_channels(s)
    dweight, dbias = (g * x_hat).sum(axis=AXES), g.sum(axis=AXES)
    if training:
        n = g.dtype.type(g.size // g.shape[1])
        g = g - over_channels(dbias / n) - x_hat * over_channels(dweight / n)
    scale = s if weight is None else s * widened(weight)
    held = x.dtype if weight is None else weight.dtype
    dx = (g * over_channels(scale)).astype(x.dtype)
    return (
        dx if "input" in wrt else None,
        dweight.astype(held) if "weight" in wrt else None,
        dbias.astype(held) if "bias" in wrt else None,
    )


CORRECT = kernel_backend(
    "correct",
    forward_training,
    forward_inference,
    backward,
    capabilities=Capabilities(
        dtypes=tuple(DTYPES), gradients=True, checkpoints=True, live_attributes=True
    ),
)


class Recorder:
    """Kernels that add one to the running statistics, and keep the arguments of each call.

    The arguments of backwards are kept in a list of their own, as copies made at the call.
    """

    def __init__(self, in_place: bool = False) -> None:
        self.in_place = in_place
        self.calls: list[dict[str, Any]] = []
        self.backwards: list[dict[str, Any]] = []
        self.failing = False

    def training(self, x: Array, **arguments: Any) -> tuple[Array, Array | None, Array | None]:
        self.calls.append(arguments)
        if self.failing:
            raise RuntimeError("launch failed")
        mean, var = arguments["running_mean"], arguments["running_var"]
        return x, None if mean is None else mean + 1, None if var is None else var + 1

    def inference(self, x: Array, **arguments: Any) -> Array:
        self.calls.append(arguments)
        if self.failing:
            raise RuntimeError("launch failed")
        return -x

    def saving(
        self, x: Array, **arguments: Any
    ) -> tuple[Array, Array | None, Array | None, object]:
        """Give a fourth value, the number of the call, and update statistics as it was told to."""
        y, mean, var = self.training(x, **arguments)
        old_mean, old_var = arguments["running_mean"], arguments["running_var"]
        if self.in_place and old_mean is not None:
            old_mean[...], old_var[...] = mean, var
            mean, var = old_mean, old_var
        return y, mean, var, f"saved by call {len(self.calls)}"

    def backward(self, dy: Array, x: Array, **arguments: Any) -> tuple[Array, None, Array]:
        copied = {
            name: a.copy() if isinstance(a, np.ndarray) else a for name, a in arguments.items()
        }
        self.backwards.append({"dy": dy, "x": x, **copied})
        return dy, None, dy[0, :, 0, 0]

    @property
    def backend(self) -> Backend:
        return kernel_backend("recorder", self.training, self.inference)

    @property
    def differentiable(self) -> Any:
        return kernel_backend("recorder", self.saving, self.inference, self.backward)


class Boxed:
    """A tensor that is no array."""

    def __init__(self, array: Array) -> None:
        self.array = array


def unboxed(box: Boxed) -> Array:
    return box.array


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def assert_same_state(got: State, wanted: State) -> None:
    for (name, a), (_, b) in zip(got.items(), wanted.items(), strict=True):
        assert a is b if a is None or b is None else same_bits(a, b), name


def some_state() -> State:
    weight, bias, mean, var = np.arange(8, dtype=np.float32).reshape(4, 2) + 2
    return State(weight, bias, mean, var, np.array(5))


def overwrite(state: State) -> None:
    for name, tensor in state.items():
        assert tensor is not None, name
        tensor[...] = 77


def search_of(requirement: str, backend: Backend, dtype: str = "float32") -> Search:
    prop = PROPERTIES[requirement]
    return Search(Cell(prop, backend, dtype), PROFILES["smoke"].settings())


WRT = ("weight", "input")
