"""PaddlePaddle: the backward of an empty batch raises if the input requires no gradient.

CPU, paddlepaddle 3.3.1.
"""

import paddle

layer = paddle.nn.BatchNorm2D(1)
for of_input in (True, False):
    x = paddle.zeros([0, 1, 2, 2])
    x.stop_gradient = not of_input
    try:
        layer(x).sum().backward()
        print("gradient of the bias:", layer.bias.grad.item())
    except ValueError as error:
        print("expected 0 again, got", str(error).strip().splitlines()[0])
