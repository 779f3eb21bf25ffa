"""Keras on PyTorch: dx loses digits where the variance exceeds 1e25, in float32.

Keras normalises by tensor.rsqrt_ (keras/src/backend/torch/nn.py) and differentiates through it.
PyTorch's derivative is -1/2 * result**3 (tools/autograd/derivatives.yaml), which is subnormal
there. CPU, torch 2.13.0, Keras 3.15.1.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch

v = torch.tensor([1e30], requires_grad=True)
v.rsqrt().backward(torch.tensor([1e13]))
print(f"rsqrt: expected {-0.5 * 1e30**-1.5 * 1e13:.4g}, got {v.grad.item():.4g}")

x = torch.tensor([-1.124953e13, 6.726486e13]).reshape(2, 1, 1, 1).requires_grad_()
dy = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
keras.layers.BatchNormalization(axis=1)(x, training=True).backward(dy)
wide = x.detach().double().requires_grad_()
torch.nn.functional.batch_norm(wide, None, None, training=True, eps=1e-3).backward(dy.double())
expected, got = wide.grad[0].item(), x.grad[0].item()
print(f"BatchNormalization of two values: expected {expected:.3g}, got {got:.3g}")
print("(terms of 1.3e-14 cancel: their roundings explain an error of 4e-20 at most)")
