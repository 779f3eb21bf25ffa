"""ONNX: the operator BatchNormalization of opset 15, in models of one node.

The backend is onnx's own evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from bn_spec.backend.adapters import onnx_known as known
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dialect import Dialect
from bn_spec.case.dtypes import DTYPES, Array

with framework("onnx", "onnx"):
    import onnx
    from onnx.reference import ReferenceEvaluator

LIMITS = np.finfo(np.float32)

DIALECT = Dialect(
    momentum_weighs="old",
    running_var="biased",
    single_value="answered",
    attributes="float32",
    counter=False,
    eps_range=(float(LIMITS.smallest_normal), float(LIMITS.max)),
)
"""The operator's conventions."""

KEPT = 1024
"""Number of models kept for each backend. Building another takes a millisecond."""


class Evaluator(Protocol):
    """An object that runs a model."""

    def run(
        self, output_names: Sequence[str] | None, feeds: Mapping[str, Array], /
    ) -> Sequence[Array]:
        """Return the named outputs, or all of them for None."""


def model(data: str, parameters: str, **attributes: float) -> onnx.ModelProto:
    """Return a model of one BatchNormalization.

    Args:
        data: dtype of the input and the output.
        parameters: dtype of the other tensors.
        attributes: attributes of the node. With training_mode, it also returns running statistics.

    """

    def tensor(name: str, dtype: str, *shape: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
        )

    inputs = [tensor("X", data, *"NCHW")]
    inputs += [tensor(name, parameters, "C") for name in ("scale", "B", "input_mean", "input_var")]
    outputs = [tensor("Y", data, *"NCHW")]
    if "training_mode" in attributes:
        outputs += [tensor(name, parameters, "C") for name in ("running_mean", "running_var")]
    input_names = [each.name for each in inputs]
    output_names = [each.name for each in outputs]
    node = onnx.helper.make_node("BatchNormalization", input_names, output_names, **attributes)
    graph = onnx.helper.make_graph([node], "batch_normalization", inputs, outputs)
    opset = [onnx.helper.make_opsetid("", 15)]
    # Opset 15 came with version 8 of the format.
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)


def backend(
    name: str,
    description: str,
    start: Callable[[onnx.ModelProto], Evaluator],
    known_failures: tuple[KnownFailure, ...] = (),
    **claims: Any,
) -> Backend:
    """Return the backend of the operator in the evaluators that ``start`` makes of a model."""

    @lru_cache(KEPT)
    def started(data: str, parameters: str, **attributes: float) -> Evaluator:
        return start(model(data, parameters, **attributes))

    @np.errstate(all="ignore")  # NumPy warns of infinities and NaN, which cases contain
    def run(x: Array, *tensors: Array | None, **attributes: float) -> tuple[Array, ...]:
        # The operator requires all of its tensors. Ones and zeros replace those that the layer
        # does not have.
        parameters = next((a.dtype for a in tensors if a is not None), x.dtype)
        absent = (np.full(x.shape[1], value, parameters) for value in (1, 0, 0, 1))
        complete = [
            default if tensor is None else tensor
            for tensor, default in zip(tensors, absent, strict=True)
        ]
        evaluator = started(x.dtype.name, parameters.name, **attributes)
        feeds = zip(("X", "scale", "B", "input_mean", "input_var"), (x, *complete), strict=True)
        return tuple(evaluator.run(None, dict(feeds)))

    def train(
        x: Array,
        weight: Array,
        bias: Array,
        running_mean: Array,
        running_var: Array,
        momentum: float,
        eps: float,
    ) -> tuple[Array, ...]:
        attributes = {"epsilon": eps, "momentum": DIALECT.momentum(momentum), "training_mode": 1}
        return run(x, weight, bias, running_mean, running_var, **attributes)

    def infer(
        x: Array, weight: Array, bias: Array, running_mean: Array, running_var: Array, eps: float
    ) -> Array:
        return run(x, weight, bias, running_mean, running_var, epsilon=eps)[0]

    capabilities = Capabilities(
        dialect=DIALECT,
        grade="two-pass",
        overflow_safe=True,
        deterministic=True,
        threads=True,
        input_checks=False,
        **claims,
    )
    return kernel_backend(
        name,
        train,
        infer,
        capabilities=capabilities,
        description=description,
        known_failures=known_failures,
    )


def reference() -> Backend:
    """Return the backend of ``onnx.reference.ReferenceEvaluator``, which is written in NumPy."""
    return backend(
        "onnx-reference",
        f"onnx {onnx.__version__}, ReferenceEvaluator",
        ReferenceEvaluator,
        known.REFERENCE,
        elementwise="parameters",
        dtypes=tuple(DTYPES),
    )
