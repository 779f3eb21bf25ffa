"""PaddlePaddle: paddle.grad accepts a gradient of another shape than the output.

It compares no shapes. A smaller gradient is read beyond its end. CPU, paddlepaddle 3.3.1.
"""

import paddle

layer = paddle.nn.BatchNorm2D(1)
x = paddle.arange(4, dtype="float32").reshape([4, 1, 1, 1])
x.stop_gradient = False
y = layer(x)
for shape in ((1, 4, 1, 1), (3, 1, 1, 1), (1,)):
    (dx,) = paddle.grad([y], [x], [paddle.ones(shape)], retain_graph=True)
    print(
        f"dy of shape {shape} for an output of shape {y.shape}: expected an error, got",
        dx.flatten().tolist(),
    )
