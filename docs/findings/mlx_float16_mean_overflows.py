"""MLX: if the sum of float16 data exceeds 65504, their mean is infinite and the output NaN.

mx.mean and mx.var round the sum to the dtype of the data before they divide it. CPU, mlx 0.32.4.
"""

import mlx.core as mx
from mlx import nn

layer = nn.BatchNorm(1, momentum=1.0)
layer.set_dtype(mx.float16)
y = layer(mx.full((700, 1, 1, 1), 100.0, dtype=mx.float16))
print("running_mean: expected 100, got", layer.running_mean.item())
print("output: expected 0, got", y[0].item())
