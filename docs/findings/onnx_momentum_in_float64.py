"""onnx's ReferenceEvaluator rounds 1 − momentum to float32 for float64 data.

So the weights of the old and the new value do not add up to 1, and a running mean of ones drifts
from 1.
"""

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

names = ["X", "scale", "B", "input_mean", "input_var"]
results = ["Y", "running_mean", "running_var"]
inputs, outputs = (
    [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in n]
    for n in (names, results)
)
node = helper.make_node("BatchNormalization", names, results, training_mode=1, momentum=0.001)
graph = helper.make_graph([node], "training", inputs, outputs)
evaluator = ReferenceEvaluator(
    helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
)

ones, zeros = np.ones(1), np.zeros(1)
x = np.ones((2, 1, 1, 1))
running_mean = evaluator.run(None, dict(zip(names, (x, ones, zeros, ones, ones), strict=True)))[1]
print("running_mean: expected 1.0 to 16 digits, got", running_mean[0])
