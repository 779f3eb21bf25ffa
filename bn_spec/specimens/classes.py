"""The classes of faults in implementations of batch normalisation, with reports of each.

Every faulty specimen names one class. Most classes come from a collection of reports to the
trackers of real projects. The few classes of ``ours`` are for faults that fit no other class; there
may be no report of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class FaultClass:
    """One kind of fault.

    Attributes:
        name: Its name, which specimens refer to.
        family: The part of the operator that it concerns.
        sentence: What such a fault does to a number or to the state.
        trackers: Issues and pull requests (``owner/repository#number``) or commits
            (``owner/repository@commit``) that report, describe or repair the fault. For a class of
            ``ours``, they are the histories of its specimens.
        ours: Whether the class is not from the collection of reports.
        unexpressed: Why no specimen can have the fault, or an empty string.

    """

    name: str
    family: str
    sentence: str
    trackers: tuple[str, ...] = ()
    ours: bool = False
    unexpressed: str = ""


Row = tuple[str, str, str]
"""Name, sentence and trackers of a class; white space separates the trackers."""


def _family(family: str, *reported: Row, ours: tuple[Row, ...] = ()) -> list[FaultClass]:
    """Return the classes of a family: those of the collection, then those of ours."""
    classes = []
    for row in (*reported, *ours):
        name, sentence, trackers = row
        unexpressed = _UNEXPRESSED.get(name, "")
        classes.append(
            FaultClass(name, family, sentence, tuple(trackers.split()), row in ours, unexpressed)
        )
    return classes


_UNEXPRESSED = {
    "state-device": "A specimen keeps its state in NumPy arrays, which are always in host memory."
}

_STATISTICS = _family(
    "statistics",
    (
        "accumulation-precision",
        "A sum is taken value by value or in float32, with a larger error than the required "
        "pairwise or wider sum.",
        "ROCm/MIOpen#3900",
    ),
    (
        "channel-index-arith",
        "The index of an element is mapped to another channel, whose statistics the element then "
        "gets.",
        "intel/ipex-llm#2981 intel/ipex-llm#2978 Tencent/ncnn#331 microsoft/onnxruntime#24404",
    ),
    (
        "lowprec-accumulation",
        "A sum, or the count that divides it, is kept in the half precision of the data: above "
        "2048 it stagnates, above 65504 it overflows.",
        """
        pytorch/pytorch#147303 pytorch/pytorch#126525 microsoft/tensorflow-directml-plugin#321
        PaddlePaddle/Paddle#16545 PaddlePaddle/Paddle#16243 tensorflow/tensorflow#8535
        """,
    ),
    (
        "norm-formula",
        "The divisor of x − mean is not sqrt(var + eps) with the biased variance about the batch "
        "mean.",
        "jax-ml/jax#442 jax-ml/jax#443 pytorch/pytorch#60528",
    ),
    (
        "reduction-axes",
        "Statistics are taken over other axes than N, H and W, for example over each sample or "
        "each element alone.",
        "microsoft/onnxruntime#831 microsoft/onnxruntime#2092 apache/tvm#18609",
    ),
    (
        "stat-onepass-cancellation",
        "The variance is a difference of large numbers, such as E[x²] − E[x]²; its error grows "
        "with (mean/σ)² and can make it negative.",
        """
        shicai/MobileNet-Caffe#87 BVLC/caffe#3299 pytorch/pytorch#8283 google/flax#1491
        google-deepmind/dm-haiku@0551ea2e keras-team/keras#18795 ROCm/rocm-libraries#5013
        google/objax#182 ROCm/pytorch#657 ROCm/MIOpen#248 tensorflow/tensorflow#3290
        tensorflow/tensorflow#118701 tenstorrent/tt-metal#45968
        """,
    ),
    (
        "tail-elements-dropped",
        "The last elements or channels of a size that is no multiple of a block are left out, or "
        "others are counted instead.",
        """
        NVIDIA/apex#1768 ROCm/MIOpen#1109 ROCm/MIOpen#2024 ROCm/MIOpen#916 uxlfoundation/oneDNN#1725
        pytorch/pytorch#13765
        """,
    ),
    ours=(
        (
            "summation-order",
            "The order of a sum differs between calls, and so do the bits of its result.",
            "",
        ),
        (
            "rounding-direction",
            "An operation rounds to fewer bits than its format has, or always to the same side, so "
            "that errors do not average out.",
            """
            Tencent/ncnn#6903 kcat/openal-soft#148 llvm/llvm-project#57589
            tenstorrent/tt-metal#57408 tenstorrent/tt-metal#19882 tinygrad/tinygrad#11848
            Xilinx/finn#1667
            """,
        ),
    ),
)

_EPSILON = _family(
    "epsilon",
    (
        "eps-clamped",
        "A valid eps is raised to a minimum, or refused below it.",
        """
        chainer/chainer#5232 openvinotoolkit/openvino#5657 tensorflow/tensorflow#8090
        tensorflow/tensorflow#37768 pytorch/pytorch#1742 pytorch/pytorch#1623 pytorch/pytorch#173337
        pytorch/pytorch#175508 chr5tphr/zennit#234
        """,
    ),
    (
        "eps-ignored",
        "The eps of the layer has no effect: a constant or zero is used instead.",
        "Xilinx/finn-base#21 NervanaSystems/ngraph-onnx#142",
    ),
    (
        "eps-leaks-into-running-var",
        "running_var gains or loses eps, so that eval mode counts eps twice or not at all.",
        """
        chainer/chainer#4505 chainer/chainer#4517 facebookresearch/detectron2#3160
        keras-team/keras-contrib#287 nntrainer/nntrainer#677
        """,
    ),
    (
        "eps-placement",
        "The divisor is sqrt(var) + eps instead of sqrt(var + eps).",
        "AlexeyAB/darknet#5447 pjreddie/darknet#17 keras-team/keras#8726 Tencent/ncnn#311",
    ),
    ours=(
        (
            "attribute-precision",
            "eps or momentum is stored in another precision than documented.",
            "",
        ),
    ),
)

_RUNNING = _family(
    "running statistics",
    (
        "double-update",
        "One training forward enters the running statistics twice, for example because its "
        "backward repeats it.",
        """
        pfnet-research/chainer-compiler#98 pytorch/pytorch#96136 pytorch/pytorch#62471
        Tencent/YOLO-Master#262 gpleiss/efficient_densenet_pytorch#73
        """,
    ),
    (
        "momentum-default",
        "A layer built without a momentum has another one than 0.1.",
        "andreped/GradientAccumulator#61",
    ),
    (
        "momentum-inverted",
        "momentum and 1 − momentum are swapped, as between the conventions of two frameworks.",
        """
        bonlime/pytorch-tools#97 d2l-ai/d2l-en#2213 deeplearning4j/deeplearning4j#5068
        deeplearning4j/deeplearning4j#5086 Oneflow-Inc/oneflow#6055 microsoft/onnxscript#1289
        PaddlePaddle/Paddle#51120 Jermmy/pytorch-quantization-demo#17
        """,
    ),
    (
        "momentum-none",
        "With momentum=None, the new value does not get the weight 1 / num_batches_tracked, or the "
        "update fails.",
        "pytorch/pytorch#194504 pytorch/pytorch#194579",
    ),
    (
        "n1-bessel",
        "A single value per channel, for which n / (n − 1) does not exist, is accepted in "
        "training; or more values are refused.",
        """
        FluxML/Flux.jl#2716 FluxML/Flux.jl#1992 speedinghzl/pytorch-segmentation-toolbox#9
        ROCm/rocm-libraries#3030 tensorflow/tensorflow#34062 tensorflow/tensorflow#48845
        pytorch/pytorch#1381 pytorch/pytorch#2961
        """,
    ),
    (
        "param-stat-aliasing",
        "Among weight, bias and running statistics, one tensor takes the place or the memory of "
        "another.",
        """
        hasktorch/hasktorch#626 microsoft/onnxruntime#29790 microsoft/onnxruntime#29878
        tenstorrent/tt-metal#45578 tenstorrent/tt-metal#41127
        """,
    ),
    (
        "running-not-blended",
        "Training confuses batch and running statistics: the buffers become those of the batch, or "
        "the buffers normalise the output.",
        "patrick-kidger/equinox#659 patrick-kidger/equinox#675 microsoft/onnxruntime#6946",
    ),
    (
        "running-not-updated",
        "A training forward computes new running statistics but does not store them where later "
        "steps read them.",
        """
        NVIDIA/apex#233 paiml/aprender#2166 keras-team/keras-core#339 keras-team/keras-core#338
        ml-explore/mlx#1960 HomericIntelligence/Odyssey#5533 HomericIntelligence/Odyssey#5532
        microsoft/onnxruntime#6349 tinygrad/tinygrad#17206 pytorch/pytorch#33867
        pytorch/pytorch#38040 apache/tvm#18518
        """,
    ),
    (
        "running-old-value-lost",
        "The old running statistics are zero or missing when they are blended, so that only "
        "momentum · new is left.",
        "microsoft/onnxruntime#19742 ROCm/tensorflow-upstream#1143",
    ),
    (
        "runvar-bias",
        "The factor n / (n − 1) is missing from the update of running_var, or is applied where it "
        "does not belong.",
        """
        callummcdougall/ARENA_3.0#415 tracel-ai/burn@02c972d1 tracel-ai/burn#2642
        CanReader/FastNN#11 keras-team/keras#10443 keras-team/keras#8982 keras-team/keras#9028
        tensorflow/tensorflow#55545 ml-explore/mlx#3817 apache/mxnet#18751 apache/mxnet#21111
        apache/mxnet#14357 tinygrad/tinygrad#807 tenstorrent/tt-metal#55438 chainer/chainer#332
        """,
    ),
    (
        "update-tied-to-backward",
        "Whether a training forward is tracked depends on its backward, or on the gradients that "
        "will be asked for.",
        """
        facebookresearch/fairscale#1035 apache/mxnet#853 apache/mxnet#14357 apache/mxnet#18751
        apache/mxnet#21111 apache/mxnet#18673
        """,
    ),
    (
        "updates-when-frozen",
        "A forward in eval mode or of a frozen layer changes running statistics, counter or "
        "parameters.",
        """
        keras-team/keras#6570 keras-team/keras#9965 PaddlePaddle/Paddle-Lite#79 rwth-i6/returnn#1625
        pytorch/pytorch#20967 pytorch/pytorch#37823 pytorch/pytorch#38084
        """,
    ),
    ours=(
        (
            "initial-value-weighed",
            "The weight of an average's initial value is not removed where the dialect demands it, "
            "or is removed where it never entered.",
            "patrick-kidger/equinox#955",
        ),
    ),
)

_MODE = _family(
    "mode",
    (
        "eval-notrack-uses-init-stats",
        "A layer without tracking normalises by mean 0 and variance 1, or by statistics it keeps "
        "nevertheless, instead of by the batch.",
        "tinygrad/tinygrad@00dc250d tinygrad/tinygrad#6195 tinygrad/tinygrad#6211",
    ),
    (
        "eval-uses-batch-stats",
        "A layer in eval mode behaves as in training, because its mode is ignored, fixed or taken "
        "from elsewhere.",
        """
        wkcn/mobula#2 NVIDIA/caffe#279 pytorch/pytorch#56982 pytorch/pytorch#48988
        pytorch/pytorch#16793 pytorch/pytorch#30294 apache/tvm#19574 apache/tvm#17752
        apache/tvm#18609 apache/tvm#18703 apache/tvm#18704
        """,
    ),
)

_GRADIENT = _family(
    "gradient",
    (
        "grad-accumulates",
        "A gradient is added to that of an earlier backward instead of replacing it, or replaces "
        "it instead of being added.",
        """
        intel/ipex-llm#94 apache/mxnet#18377 apache/mxnet#18373 apache/mxnet#18492
        apache/mxnet#16297 apache/mxnet#18475 apache/mxnet#18499
        """,
    ),
    (
        "grad-affine-off",
        "The forward uses a weight of 1, but the backward multiplies by another weight that is "
        "stored.",
        "apache/mxnet#1061",
    ),
    (
        "grad-eval-mode",
        "The backward of an eval forward uses other statistics, or has terms for them, although "
        "mean and s are constants.",
        """
        soumith/cudnn.torch#244 apache/mxnet#960 apache/mxnet#9580 sony/nnabla#394
        PaddlePaddle/Paddle#71423 tensorflow/tensorflow#20407 tensorflow/tensorflow#12580
        pytorch/pytorch#586 torch/nn#768 pytorch/xla#913 pytorch/xla#3361 pytorch/pytorch#13402
        """,
    ),
    (
        "grad-higher-order",
        "First derivatives are right, but higher ones treat mean and s as constants in training, "
        "or as functions of x in eval mode.",
        """
        PaddlePaddle/Paddle#27549 pytorch/pytorch#196699 pytorch/pytorch#2277 pytorch/pytorch#2278
        pytorch/pytorch#186779 pytorch/pytorch#186256
        """,
    ),
    (
        "grad-illconditioned",
        "A gradient is a difference of terms that nearly cancel, as for a constant dy, and their "
        "rounding errors remain.",
        "pytorch/pytorch#82493",
    ),
    (
        "grad-mask",
        "If only some of input, weight and bias need a gradient, another gradient is returned, "
        "missing, wrong or an error.",
        """
        csarofeen/pytorch#657 PaddlePaddle/Paddle#21237 PaddlePaddle/Paddle#25686
        PaddlePaddle/Paddle#47634
        """,
    ),
    (
        "grad-missing",
        "An input that needs a gradient gets none.",
        "Oneflow-Inc/oneflow#5665",
    ),
    (
        "grad-missing-stat-terms",
        "In training, dx lacks all or part of mean(dy) and x̂ mean(dy x̂), the terms by which x "
        "moves the statistics.",
        "NVIDIA/apex#653 facebookresearch/CrypTen#143",
    ),
    ours=(
        (
            "grad-formula",
            "A gradient has another shape than its tensor, or a wrong factor: x or y for x̂, s for "
            "a variance.",
            "pytorch/pytorch#175189",
        ),
    ),
)

_LAYOUT = _family(
    "layout",
    (
        "layout-backward",
        "The backward reads x or dy, or writes dx, in another memory order than that of the "
        "tensor.",
        """
        ROCm/MIOpen#2385 pytorch/pytorch#156555 pytorch/pytorch#156867 pytorch/pytorch#175189
        pytorch/pytorch#181411 pytorch/pytorch#188371 PaddlePaddle/Paddle#21505
        PaddlePaddle/Paddle#37020 PaddlePaddle/Paddle#38497 PaddlePaddle/Paddle#54703
        PaddlePaddle/Paddle#54681 pytorch/pytorch#2000 pytorch/pytorch#1866 pytorch/pytorch#603
        """,
    ),
    (
        "layout-forward",
        "The forward mistakes the memory order of an input without gaps, such as NHWC for NCHW.",
        "pytorch/pytorch#62594 pytorch/pytorch#64100",
    ),
    (
        "layout-forward-view",
        "The forward ignores the offset or the strides of a view, such as a slice, an expansion or "
        "a permutation.",
        """
        pytorch/pytorch#63392 pytorch/pytorch#63224 pytorch/pytorch#133520 pytorch/pytorch#62967
        pytorch/pytorch#1246
        """,
    ),
    (
        "layout-output-format",
        "Values are right, but the output or dx has another memory order than the promised one.",
        "pytorch/pytorch#107199 pytorch/pytorch#192681 pytorch/pytorch#192668",
    ),
)

_SIZES = _family(
    "sizes",
    (
        "empty-batch",
        "A batch without elements leads to 0 / 0, which ends the process or enters statistics or "
        "gradients as NaN.",
        """
        pytorch/pytorch#40806 pytorch/pytorch#74944 pytorch/pytorch#12013 pytorch/pytorch#95324
        pytorch/pytorch#120803 pytorch/pytorch#120882
        """,
    ),
    (
        "int32-index-overflow",
        "An offset of 2³¹ elements or more overflows its integer, and the elements beyond are not "
        "reached.",
        "apache/mxnet#19065",
    ),
    (
        "size-limit",
        "Samples or channels beyond the largest grid of a device or the limit of a library are "
        "refused or left out.",
        """
        pytorch/pytorch#1059 soumith/cudnn.torch#318 apache/mxnet#4997 chainer/chainer#2414
        torch/cunn#298 microsoft/onnxruntime#7095 pytorch/pytorch#2917 pytorch/pytorch#19911
        pytorch/pytorch#16998
        """,
    ),
)

_DTYPE = _family(
    "dtype",
    (
        "mixed-dtype",
        "An output, a statistic, a parameter or an intermediate value with its own dtype gets "
        "another one.",
        """
        chainer/chainer#6323 cupy/cupy#2060 chainer/chainer#6484 pytorch/executorch#13586
        pytorch/pytorch#154887 Oneflow-Inc/oneflow#9381 microsoft/onnxruntime#11960
        tensorflow/tensorflow#55738 tinygrad/tinygrad#7025 pytorch/pytorch#61924
        pytorch/pytorch#61962 pytorch/pytorch#88929 pytorch/pytorch#156513 pytorch/pytorch#156498
        pytorch/pytorch#168800 pytorch/xla#8496
        """,
    ),
    (
        "nonfinite-poisoning",
        "A NaN or an infinity changes numbers that do not depend on it, or the update of other "
        "channels.",
        "pytorch/pytorch#115500",
    ),
    ours=(
        (
            "intermediate-range",
            "An intermediate value leaves the range of its format although the result would not, "
            "and is zero, infinite or NaN.",
            "PaddlePaddle/Paddle#16545 pytorch/pytorch#44350 pytorch/pytorch#19652",
        ),
        (
            "values-replaced",
            "Some values of x or dy, such as zero, large or non-finite ones, are mistaken for "
            "something else and replaced.",
            "",
        ),
    ),
)

_AFFINE = _family(
    "affine",
    (
        "affine-ignored",
        "The weight, or weight and bias, have no effect where they should scale and shift.",
        "alibaba/heterogeneity-aware-lowering-and-optimization#470 kakaobrain/trident#123",
    ),
    (
        "affine-none-path",
        "If weight and bias or the running statistics do not exist, the layer fails, invents them "
        "or scales differently.",
        """
        microsoft/DirectML#369 FluxML/Flux.jl#1810 pytorch/pytorch#84962 pytorch/pytorch#40147
        NVIDIA/apex#1071
        """,
    ),
    (
        "affine-partial",
        "Either weight or bias is applied, and the other is dropped or mistaken for the first.",
        """
        tensorflow/tensorflow#12865 tensorflow/tensorflow#11673 tensorflow/tfjs-layers#104
        apache/tvm#14857
        """,
    ),
)

_STATE = _family(
    "state",
    (
        "state-device",
        "Buffers stay on one device while the layer works on another.",
        "tracel-ai/burn#1167",
    ),
    (
        "state-nbt",
        "num_batches_tracked is no int64 scalar, does not count, or is lost or reset by a load, as "
        "may be tensors that a checkpoint lacks.",
        """
        NVIDIA/apex#380 mapillary/inplace_abn#130 Oneflow-Inc/oneflow#8723
        shaltielshmid/TorchSharp.PyBridge#13 pytorch/pytorch#110361 pytorch/pytorch#110850
        pytorch/pytorch#115285 pytorch/pytorch#8481 pytorch/pytorch#8430 tinygrad/tinygrad#6195
        Oneflow-Inc/oneflow#7440
        """,
    ),
    (
        "state-serialisation",
        "A checkpoint lacks state on which the output depends, so that a layer that loads it "
        "answers differently.",
        "pytorch/pytorch#70432 pytorch/pytorch#43774",
    ),
    ours=(
        (
            "initial-values",
            "A parameter or a buffer of a new layer differs from its constant, 0 or 1.",
            "pytorch/pytorch#12259 keras-team/keras#1861",
        ),
        (
            "reset-scope",
            "A reset or a switch of mode changes less of the state than it should, or more.",
            "torch/nn#434",
        ),
        (
            "value-of-another-step",
            "A step uses eps, momentum or statistics of an earlier or a later step.",
            "ooples/AiDotNet.Tensors#722 PaddlePaddle/Paddle-Lite#79",
        ),
    ),
)

_MUTATION = _family(
    "mutation",
    (
        "input-mutation",
        "A forward or a backward writes into a tensor that it must only read.",
        """
        flagos-ai/FlagGems#6332 flagos-ai/FlagGems#6435 flagos-ai/FlagGems#5828
        PaddlePaddle/Paddle#21065
        """,
    ),
    ours=(
        (
            "memory-shared",
            "Results of two calls, two layers, or a layer and its checkpoint share memory, so that "
            "one overwrites the other.",
            "pytorch/pytorch#586",
        ),
        (
            "out-of-bounds-write",
            "Memory in the gaps of a tensor or past its end is written.",
            "chainer/chainer#6323",
        ),
    ),
)

_ERRORS = _family(
    "errors",
    (
        "validation-missing",
        "A meaningless argument, such as a wrong rank, size, dtype or sign, is computed with "
        "instead of refused.",
        """
        ROCm/MIOpen#1441 pytorch/pytorch#188265 pytorch/pytorch#188243 pytorch/pytorch#127736
        mindspore-ai/mindspore#290 tensorflow/tensorflow#59399 tensorflow/tensorflow#59309
        pytorch/pytorch#106605 pytorch/pytorch#105458 pytorch/pytorch#185864 pytorch/pytorch#169208
        pytorch/pytorch#141203 pytorch/pytorch#166405 pytorch/pytorch#166756 apache/tvm#12590
        """,
    ),
    ours=(
        (
            "refusal-not-atomic",
            "A refused call has already changed the state.",
            "pytorch/pytorch#6445",
        ),
    ),
)

_FOLDING = _family(
    "folding",
    (
        "fold-conv-bn",
        "A convolution with the layer folded in does not compute what both compute in eval mode, "
        "or cannot be made.",
        """
        pytorch/pytorch#45474 pytorch/pytorch#184076 pytorch/pytorch#180995 apache/tvm#3216
        ultralytics/ultralytics#25364
        """,
    ),
)

FAULT_CLASSES: Mapping[str, FaultClass] = MappingProxyType(
    {
        fault.name: fault
        for family in (
            _STATISTICS,
            _EPSILON,
            _RUNNING,
            _MODE,
            _GRADIENT,
            _LAYOUT,
            _SIZES,
            _DTYPE,
            _AFFINE,
            _STATE,
            _MUTATION,
            _ERRORS,
            _FOLDING,
        )
        for fault in family
    }
)
"""All classes by name, family by family; in each family, the classes of ours come last."""
