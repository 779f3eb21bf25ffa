"""PaddlePaddle: if only one of weight and bias requires a gradient, it gets none.

There is no error. The cause is the branches of d_scale && d_bias in
paddle/phi/kernels/cpu/batch_norm_grad_kernel.cc; PaddlePaddle/Paddle#47634 would refuse the call.
CPU, paddlepaddle 3.3.1.
"""

import paddle

layer = paddle.nn.BatchNorm2D(1)
for trains_weight in (True, False):
    layer.weight.stop_gradient = not trains_weight
    layer(paddle.to_tensor([0.0, 1, 5]).reshape([3, 1, 1, 1])).sum().backward()
    print("gradient of the bias: expected 3, got", layer.bias.grad)
    layer.clear_gradients(set_to_zero=False)
