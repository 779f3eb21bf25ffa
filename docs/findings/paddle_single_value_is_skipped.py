"""PaddlePaddle: a training forward of a single value per channel returns its input.

It does not apply weight and bias. The cause is the branch of N * sample_size == 1 in
paddle/phi/kernels/cpu/batch_norm_kernel.cc; PaddlePaddle/Paddle#11445. CPU, paddlepaddle 3.3.1.
"""

import paddle

layer = paddle.nn.BatchNorm2D(1, momentum=0.5)
layer.weight.set_value(paddle.to_tensor([2.0]))
layer.bias.set_value(paddle.to_tensor([5.0]))
for n in (2, 1):
    x = paddle.full((n, 1, 1, 1), 3.0)
    x.stop_gradient = False
    y = layer(x)
    dx, _, dbias = paddle.grad([y], [x, layer.weight, layer.bias], [paddle.ones_like(y)])
    print(f"{n} equal values: output {y[0].item()} (expected the bias, 5)")
    print(f"  gradient of x {dx[0].item()} (expected 0), of the bias {dbias.item()} (expected {n})")
