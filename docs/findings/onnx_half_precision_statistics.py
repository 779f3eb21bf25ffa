"""onnx's ReferenceEvaluator reduces half-precision data in half precision.

The specification of BatchNormalization demands float: "The computation of ReduceMean and ReduceVar
uses float to avoid overflow for float16 inputs."
"""

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def running_statistics(x: np.ndarray, element: int) -> list[np.ndarray]:
    """Return the statistics of one batch: momentum, the weight of the old value, is 0."""
    names = ["X", "scale", "B", "input_mean", "input_var"]
    results = ["Y", "running_mean", "running_var"]
    node = helper.make_node("BatchNormalization", names, results, training_mode=1, momentum=0.0)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, element, None) for name in n] for n in (names, results)
    )
    graph = helper.make_graph([node], "training", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    ones, zeros = np.ones(1, x.dtype), np.zeros(1, x.dtype)
    feeds = dict(zip(names, (x, ones, zeros, zeros, ones), strict=True))
    return list(ReferenceEvaluator(model).run(None, feeds))


x = np.array([0, 200] * 4, np.float16).reshape(8, 1, 1, 1)
y, mean, var = running_statistics(x, TensorProto.FLOAT16)
print("running_var: expected 10000.0, got", var[0])  # inf
print("output: expected [-1.0, 1.0], got", y[:2].ravel().tolist())  # zeros

x = np.ones((1, 1, 10, 100), ml_dtypes.bfloat16)
y, mean, var = running_statistics(x, TensorProto.BFLOAT16)
print("running_mean of ones: expected 1.0, got", mean[0])  # 0.255859
