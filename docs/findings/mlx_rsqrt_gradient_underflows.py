"""MLX: the gradient of the input loses digits where the variance exceeds 2**84, in float32.

The gradient of mx.rsqrt goes through 1 / sqrt(v) / v, which is subnormal there. CPU, mlx 0.32.4.
"""

import mlx.core as mx
from mlx import nn

v = 1e30
_, (gradient,) = mx.vjp(mx.rsqrt, [mx.array(v)], [mx.array(1e13)])
print(f"mx.rsqrt: expected {-0.5 * v**-1.5 * 1e13:.4g}, got {gradient.item():.4g}")

x = mx.array([-1.124953e13, 6.726486e13]).reshape(2, 1, 1, 1)
_, (gradient,) = mx.vjp(nn.BatchNorm(1), [x], [mx.array([0.0, 1.0]).reshape(2, 1, 1, 1)])
print(f"BatchNorm of two values: expected -2.8e-30, got {gradient[0].item():.4g}")
print("(terms of 1.3e-14 cancel: their roundings explain an error of 4e-20 at most)")
