"""ONNX Runtime: the operator BatchNormalization of its provider for the CPU, through sessions of one node."""

from __future__ import annotations

from bn_spec.backend.adapters import onnx
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.contract import Backend

with framework("onnxruntime", "onnxruntime"):
    import onnxruntime


def cpu() -> Backend:
    """Inference sessions on the CPU; float16 is cast to float32 and back, bfloat16 is not offered."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = (
        1  # the operator has no use for more, and each of many sessions would have its own
    )
    return onnx.backend(
        "onnxruntime",
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider",
        lambda model: onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        ),
        dtypes=("float32", "float64", "mixed_float16", "float16"),
    )
