"""oneDNN's layout: an all-bfloat16 layer reads its weight and bias as float32.

``mkldnn_batch_norm`` (aten/src/ATen/native/mkldnn/Normalization.cpp) hands weight and bias over as
they lie in memory. oneDNN reads them as float32, and beyond their end. A layer of a million
channels ends in a segmentation fault.
"""

import torch

x = torch.arange(8.0).reshape(2, 2, 1, 2).bfloat16()
module = torch.nn.BatchNorm2d(2).bfloat16().eval()
print("expected", module(x).flatten().tolist())
print("got     ", module(x.to_mkldnn()).to_dense().flatten().tolist())
