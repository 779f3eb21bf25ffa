"""tinygrad: float16 deviations beyond 256 have an infinite variance, and the output is 0.

BatchNorm.calc_stats squares them in the dtype of the data. Sums are in float32, but those of the
gradients are rounded to float16 before they are divided by the number of values: beyond 65504 they
are infinite. CPU, tinygrad 0.14.0.
"""

from tinygrad import Context, Tensor, dtypes, nn

layer = nn.BatchNorm(1, momentum=1.0)
for name in ("weight", "bias", "running_mean", "running_var"):
    setattr(layer, name, getattr(layer, name).cast(dtypes.float16).contiguous().realize())
with Context(TRAINING=1):
    y = layer(Tensor([0.0, 600.0], dtype=dtypes.float16).reshape(2, 1, 1, 1))
    print("output: expected [-1.0, 1.0], got", y.flatten().tolist())
    x = Tensor.arange(130).cast(dtypes.float16).reshape(130, 1, 1, 1).contiguous().realize()
    (gradient,) = layer(x).gradient(x, gradient=x)
print("largest gradient: expected about 0, got", gradient.abs().max().float().item())
