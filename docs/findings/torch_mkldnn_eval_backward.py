"""oneDNN's layout: ``mkldnn_batch_norm_backward`` refuses the backward of an eval forward."""

import torch

x = torch.arange(8.0).reshape(2, 2, 1, 2).to_mkldnn().requires_grad_()
y = torch.nn.BatchNorm2d(2).eval()(x).to_dense()
try:
    print(torch.autograd.grad(y.sum(), x)[0].to_dense())
except RuntimeError as error:
    print("expected gradients of 1 / sqrt(1 + eps); got:", error)
