"""oneDNN's layout: the gaps of a weight or bias in memory are read as numbers, and a backward writes past its end.

``mkldnn_batch_norm`` (aten/src/ATen/native/mkldnn/Normalization.cpp) takes the first C numbers in memory. In the
backward, the gradient of the weight gets the strides of the weight; with them ``mkldnn_to_dense``
(MKLDNNConversions.cpp) writes it into memory for C numbers, and only then asks whether they fit. Later, the process
may abort.
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
