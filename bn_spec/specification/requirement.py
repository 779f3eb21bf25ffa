"""The numbered specification, as a table.

The normative semantics are those of ``torch.nn.BatchNorm2d`` (its documentation, and its behaviour
where that is silent), with Ioffe & Szegedy 2015 for the formula. Each requirement is judged by
exactly one property in the suite, and each property judges exactly one requirement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from bn_spec.errors import ConfigError, allowed

PAPER = "Ioffe & Szegedy 2015"
BOUNDS = "bn_spec.oracle.bounds"
TORCH = "torch.nn.BatchNorm2d"

SPECIFICATION = "0.6"
"""Version of this table; it moves when a requirement is added, removed or changes its meaning."""

CHAPTERS = MappingProxyType(
    {
        "CFG": "construction",
        "TRN": "training forward",
        "RUN": "running statistics",
        "EVL": "eval forward",
        "GRD": "gradients",
        "STA": "state and histories",
        "LAY": "memory",
        "DTY": "dtypes of the state",
        "SHP": "shapes",
        "SPV": "special values",
        "ERR": "misuse",
        "NUM": "accuracy",
        "MET": "laws",
        "DET": "determinism",
        "FLD": "folding into a convolution",
    }
)


LEVELS = ("core", "training", "gradients", "module", "layout", "numerics")
"""What a backend can be good for, from building a layer to the last bits."""


@dataclass(frozen=True)
class Requirement:
    """One sentence of the specification.

    ``level`` is one of :data:`LEVELS`; ``needs`` names the capability flags, joined by "and",
    without which a backend does not claim it (empty: every backend does). ``convention`` is the
    field of :class:`bn_spec.case.dialect.Dialect` that decides what the sentence says, in PyTorch's
    terms, of other dialects.
    """

    id: str
    sentence: str
    level: str
    source: str
    needs: str = ""
    convention: str = ""

    @property
    def chapter(self) -> str:
        """The key of :data:`CHAPTERS` under which the requirement stands."""
        return self.id.partition("-")[0]


REQUIREMENTS: Mapping[str, Requirement] = MappingProxyType(
    {
        r.id: r
        for r in (
            Requirement(
                "CFG-01",
                "weight is built as ones of shape (C,) in the layer's dtype",
                "core",
                TORCH,
            ),
            Requirement(
                "CFG-02", "bias is built as zeros of shape (C,) in the layer's dtype", "core", TORCH
            ),
            Requirement(
                "CFG-03",
                "running_mean is built as zeros, running_var as ones, both of shape (C,) in the layer's dtype",
                "core",
                TORCH,
            ),
            Requirement(
                "CFG-04", "num_batches_tracked is built as the int64 scalar 0", "module", TORCH
            ),
            Requirement(
                "CFG-05",
                "with affine=False there are no weight and bias",
                "core",
                TORCH,
                "affine_off",
            ),
            Requirement(
                "CFG-06",
                "with track_running_stats=False there are no running statistics and no counter",
                "core",
                TORCH,
                "tracking_off",
            ),
            Requirement(
                "CFG-07",
                "by default eps is 1e-5, momentum is 0.1, and the layer is affine and tracks statistics",
                "module",
                TORCH,
            ),
            Requirement(
                "CFG-08", "a layer built with a given state holds that state", "module", TORCH
            ),
            Requirement(
                "CFG-09",
                "reset_running_stats sets running_mean to 0, running_var to 1 and the counter to 0, and nothing else",
                "module",
                TORCH,
            ),
            Requirement(
                "CFG-10",
                "reset_parameters sets weight to 1 and bias to 0, and resets the running statistics",
                "module",
                TORCH,
            ),
            Requirement(
                "TRN-01",
                "the training output is (x − mean) / sqrt(var + eps) with the biased variance of the batch",
                "training",
                f"{PAPER}, algorithm 1",
                "affine_off",
                convention="training_output",
            ),
            Requirement(
                "TRN-02",
                "weight scales and bias shifts each channel of the output, also where weight is zero or negative",
                "training",
                f"{PAPER}, algorithm 1",
            ),
            Requirement(
                "TRN-03",
                "the training output does not depend on the running statistics",
                "training",
                f"{PAPER}, algorithm 1",
                "normalises_by_batch",
            ),
            Requirement(
                "TRN-04",
                "the training output of a channel does not depend on the data of other channels",
                "training",
                f"{PAPER}, section 3.2",
            ),
            Requirement(
                "TRN-05", "the output has the shape and the dtype of the input", "core", TORCH
            ),
            Requirement(
                "TRN-06",
                "a training forward leaves its input, weight and bias bitwise unchanged",
                "core",
                TORCH,
                convention="mixed_output",
            ),
            Requirement(
                "TRN-07",
                "two values per channel suffice for a training forward, in one sample or in two",
                "training",
                TORCH,
            ),
            Requirement(
                "TRN-08",
                "without tracking, the training output is normalised by the statistics of the batch all the same",
                "training",
                TORCH,
                "tracking_off",
            ),
            Requirement(
                "TRN-09",
                "eps is added to the variance, inside the root, whatever its size relative to the variance",
                "training",
                f"{PAPER}, algorithm 1",
            ),
            Requirement(
                "TRN-10",
                "a single value per channel, in a dialect that answers it, gives the bias, and a variance of 0",
                "training",
                f"{PAPER}, algorithm 1",
                "answers_single_values",
            ),
            Requirement(
                "RUN-01",
                "running_mean becomes (1 − momentum) · running_mean + momentum · mean of the batch",
                "training",
                TORCH,
                convention="momentum_weighs",
            ),
            Requirement(
                "RUN-02",
                "running_var becomes (1 − momentum) · running_var + momentum · variance of the batch",
                "training",
                TORCH,
            ),
            Requirement(
                "RUN-03",
                "running_var is updated with the unbiased variance of the batch",
                "training",
                f"{TORCH}; {PAPER}, section 3.1",
                convention="running_var",
            ),
            Requirement(
                "RUN-04",
                "with momentum None the running statistics are the cumulative mean over all batches, of any size",
                "training",
                TORCH,
                "cumulative_momentum",
            ),
            Requirement(
                "RUN-05",
                "with momentum 0 the running statistics stay as they are, bit for bit",
                "training",
                TORCH,
                "momentum_zero",
            ),
            Requirement(
                "RUN-06",
                "with momentum 1 the running statistics are those of the last batch",
                "training",
                TORCH,
            ),
            Requirement(
                "RUN-07",
                "each training forward increments num_batches_tracked by one",
                "module",
                TORCH,
            ),
            Requirement(
                "RUN-08",
                "the running statistics do not depend on weight, bias and eps",
                "training",
                f"{PAPER}, algorithm 2",
            ),
            Requirement(
                "RUN-09", "running_var never becomes negative", "training", f"{PAPER}, algorithm 2"
            ),
            Requirement(
                "RUN-10",
                "a channel of equal values has its value as mean and variance 0",
                "training",
                f"{PAPER}, algorithm 1",
            ),
            Requirement(
                "RUN-11",
                "each of several training forwards updates the running statistics once, by itself",
                "training",
                TORCH,
            ),
            Requirement(
                "EVL-01",
                "the eval output is (x − running_mean) / sqrt(running_var + eps) · weight + bias",
                "core",
                f"{PAPER}, algorithm 2",
                "inference",
            ),
            Requirement(
                "EVL-02",
                "in eval mode the output for a sample does not depend on the other samples of the batch",
                "core",
                f"{PAPER}, section 3.1",
                "inference",
            ),
            Requirement(
                "EVL-03",
                "the same eval forward twice gives the same bits",
                "core",
                TORCH,
                "inference",
            ),
            Requirement(
                "EVL-04",
                "an eval forward leaves input, parameters, running statistics and counter bitwise unchanged",
                "core",
                TORCH,
                "inference",
            ),
            Requirement(
                "EVL-05",
                "in eval mode a single value per channel is allowed",
                "core",
                TORCH,
                "inference",
            ),
            Requirement(
                "EVL-06",
                "without tracking, the eval output is normalised by the statistics of the batch",
                "module",
                TORCH,
                "tracking_off and inference",
            ),
            Requirement(
                "EVL-07",
                "eval after training uses the running statistics as they are then; training after eval, the batch's",
                "module",
                TORCH,
                "inference",
            ),
            Requirement(
                "GRD-01",
                "the training gradient of the input is weight (dy − mean(dy) − x̂ mean(dy x̂)) / sqrt(var + eps)",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-02",
                "the gradient of the weight in training is the sum of dy x̂ over each channel",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-03",
                "the gradient of the bias in training is the sum of dy over each channel",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-04",
                "in eval mode dx is weight s dy and dweight the sum of dy x̂, with the running statistics",
                "gradients",
                f"{TORCH}; soumith/cudnn.torch#244",
                "gradients and inference",
            ),
            Requirement(
                "GRD-05",
                "each gradient has the shape and dtype of its tensor",
                "gradients",
                TORCH,
                "gradients",
            ),
            Requirement(
                "GRD-06",
                "with affine=False the weight counts as 1, and parameters have no gradient",
                "gradients",
                f"{TORCH}; apache/mxnet#1061",
                "gradients and affine_off",
            ),
            Requirement(
                "GRD-07",
                "with track_running_stats=False batch statistics are differentiated in eval mode too",
                "gradients",
                f"{TORCH}; Oneflow-Inc/oneflow#5665",
                "gradients and tracking_off and inference",
            ),
            Requirement(
                "GRD-08",
                "any subset of input, weight and bias can require a gradient; the rest have none",
                "gradients",
                "torch.autograd; PaddlePaddle/Paddle#47634",
                "gradients",
            ),
            Requirement(
                "GRD-09",
                "a dy of zeros gives gradients of zeros",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-10",
                "gradients are linear in dy",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-11",
                "in training dx sums to zero over each channel, and dx x̂ to what eps leaves of it",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-12",
                "gradients do not depend on the bias",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "GRD-13",
                "a second backward of a forward gives the same gradients, not their sum",
                "gradients",
                "torch.autograd.grad; apache/mxnet#18492",
                "gradients",
            ),
            Requirement(
                "GRD-14",
                "a backward is that of its own forward, also after another forward",
                "gradients",
                "torch.autograd",
                "gradients",
            ),
            Requirement(
                "GRD-15",
                "the backward of an eval forward uses its running statistics, even if they have moved since",
                "gradients",
                "torch.autograd",
                "gradients and inference",
            ),
            Requirement(
                "GRD-16",
                "a backward leaves input, dy, parameters, running statistics and the counter as they are",
                "gradients",
                "torch.autograd",
                "gradients and inference",
            ),
            Requirement(
                "GRD-17",
                "no gradient flows through running statistics",
                "gradients",
                TORCH,
                "gradients and inference",
            ),
            Requirement(
                "GRD-18",
                "gradients are right around the block sizes of kernels",
                "gradients",
                "NVIDIA/apex#1768; ROCm/MIOpen#916",
                "gradients",
            ),
            Requirement(
                "GRD-19",
                "a forward that records for a backward gives what one gives that does not",
                "gradients",
                "torch.no_grad",
                "gradients and inference",
            ),
            Requirement(
                "GRD-20",
                "finite data give finite gradients, also of constant channels and weights of zero",
                "gradients",
                f"{BOUNDS}; apache/mxnet#960",
                "gradients and inference",
            ),
            Requirement(
                "GRD-21",
                "gradients do not depend on the memory layouts of input and dy",
                "gradients",
                "torch.nn.BatchNorm2d",
                "gradients and inference",
            ),
            Requirement(
                "GRD-22",
                "the gradient of an input in NCHW or NHWC order is in the same order",
                "gradients",
                "torch.autograd",
                "gradients and gradient_layout and inference",
            ),
            Requirement(
                "GRD-23",
                "the second derivatives in training are those of the formulas, in the form of their tensors",
                "gradients",
                f"{PAPER}, section 3, differentiated; pytorch/pytorch#186779",
                "gradients and double_backward",
            ),
            Requirement(
                "GRD-24",
                "the second derivatives in eval mode hold the running statistics constant",
                "gradients",
                f"{TORCH}; pytorch/pytorch#2277",
                "gradients and double_backward and inference",
            ),
            Requirement(
                "GRD-25",
                "gradients of data far from zero are as accurate as claimed",
                "gradients",
                f"{BOUNDS}; pytorch/pytorch#175189",
                "gradients",
            ),
            Requirement(
                "GRD-26",
                "gradients over thousands of values are as accurate as claimed",
                "gradients",
                f"{BOUNDS}; tensorflow/tensorflow#118701",
                "gradients",
            ),
            Requirement(
                "GRD-27",
                "the gradients of a batch without samples or pixels are as empty, or zeros",
                "gradients",
                "torch.autograd; pytorch/pytorch#12013",
                "gradients and empty_batch and inference",
            ),
            Requirement(
                "STA-01",
                "a checkpoint has each tensor of the state by its name, bit for bit, and nothing else",
                "module",
                f"{TORCH}; mapillary/inplace_abn#130",
                "checkpoints",
            ),
            Requirement(
                "STA-02",
                "loading a checkpoint brings back every tensor, num_batches_tracked among them",
                "module",
                f"{TORCH}; pytorch/pytorch#110361",
                "checkpoints",
            ),
            Requirement(
                "STA-03",
                "a new layer that loads a checkpoint goes on as the old one would have",
                "module",
                f"{TORCH}; pytorch/pytorch#43774",
                "checkpoints and inference",
            ),
            Requirement(
                "STA-04",
                "loading some tensors leaves the others as they are, and leaves out what the layer does not have",
                "module",
                f"{TORCH}; Oneflow-Inc/oneflow#8723",
                "checkpoints",
            ),
            Requirement(
                "STA-05",
                "a checkpoint stays as it is, whatever the layer that took it or loaded it does next",
                "module",
                "torch.nn.Module.load_state_dict",
                "checkpoints",
            ),
            Requirement(
                "STA-06",
                "an eps that is set on a live layer counts from the next forward on, and for its gradients",
                "module",
                TORCH,
                "live_attributes",
            ),
            Requirement(
                "STA-07",
                "a momentum that is set on a live layer counts from the next training forward on",
                "module",
                TORCH,
                "live_attributes",
            ),
            Requirement(
                "STA-08",
                "a change of mode changes no tensor",
                "module",
                "torch.nn.Module.train",
                "inference",
            ),
            Requirement(
                "STA-09",
                "after any history, a step gives what it gives from that state",
                "module",
                f"{TORCH}; patrick-kidger/equinox#659",
            ),
            Requirement(
                "STA-10",
                "running statistics that nobody looks at are, after many batches, those of the recurrence",
                "module",
                f"{BOUNDS}; tinygrad/tinygrad#17206",
            ),
            Requirement(
                "STA-11",
                "loading copies: what was handed over stays as it is, whatever the layer does next",
                "module",
                "torch.nn.Module.load_state_dict",
                "checkpoints",
            ),
            Requirement(
                "LAY-01",
                "output and running statistics do not depend on the memory layout of the input",
                "layout",
                f"{TORCH}; pytorch/pytorch#63392",
            ),
            Requirement(
                "LAY-02",
                "an input of stride 0 counts as if its elements were written out",
                "layout",
                "torch.Tensor.expand",
            ),
            Requirement(
                "LAY-03",
                "the stride of an axis of length 1 means nothing",
                "layout",
                f"{TORCH}; pytorch/pytorch#64100",
            ),
            Requirement(
                "LAY-04",
                "weight, bias and running statistics may lie in memory with gaps",
                "layout",
                f"{TORCH}; pytorch/pytorch#33867",
                "strided_state",
            ),
            Requirement(
                "LAY-05",
                "nothing is written around the elements of a tensor",
                "layout",
                f"{TORCH}; flagos-ai/FlagGems#6332",
            ),
            Requirement(
                "LAY-06",
                "no result lies in the memory of what was handed over",
                "layout",
                TORCH,
            ),
            Requirement(
                "LAY-07",
                "what a call has returned stays as it is, whatever calls follow",
                "layout",
                TORCH,
            ),
            Requirement(
                "LAY-08",
                "the output for an input in NCHW or NHWC order is in the same order",
                "layout",
                f"{TORCH}; pytorch/pytorch#107199",
                "output_layout",
            ),
            Requirement(
                "DTY-01",
                "every tensor of the state keeps its shape and dtype through any step",
                "core",
                f"{TORCH}; tinygrad/tinygrad#6195",
            ),
            Requirement(
                "DTY-02",
                "with parameters in float32, running_var holds what is beyond the largest float16",
                "core",
                f"{TORCH}; pytorch/pytorch#154887",
            ),
            Requirement(
                "DTY-03",
                "the output in eval mode has the shape and the dtype of the input",
                "core",
                TORCH,
                "inference",
                convention="mixed_output",
            ),
            Requirement(
                "SHP-01",
                "output and running statistics are right for any sizes of N, C, H and W, 1 in any place included",
                "core",
                TORCH,
            ),
            Requirement(
                "SHP-02",
                "output and running statistics are right for reductions just below, at and above block sizes",
                "core",
                "ROCm/MIOpen#916",
            ),
            Requirement(
                "SHP-03",
                "output and running statistics are right for channel counts just below, at and above block sizes",
                "core",
                "NVIDIA/apex#1768",
            ),
            Requirement(
                "SHP-04",
                "batches of more than 65535 samples, and as many channels, are like others",
                "core",
                f"{TORCH}; pytorch/pytorch#16998",
            ),
            Requirement(
                "SHP-05",
                "output and running statistics are right for the layers of well-known networks",
                "core",
                "He et al. 2016; Sandler et al. 2018; Tan & Le 2019; Ronneberger et al. 2015; Huang et al. 2017",
            ),
            Requirement(
                "SHP-06",
                "a batch without samples or pixels gives an output as empty, and moves no running statistics",
                "module",
                f"{TORCH}; pytorch/pytorch#12013",
                "empty_batch",
            ),
            Requirement(
                "SHP-07",
                "batches of more than 2³¹ elements are like others",
                "core",
                f"{TORCH}; apache/mxnet#19065",
            ),
            Requirement(
                "SPV-01",
                "NaN or infinity in one channel leaves the training output of the others as it is, bit for bit",
                "training",
                f"{PAPER}, section 3.2",
                "deterministic and normalises_by_batch",
            ),
            Requirement(
                "SPV-02",
                "NaN in a channel makes its training output and running statistics NaN; infinity, not finite",
                "training",
                f"{PAPER}, algorithm 1; pytorch/pytorch#115500",
            ),
            Requirement(
                "SPV-03",
                "NaN or infinity in one channel leaves the running statistics of the others as they should be",
                "training",
                f"{PAPER}, section 3.2",
            ),
            Requirement(
                "SPV-04",
                "in eval mode NaN or infinity in one element leaves all others as they are, bit for bit",
                "core",
                f"{PAPER}, algorithm 2",
                "deterministic and inference",
            ),
            Requirement(
                "SPV-05",
                "in eval mode NaN gives NaN, and infinity what is not finite",
                "core",
                f"{PAPER}, algorithm 2",
                "inference",
            ),
            Requirement(
                "SPV-06",
                "NaN or infinity in dy leaves other channels, in eval mode other elements, as they are, bit for bit",
                "gradients",
                f"{PAPER}, section 3",
                "gradients and deterministic",
            ),
            Requirement(
                "SPV-07",
                "NaN in dy makes gradients of its channel NaN, in eval mode its element of dx; infinity, not finite",
                "gradients",
                f"{PAPER}, section 3",
                "gradients",
            ),
            Requirement(
                "SPV-08",
                "a negative zero counts as zero, in training and in eval mode",
                "core",
                "IEEE 754-2019",
                "inference",
            ),
            Requirement(
                "ERR-01",
                "batch statistics of a single value per channel are refused with a ValueError, in eval mode too",
                "module",
                f"{TORCH}; pytorch/pytorch#1381",
                "refuses_single_values",
            ),
            Requirement(
                "ERR-02",
                "an input that is not 4-dimensional is refused with a ValueError",
                "module",
                TORCH,
                "input_checks",
            ),
            Requirement(
                "ERR-03",
                "an input whose channels do not fit the layer's tensors is refused with a ValueError or RuntimeError",
                "module",
                TORCH,
                "input_checks",
            ),
            Requirement(
                "ERR-04",
                "a refused input leaves every tensor of the state bitwise unchanged",
                "module",
                TORCH,
                "input_checks",
            ),
            Requirement(
                "ERR-05",
                "too few tensors, too many or some of another shape are refused, when they are loaded, with an error",
                "module",
                "torch.nn.Module.load_state_dict",
                "checkpoints",
            ),
            Requirement(
                "ERR-06",
                "tensors that are refused leave every tensor of the state bitwise unchanged",
                "module",
                "torch.nn.Module.load_state_dict",
                "checkpoints",
            ),
            Requirement(
                "ERR-07",
                "a gradient of another shape than the output is refused with a ValueError or RuntimeError",
                "gradients",
                "torch.autograd.grad",
                "gradients and input_checks",
            ),
            Requirement(
                "ERR-08",
                "after what was refused, a layer goes on as any other in its state",
                "module",
                TORCH,
                "input_checks",
            ),
            Requirement(
                "NUM-01",
                "however far the mean lies from zero, errors grow no faster than the claimed grade allows",
                "numerics",
                f"{BOUNDS}; Chan & Lewis 1979",
            ),
            Requirement(
                "NUM-02",
                "where every partial sum is exact in any order, the results are a few roundings from the exact ones",
                "numerics",
                f"{BOUNDS}; uxlfoundation/oneDNN, benchdnn",
            ),
            Requirement(
                "NUM-03",
                "a channel far from zero, or of less variance than eps or none, costs itself and others no accuracy",
                "numerics",
                f"{BOUNDS}; pytorch/pytorch#5410",
            ),
            Requirement(
                "NUM-04",
                "where weight · x̂ and bias cancel, the output is as accurate as its terms",
                "numerics",
                BOUNDS,
            ),
            Requirement(
                "NUM-05",
                "within the range of the accumulation no scale of data or weight costs accuracy",
                "numerics",
                BOUNDS,
            ),
            Requirement(
                "NUM-06",
                "finite data whose squares stay in range give finite results, whatever eps",
                "numerics",
                f"{BOUNDS}; google/flax#1491",
            ),
            Requirement(
                "NUM-07",
                "subnormal inputs, outputs and statistics are kept",
                "numerics",
                "IEEE 754-2019",
                "subnormals",
            ),
            Requirement(
                "NUM-08",
                "the errors of output and running_mean are as often of either sign",
                "numerics",
                "bn_spec.oracle.bias; TOSA conformance",
                "unbiased",
            ),
            Requirement(
                "NUM-09",
                "the errors of running_var are as often of either sign",
                "numerics",
                "bn_spec.oracle.bias; TOSA conformance",
                "unbiased",
            ),
            Requirement(
                "NUM-10",
                "over thousands of values errors grow no faster than the claimed summation allows",
                "numerics",
                f"{BOUNDS}; ROCm/MIOpen#3900",
            ),
            Requirement(
                "NUM-11",
                "more values per channel than float16 can count or sum are no different from fewer",
                "numerics",
                f"{BOUNDS}; pytorch/pytorch#126525",
            ),
            Requirement(
                "NUM-12",
                "a call leaves the floating-point mode of the process as it found it",
                "numerics",
                "IEEE 754-2019; pytorch/pytorch#88805",
            ),
            Requirement(
                "NUM-13",
                "where squares of finite data overflow and their sums do not, nothing becomes NaN",
                "numerics",
                f"{BOUNDS}; pytorch/pytorch#44350",
                "overflow_safe",
            ),
            Requirement(
                "MET-01",
                "samples in another order give the same outputs in that order",
                "training",
                f"{PAPER}, algorithm 1",
                "normalises_by_batch",
            ),
            Requirement(
                "MET-02",
                "pixels in another order give the same outputs in that order",
                "training",
                f"{PAPER}, section 3.2",
                "normalises_by_batch",
            ),
            Requirement(
                "MET-03",
                "channels in another order, parameters with them, give the same outputs in that order",
                "training",
                f"{PAPER}, section 3.2",
                "checkpoints and normalises_by_batch",
            ),
            Requirement(
                "MET-04",
                "a shift of the input leaves the training output as it is",
                "training",
                f"{PAPER}, algorithm 1",
                "normalises_by_batch",
            ),
            Requirement(
                "MET-05",
                "a scale, with eps scaled by its square, leaves the training output as it is",
                "training",
                f"{PAPER}, algorithm 1",
                "live_attributes and normalises_by_batch",
            ),
            Requirement(
                "MET-06",
                "a batch beside itself gives its training output twice",
                "training",
                f"{PAPER}, algorithm 1",
                "normalises_by_batch",
            ),
            Requirement(
                "MET-07",
                "weight and bias scale and shift what the layer gives with weight 1 and bias 0",
                "training",
                f"{PAPER}, algorithm 1",
                "checkpoints and normalises_by_batch",
            ),
            Requirement(
                "MET-08",
                "in eval mode the output is linear in the input, but for a constant",
                "core",
                f"{PAPER}, algorithm 2",
                "inference",
            ),
            Requirement(
                "MET-09",
                "in eval mode two batches as one give what they give apart",
                "core",
                f"{PAPER}, algorithm 2",
                "inference",
            ),
            Requirement(
                "MET-10",
                "the mean of the training output of a channel is its bias",
                "training",
                f"{PAPER}, algorithm 1",
                "normalises_by_batch",
            ),
            Requirement(
                "MET-11",
                "channels of two values, as often, have the outputs and statistics that can be worked out by hand",
                "training",
                f"{PAPER}, algorithms 1 and 2",
            ),
            Requirement(
                "MET-12",
                "the same batch again moves the running statistics as much less as momentum or the counter says",
                "training",
                TORCH,
            ),
            Requirement(
                "MET-13",
                "a batch beside itself has the same mean, and a variance as much smaller as n / (n − 1) is",
                "training",
                f"{PAPER}, algorithm 2",
                convention="running_var",
            ),
            Requirement(
                "DET-01",
                "the same case gives the same bits, on another layer too",
                "core",
                "torch.use_deterministic_algorithms",
                "deterministic",
            ),
            Requirement(
                "DET-02",
                "layers that are driven from several threads at a time give what each gives alone",
                "core",
                "torch.nn.parallel",
                "threads",
            ),
            Requirement(
                "FLD-01",
                "folded, a layer scales a convolution's weight by weight / sqrt(running_var + eps), in its dtype",
                "module",
                f"{PAPER}, algorithm 2; pytorch/pytorch#45474",
                "folding and inference",
            ),
            Requirement(
                "FLD-02",
                "folded into a convolution, the layer maps its bias as it maps an input",
                "module",
                f"{PAPER}, algorithm 2; apache/tvm#3216",
                "folding and inference",
            ),
        )
    }
)


def requirements_matching(pattern: str) -> list[Requirement]:
    """Return those whose id matches a glob; raise :class:`ConfigError`, naming the chapters, if none does."""
    found = [
        requirement for name, requirement in REQUIREMENTS.items() if fnmatchcase(name, pattern)
    ]
    if not found:
        chapters = ", ".join(f"{chapter}-*" for chapter in CHAPTERS)
        raise ConfigError(f"{pattern!r} matches no requirement; chapters: {chapters}")
    return found


def requirement_named(id: str) -> Requirement:
    """Return the requirement called ``id``; raise :class:`ConfigError` naming the nearest one otherwise."""
    try:
        return REQUIREMENTS[id]
    except KeyError:
        raise ConfigError(allowed("requirement", id, REQUIREMENTS)) from None
