"""torch.export: after ``run_decompositions``, the training backward is refused.

The graph calls ``_native_batch_norm_legit_functional``. Its derivative saves the running statistics
that it received, although training does not use them. Then the program updates them in place, and
autograd finds them changed.
"""

import torch

x = torch.arange(8.0).reshape(2, 2, 1, 2)
for decompose in (False, True):
    program = torch.export.export(torch.nn.BatchNorm2d(2), (x,))
    module = (program.run_decompositions() if decompose else program).module()
    y = module(x)
    print("running_mean:", module.running_mean.tolist())  # both update it
    try:
        y.pow(3).sum().backward()
        print("gradient of the weight:", module.weight.grad.tolist())
    except RuntimeError as error:
        print("expected the same gradient; got:", error)
