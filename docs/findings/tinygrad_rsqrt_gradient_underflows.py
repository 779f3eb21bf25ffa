"""tinygrad: the gradient of the input loses digits where a variance exceeds 2**84, in float32.

The gradient of Tensor.rsqrt goes through 1 / sqrt(v)³, which is subnormal there. CPU, tinygrad
0.14.0.
"""

from tinygrad import Context, Tensor, nn

v = Tensor([1e30]).realize()
(gradient,) = v.rsqrt().gradient(v, gradient=Tensor([1e13]))
print(f"rsqrt: expected -5e-33, got {gradient.item():.4g}")

x = Tensor([6.575733e11, -1.7389871e12, 1.2161018e14, -2.5232752e12, -8.3390595e14, 1.6999302e13])
x = x.reshape(2, 3, 1, 1).realize()
with Context(TRAINING=1):
    y = nn.BatchNorm(3)(x)
(gradient,) = y.gradient(x, gradient=Tensor([0.0, 1, 2, 1, 2, 3]).reshape(2, 3, 1, 1))
print(f"BatchNorm of two values per channel: expected 0, got {gradient[0, 1].item():.4g}")
print("(terms of 1.2e-15 cancel: their roundings explain an error of 1e-20 at most)")
