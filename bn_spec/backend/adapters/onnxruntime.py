"""ONNX Runtime: the operator BatchNormalization of its CPU provider, in sessions of one node."""

from __future__ import annotations

from bn_spec.backend.adapters import onnx
from bn_spec.backend.adapters.frameworks import framework
from bn_spec.backend.contract import Backend

with framework("onnxruntime", "onnxruntime"):
    import onnxruntime


def cpu() -> Backend:
    """Return the backend of inference sessions on the CPU.

    ONNX Runtime casts float16 to float32 and back. It has no bfloat16 for this operator.
    """
    options = onnxruntime.SessionOptions()
    # The operator does not use more than one thread, and each session would start its own.
    options.intra_op_num_threads = 1
    return onnx.backend(
        "onnxruntime",
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider",
        lambda model: onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        ),
        dtypes=("float32", "float64", "mixed_float16", "float16"),
    )
