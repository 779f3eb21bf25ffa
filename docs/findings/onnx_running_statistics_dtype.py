"""onnx's ReferenceEvaluator returns running statistics in the dtype of X.

The operator returns them in the dtype of input_mean.
"""

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

names = ["X", "scale", "B", "input_mean", "input_var"]
results = ["Y", "running_mean", "running_var"]
elements = dict.fromkeys([*names, *results], TensorProto.FLOAT) | dict.fromkeys(
    "XY", TensorProto.FLOAT16
)
inputs, outputs = (
    [helper.make_tensor_value_info(name, elements[name], None) for name in n]
    for n in (names, results)
)
# The momentum weighs the old value: running statistics keep their values.
node = helper.make_node("BatchNormalization", names, results, training_mode=1, momentum=1.0)
graph = helper.make_graph([node], "training", inputs, outputs)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])

x = np.array([0, 1], np.float16).reshape(2, 1, 1, 1)
ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
feeds = dict(zip(names, (x, ones, zeros, zeros, 100000 * ones), strict=True))
running_var = ReferenceEvaluator(model).run(None, feeds)[2]
print(
    "running_var: expected 100000.0 in float32, got", running_var[0], "in", running_var.dtype
)  # inf in float16
