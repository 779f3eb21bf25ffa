"""PaddlePaddle: without weight and bias, a batch of other channels is taken in training; eval mode refuses it.

paddle/phi/kernels/cpu/batch_norm_kernel.cc compares the channels of x with running statistics in eval mode alone.
CPU, paddlepaddle 3.3.1.
"""

import paddle

for channels in (1, 3):
    layer = paddle.nn.BatchNorm2D(2, weight_attr=False, bias_attr=False, momentum=0.0)
    x = paddle.ones([4, channels, 1, 1])
    y = layer(x)
    print(
        f"2 channels expected, {channels} given: output of shape {y.shape}, running_mean {layer._mean.tolist()}"
    )
    layer.eval()
    try:
        layer(x)
    except ValueError as error:
        print("  in eval mode:", type(error).__name__)
