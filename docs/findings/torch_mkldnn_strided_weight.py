"""oneDNN's layout: a weight or bias with gaps in memory is read as if it had none.

``mkldnn_batch_norm`` (aten/src/ATen/native/mkldnn/Normalization.cpp) reads the first C numbers in
memory, gaps included. In the backward, the gradient of the weight gets the strides of the weight.
With these strides ``mkldnn_to_dense`` (MKLDNNConversions.cpp) writes the gradient into memory for C
numbers, and only then checks whether they fit. The process may abort later.
"""

import torch

x = torch.arange(8.0).reshape(2, 2, 1, 2)
module = torch.nn.BatchNorm2d(2).eval()
module.weight = torch.nn.Parameter(torch.tensor([1.0, 7.0, 1.0, 7.0])[::2])
print("expected", module(x).flatten().tolist())
print("got     ", module(x.to_mkldnn()).to_dense().flatten().tolist())
try:
    module.train()(x.to_mkldnn()).to_dense().sum().backward()
except RuntimeError as error:
    print("expected a gradient; got:", error)
