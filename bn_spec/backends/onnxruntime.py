"""ONNX Runtime: the operator BatchNormalization of its provider for the CPU, through sessions of one node."""

from __future__ import annotations

from ..backend import Backend
from . import onnx
from .frameworks import framework

with framework("onnxruntime", "onnxruntime"):
    import onnxruntime


def cpu() -> Backend:
    """Inference sessions on the CPU; float16 is cast to float32 and back, bfloat16 is not offered."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the operator has no use for more, and each of many sessions would have its own
    return onnx.backend(
        "onnxruntime",
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider",
        lambda model: onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        ),
        dtypes=("float32", "float64", "mixed_float16", "float16"),
    )
