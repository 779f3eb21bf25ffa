"""PaddlePaddle: without weight and bias, training accepts any number of channels.

Only in eval mode does paddle/phi/kernels/cpu/batch_norm_kernel.cc compare the channels of x with
the running statistics. CPU, paddlepaddle 3.3.1.
"""

import paddle

for channels in (1, 3):
    layer = paddle.nn.BatchNorm2D(2, weight_attr=False, bias_attr=False, momentum=0.0)
    x = paddle.ones([4, channels, 1, 1])
    y = layer(x)
    print(
        f"2 channels expected, {channels} handed over:"
        f" output of shape {y.shape}, running_mean {layer._mean.tolist()}"
    )
    layer.eval()
    try:
        layer(x)
    except ValueError as error:
        print("  in eval mode:", type(error).__name__)
