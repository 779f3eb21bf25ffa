"""Faulty specimens: one mistake each, from the history of real projects.

The suite must catch every one of them. The first line of a docstring is the sentence that explains
the mistake to users. ``history`` names the issues and pull requests that report it, ``caught_by``
the requirements that must catch it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bn_spec.case.arrays import take_apart
from bn_spec.case.config import State
from bn_spec.case.dtypes import Array
from bn_spec.specimens.catalogue import faulty
from bn_spec.specimens.kernel import Kernel, across
from bn_spec.specimens.sound import Textbook

# Construction and state


@faulty(
    "weight-uniform",
    fault="initial-values",
    history=("pytorch/pytorch#12259", "keras-team/keras#1861"),
    caught_by=("CFG-01",),
)
class WeightUniform(Kernel):
    """weight is initialised with random numbers in [0, 1) instead of ones."""

    def built(self) -> State:
        fresh = super().built()
        if fresh.weight is None:
            return fresh
        uniform = np.random.default_rng(0).random(len(fresh.weight))
        return replace(fresh, weight=uniform.astype(fresh.weight.dtype))


@faulty(
    "tensors-swapped",
    fault="param-stat-aliasing",
    history=("hasktorch/hasktorch#626",),
    caught_by=("CFG-02", "CFG-03", "CFG-08"),
)
class TensorsSwapped(Kernel):
    """weight and bias, and running_mean and running_var, are passed in the wrong order."""

    def store(self, state: State) -> None:
        super().store(
            State(
                state.bias,
                state.weight,
                state.running_var,
                state.running_mean,
                state.num_batches_tracked,
            )
        )


@faulty(
    "counter-one-dimensional",
    fault="state-nbt",
    history=("tinygrad/tinygrad#6195", "shaltielshmid/TorchSharp.PyBridge#13"),
    caught_by=("CFG-04",),
)
class CounterOneDimensional(Kernel):
    """num_batches_tracked is a float32 array of shape (1,) instead of an int64 scalar."""

    def state(self) -> State:
        state = super().state()
        if state.num_batches_tracked is None:
            return state
        counter = state.num_batches_tracked.reshape(1).astype(np.float32)
        return replace(state, num_batches_tracked=counter)


@faulty(
    "affine-off-materialised",
    fault="affine-none-path",
    history=("microsoft/DirectML#369",),
    caught_by=("CFG-05",),
)
class AffineOffMaterialised(Kernel):
    """weight and bias exist as empty tensors although affine=False."""

    def state(self) -> State:
        state = super().state()
        if state.weight is not None:
            return state
        empty = np.empty(0, self.config.arithmetic.parameters.dtype)
        return replace(state, weight=empty, bias=empty)


@faulty(
    "tracking-off-ignored",
    fault="eval-notrack-uses-init-stats",
    history=("tinygrad/tinygrad#6211",),
    caught_by=("CFG-06", "EVL-06"),
)
class TrackingOffIgnored(Kernel):
    """Running statistics are kept and used in eval mode despite track_running_stats=False."""

    def store(self, state: State) -> None:
        tracking = replace(self.config, track_running_stats=True)
        fresh = Kernel(tracking, None).state().tensors()
        super().store(State(**(fresh | state.tensors())))


@faulty(
    "defaults-of-another-framework",
    fault="momentum-default",
    history=("NervanaSystems/ngraph-onnx#142", "andreped/GradientAccumulator#61"),
    caught_by=("CFG-07",),
)
class OtherDefaults(Kernel):
    """eps defaults to 1e-3 instead of 1e-5, and momentum to 0.01 instead of 0.1."""

    def inverse_std(self, var: Array) -> Array:
        eps = self.config.departures().get("eps", 1e-3)
        return np.asarray(1 / np.sqrt(var + var.dtype.type(eps)))

    def factor(self) -> float:
        return super().factor() if "momentum" in self.config.departures() else 0.01


@faulty(
    "counter-lost-on-load",
    fault="state-nbt",
    history=("pytorch/pytorch#110361", "NVIDIA/apex#380"),
    caught_by=("CFG-08",),
)
class CounterLostOnLoad(Kernel):
    """num_batches_tracked becomes zero when the layer is built from a state."""

    def loaded(self, state: State) -> State:
        return replace(super().loaded(state), num_batches_tracked=self.built().num_batches_tracked)


@faulty(
    "reset-forgets-statistics",
    fault="reset-scope",
    history=("torch/nn#434",),
    caught_by=("CFG-09", "CFG-10", "STA-09"),
)
class ResetForgetsStatistics(Kernel):
    """running_mean and running_var keep their values in a reset."""

    def reset_running_stats(self) -> None:
        self.num_batches_tracked = self.built().num_batches_tracked


# Normalisation


@faulty(
    "normalised-by-unbiased-variance",
    fault="norm-formula",
    history=("pytorch/pytorch#60528",),
    caught_by=("TRN-01", "TRN-07", "MET-06"),
)
class UnbiasedNormalisation(Kernel):
    """The output is normalised by the unbiased variance of the batch.

    Only running_var takes the unbiased variance.
    """

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        if not self.uses_batch_statistics():
            return super().normalise(x, mean, s.astype(x.dtype))
        n = x.size // x.shape[1]
        var = 1 / s**2 - self.config.eps
        unbiased = 1 / np.sqrt(var * n / (n - 1) + self.config.eps)
        return super().normalise(x, mean, unbiased.astype(x.dtype))


@faulty(
    "variance-squared",
    fault="norm-formula",
    history=("jax-ml/jax#442",),
    caught_by=("TRN-01", "EVL-01", "MET-11"),
)
class VarianceSquared(Kernel):
    """The output is divided by (var + eps)² instead of sqrt(var + eps)."""

    def inverse_std(self, var: Array) -> Array:
        return np.asarray(1 / (var + var.dtype.type(self.config.eps)) ** 2)


@faulty(
    "eps-outside-root",
    fault="eps-placement",
    history=("Tencent/ncnn#311", "keras-team/keras#8726"),
    caught_by=("TRN-09", "TRN-01", "EVL-01"),
)
class EpsOutsideRoot(Kernel):
    """eps is added to the standard deviation instead of the variance."""

    def inverse_std(self, var: Array) -> Array:
        return np.asarray(1 / (np.sqrt(var) + var.dtype.type(self.config.eps)))


@faulty(
    "eps-ignored",
    fault="eps-ignored",
    history=("Xilinx/finn-base#21",),
    caught_by=("TRN-09", "TRN-01", "EVL-01", "MET-05"),
)
class EpsIgnored(Kernel):
    """eps is always 1e-5, whatever value the layer is built with."""

    def inverse_std(self, var: Array) -> Array:
        return np.asarray(1 / np.sqrt(var + var.dtype.type(1e-5)))


@faulty(
    "eps-clamped",
    fault="eps-clamped",
    history=("tensorflow/tensorflow#37768",),
    caught_by=("TRN-09",),
)
class EpsClamped(Kernel):
    """An eps below 1.001e-5 is raised to 1.001e-5.

    TensorFlow has this minimum because cuDNN refused smaller values.
    """

    def inverse_std(self, var: Array) -> Array:
        return np.asarray(1 / np.sqrt(var + var.dtype.type(max(self.config.eps, 1.001e-5))))


@faulty(
    "affine-ignored",
    fault="affine-ignored",
    history=("kakaobrain/trident#123",),
    caught_by=("TRN-02", "EVL-01", "MET-07"),
)
class AffineIgnored(Kernel):
    """weight and bias have no effect."""

    def affine(self, x_hat: Array) -> Array:
        return x_hat


@faulty(
    "bias-ignored",
    fault="affine-partial",
    history=("apache/tvm#14857", "tensorflow/tfjs-layers#104"),
    caught_by=("TRN-02", "EVL-01", "MET-10", "MET-07"),
)
class BiasIgnored(Kernel):
    """weight is applied, but bias is not."""

    def affine(self, x_hat: Array) -> Array:
        return x_hat if self.weight is None else x_hat * across(self.weight)


@faulty(
    "normalised-by-running-statistics",
    fault="running-not-blended",
    history=("patrick-kidger/equinox#659",),
    caught_by=("TRN-03", "EVL-07"),
)
class NormalisedByRunning(Kernel):
    """The output in training mode is normalised by the updated running statistics.

    Training must normalise by the statistics of the batch.
    """

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        if self.running_mean is None or self.running_var is None:
            return super().normalise(x, mean, s)
        return super().normalise(x, self.running_mean, self.inverse_std(self.running_var))


@faulty(
    "parameters-share-statistics",
    fault="param-stat-aliasing",
    history=("microsoft/onnxruntime#29790",),
    caught_by=("TRN-02", "TRN-06"),
)
class ParametersShareStatistics(Kernel):
    """Equal tensors share memory: an update of running_var overwrites an equal weight.

    weight takes the memory of running_var, and bias that of running_mean, if both pairs are equal.
    """

    def store(self, state: State) -> None:
        super().store(state)
        if (
            self.weight is None
            or self.bias is None
            or self.running_mean is None
            or self.running_var is None
        ):
            return
        if np.array_equal(self.weight, self.running_var) and np.array_equal(
            self.bias, self.running_mean
        ):
            self.weight, self.bias = self.running_var, self.running_mean


@faulty(
    "affine-off-rescaled",
    fault="affine-none-path",
    history=("pytorch/pytorch#84962",),
    caught_by=("TRN-01", "TRN-08"),
)
class AffineOffRescaled(Kernel):
    """The output of a layer without weight and bias is scaled by 0.86.

    Without them, the output is x̂ itself.
    """

    def affine(self, x_hat: Array) -> Array:
        if self.weight is not None:
            return super().affine(x_hat)
        return np.asarray(x_hat * x_hat.dtype.type(0.86))


@faulty(
    "needs-running-statistics",
    fault="affine-none-path",
    history=("pytorch/pytorch#40147", "NVIDIA/apex#1071"),
    caught_by=("TRN-08",),
)
class NeedsRunningStatistics(Kernel):
    """Running statistics are dereferenced in training even if the layer has none."""

    def tracks(self) -> bool:
        if self.running_mean is None:
            raise TypeError("'NoneType' object is not subscriptable")
        return super().tracks()


# Reductions


@faulty(
    "mean-per-sample",
    fault="reduction-axes",
    history=("apache/tvm#18609",),
    caught_by=("TRN-01", "RUN-01", "SHP-01", "MET-01"),
)
class MeanPerSample(Kernel):
    """Statistics are taken over (H, W) of the first sample instead of (N, H, W)."""

    def rows(self, x: Array) -> Array:
        sample = x[:1]
        # A sample with one value per channel would have no unbiased variance.
        return super().rows(sample if sample.size > x.shape[1] else x)


@faulty(
    "channel-axis-is-height",
    fault="channel-index-arith",
    history=("intel/ipex-llm#2981",),
    caught_by=("TRN-01", "RUN-01", "SHP-01"),
)
class ChannelAxisIsHeight(Kernel):
    """Statistics are taken along the wrong axes, as if (N, C, H, W) were (N, H, C, W)."""

    def rows(self, x: Array) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, h, c, w).transpose(2, 0, 1, 3).reshape(c, -1)


@faulty(
    "channels-share-mean",
    fault="channel-index-arith",
    history=("microsoft/onnxruntime#24404",),
    caught_by=("TRN-04", "RUN-01", "MET-03"),
)
class ChannelsShareMean(Kernel):
    """Every channel but the first uses the mean of the channel before it."""

    def mean(self, rows: Array) -> Array:
        mean = super().mean(rows)
        return np.concatenate([mean[:1], mean[:-1]])


@faulty(
    "tail-dropped",
    fault="tail-elements-dropped",
    history=("ROCm/MIOpen#916", "ROCm/MIOpen#1109"),
    caught_by=("SHP-02",),
)
class TailDropped(Kernel):
    """Values after the 256th of each sample and channel are not summed."""

    def rows(self, x: Array) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, c, h * w)[..., :256].transpose(1, 0, 2).reshape(c, -1)


@faulty(
    "channel-tail-dropped",
    fault="tail-elements-dropped",
    history=("NVIDIA/apex#1768",),
    caught_by=("SHP-03",),
)
class ChannelTailDropped(Kernel):
    """Channels after the last full block of 64 take the statistics of the first channels.

    Layers with at most 64 channels are right.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, var = super().moments(rows)
        tail = len(mean) % 64
        if len(mean) > 64 and tail:
            mean[-tail:] = mean[:tail]
            var[-tail:] = var[:tail]
        return mean, var


@faulty(
    "row-pitch-ignored",
    fault="layout-forward-view",
    history=("pytorch/pytorch#133520",),
    caught_by=("TRN-01", "EVL-01", "LAY-01"),
)
class RowPitchIgnored(Kernel):
    """Contiguous rows are read as if they followed each other without gaps."""

    def forward(self, x: Array) -> Array:
        rows_are_contiguous = x.ndim == 4 and x.strides[3] == x.itemsize
        return super().forward(_as_if_contiguous(x) if rows_are_contiguous else x)


@faulty(
    "strides-ignored",
    fault="layout-forward-view",
    history=("pytorch/pytorch#63392",),
    caught_by=("TRN-01", "EVL-01", "LAY-01"),
)
class StridesIgnored(Kernel):
    """The input is read as if it were contiguous."""

    def forward(self, x: Array) -> Array:
        return super().forward(_as_if_contiguous(x) if x.ndim == 4 else x)


@faulty(
    "channels-last-misread-in-eval",
    fault="layout-forward",
    history=("pytorch/pytorch#62594",),
    caught_by=("EVL-01", "LAY-01"),
)
class ChannelsLastMisreadInEval(Kernel):
    """The memory of an NHWC input is read in NCHW order in eval mode."""

    def forward(self, x: Array) -> Array:
        if self.uses_batch_statistics() or x.ndim != 4:
            return super().forward(x)
        memory = x.transpose(0, 2, 3, 1)
        if not memory.flags.c_contiguous:
            return super().forward(x)
        y = super().forward(memory.reshape(x.shape))
        return y.reshape(memory.shape).transpose(0, 3, 1, 2)


def _as_if_contiguous(x: Array) -> Array:
    """Return the first elements in the memory of an array, in its shape, whatever its strides."""
    return take_apart(x).flat[: x.size].reshape(x.shape)


@faulty(
    "unclamped-textbook-variance",
    fault="stat-onepass-cancellation",
    history=("google/flax#1491", "tensorflow/tensorflow#3290", "keras-team/keras#18795"),
    caught_by=("RUN-09", "RUN-10", "TRN-01", "NUM-01"),
)
class UnclampedTextbook(Textbook):
    """The variance is E[x²] − E[x]² and can be negative."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        return mean, self.mean(rows * rows) - mean * mean


@faulty(
    "sums-in-half-precision",
    fault="lowprec-accumulation",
    history=("microsoft/tensorflow-directml-plugin#321",),
    caught_by=("TRN-01", "RUN-01"),
)
class SumsInHalf(Kernel):
    """Sums are accumulated in half precision."""

    def total(self, rows: Array) -> Array:
        return super().total(rows.astype(np.float16)).astype(rows.dtype)


# Running statistics


@faulty(
    "runvar-bias",
    fault="runvar-bias",
    history=("tenstorrent/tt-metal#55438", "tinygrad/tinygrad#807", "ml-explore/mlx#3817"),
    caught_by=("RUN-03", "RUN-02", "RUN-06", "MET-13"),
)
class BiasedRunningVar(Kernel):
    """running_var is updated with the biased variance of the batch."""

    def estimated_var(self, var: Array, n: int) -> Array:
        return var


@faulty(
    "bessel-on-mean",
    fault="runvar-bias",
    history=("chainer/chainer#332",),
    caught_by=("RUN-01", "RUN-06", "RUN-10"),
)
class BesselOnMean(Kernel):
    """running_mean is updated with the batch mean times n / (n − 1)."""

    def estimated_mean(self, mean: Array, n: int) -> Array:
        return mean * (n / (n - 1))


@faulty(
    "momentum-inverted",
    fault="momentum-inverted",
    history=(
        "PaddlePaddle/Paddle#51120",
        "Oneflow-Inc/oneflow#6055",
        "deeplearning4j/deeplearning4j#5068",
    ),
    caught_by=("RUN-01", "RUN-02", "RUN-05", "RUN-06", "MET-12"),
)
class MomentumInverted(Kernel):
    """momentum weighs the old value instead of the new one."""

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return m * old + (1 - m) * new


@faulty(
    "momentum-none-is-default",
    fault="momentum-none",
    history=("mapillary/inplace_abn#130",),
    caught_by=("RUN-04",),
)
class MomentumNoneIsDefault(Kernel):
    """momentum=None is treated as 0.1.

    momentum=None stands for a cumulative mean, whose momentum is 1 / num_batches_tracked.
    """

    def factor(self) -> float:
        return 0.1 if self.config.momentum is None else self.config.momentum


@faulty(
    "old-value-lost",
    fault="running-not-blended",
    history=("microsoft/onnxruntime#6946",),
    caught_by=("RUN-01", "RUN-02", "RUN-05", "RUN-11"),
)
class OldValueLost(Kernel):
    """Running statistics are replaced by those of the batch, whatever the momentum."""

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return new


@faulty(
    "old-value-zeroed",
    fault="running-old-value-lost",
    history=("ROCm/tensorflow-upstream#1143", "microsoft/onnxruntime#19742"),
    caught_by=("RUN-01", "RUN-02", "RUN-05", "RUN-11"),
)
class OldValueZeroed(Kernel):
    """Running statistics are set to zero before those of the batch are blended in."""

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return super().blend(0 * old, new, m)


@faulty(
    "running-var-not-updated",
    fault="running-not-updated",
    history=("keras-team/keras-core#339",),
    caught_by=("RUN-02", "RUN-06"),
)
class RunningVarNotUpdated(Kernel):
    """running_mean is updated, but running_var is not."""

    def estimated_var(self, var: Array, n: int) -> Array:
        assert self.running_var is not None
        return self.running_var


@faulty(
    "double-update",
    fault="double-update",
    history=(
        "pytorch/pytorch#96136",
        "pytorch/pytorch#62471",
        "pfnet-research/chainer-compiler#98",
    ),
    caught_by=("RUN-01", "RUN-07", "RUN-11"),
)
class DoubleUpdate(Kernel):
    """Running statistics and the counter are updated twice by each training forward."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        super().track(mean, var, n)
        super().track(mean, var, n)


@faulty(
    "eps-leaks-into-running-var",
    fault="eps-leaks-into-running-var",
    history=("nntrainer/nntrainer#677", "chainer/chainer#4505"),
    caught_by=("RUN-08", "RUN-02"),
)
class EpsLeaksIntoRunningVar(Kernel):
    """running_var is updated with var + eps instead of var.

    Eval mode then adds eps a second time.
    """

    def estimated_var(self, var: Array, n: int) -> Array:
        return super().estimated_var(var + var.dtype.type(self.config.eps), n)


@faulty(
    "counter-not-incremented",
    fault="state-nbt",
    history=("Oneflow-Inc/oneflow#7440",),
    caught_by=("RUN-07", "RUN-04"),
)
class CounterNotIncremented(Kernel):
    """num_batches_tracked is never incremented."""

    def count(self) -> None:
        pass

    def factor(self) -> float:
        # Without a count, a cumulative mean would divide by zero.
        return super().factor() if self.batches() else 0.1


# Eval mode


@faulty(
    "eval-uses-batch-statistics",
    fault="eval-uses-batch-stats",
    history=("wkcn/mobula#2", "NVIDIA/caffe#279"),
    caught_by=("EVL-01", "EVL-02", "MET-08", "MET-09"),
)
class EvalUsesBatchStatistics(Kernel):
    """Batch statistics normalise the output in eval mode."""

    def uses_batch_statistics(self) -> bool:
        return True

    def check(self, x: Array) -> None:
        # In eval mode a single value is no misuse: it must not be refused.
        if self.training or x.size > x.shape[1]:
            super().check(x)


@faulty(
    "updates-in-eval",
    fault="updates-when-frozen",
    history=("rwth-i6/returnn#1625", "keras-team/keras#6570"),
    caught_by=("EVL-04",),
)
class UpdatesInEval(Kernel):
    """Running statistics are updated by an eval forward."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        if not self.training and self.running_mean is not None and x.size > x.shape[1]:
            self.track(*self.moments(self.rows(x)), x.size // x.shape[1])
        return y


@faulty(
    "eval-changes-parameters",
    fault="updates-when-frozen",
    history=("PaddlePaddle/Paddle-Lite#79",),
    caught_by=("EVL-03", "EVL-04"),
)
class EvalChangesParameters(Kernel):
    """weight is multiplied by 1 / sqrt(running_var + eps), in place, by each eval forward."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        if not self.training and self.weight is not None and self.running_var is not None:
            self.weight[...] = self.weight * self.inverse_std(self.widened(self.running_var))
        return y


@faulty(
    "stale-statistics",
    fault="value-of-another-step",
    history=("ooples/AiDotNet.Tensors#722",),
    caught_by=("EVL-07",),
)
class StaleStatistics(Kernel):
    """The statistics of the first eval forward are kept for all later ones.

    Training in between has no effect on them.
    """

    kept: tuple[Array, Array] | None = None

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        if not self.uses_batch_statistics():
            self.kept = self.kept or (mean.copy(), s)
            mean, s = self.kept
        return super().normalise(x, mean, s)


@faulty(
    "mode-latched",
    fault="eval-uses-batch-stats",
    history=("apache/tvm#19574", "tracel-ai/burn#2642"),
    caught_by=("EVL-07", "STA-09"),
)
class ModeLatched(Kernel):
    """The mode of the first forward holds for all later forwards."""

    latched: bool | None = None

    def uses_batch_statistics(self) -> bool:
        if self.latched is None:
            self.latched = super().uses_batch_statistics()
        return self.latched


# Shapes, types, memory and misuse


@faulty(
    "output-widened", fault="mixed-dtype", history=("pytorch/pytorch#88929",), caught_by=("TRN-05",)
)
class OutputWidened(Kernel):
    """The output has another dtype: float64 for float32 inputs, float32 for all others."""

    def forward(self, x: Array) -> Array:
        dtype = np.float64 if x.dtype == np.float32 else np.float32
        return super().forward(x).astype(dtype)


@faulty(
    "input-overwritten",
    fault="input-mutation",
    history=("flagos-ai/FlagGems#6332", "PaddlePaddle/Paddle#21065"),
    caught_by=("TRN-06",),
)
class InputOverwritten(Kernel):
    """The output is written over the input."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        x[...] = y
        return y


@faulty(
    "two-values-refused",
    fault="n1-bessel",
    history=("pytorch/pytorch#2961",),
    caught_by=("TRN-07",),
)
class TwoValuesRefused(Kernel):
    """A training batch of one sample is refused, however large its planes are.

    n / (n − 1) needs two values per channel, not two samples.
    """

    def check(self, x: Array) -> None:
        super().check(x)
        if self.training and len(x) == 1:
            raise ValueError("expected more than 1 sample")


@faulty(
    "eval-refuses-single-value",
    fault="n1-bessel",
    history=("pytorch/pytorch#2961",),
    caught_by=("EVL-05",),
)
class EvalRefusesSingleValue(Kernel):
    """A single value per channel is refused in eval mode too.

    Eval mode computes no statistics of the batch, so that one value is enough.
    """

    def check(self, x: Array) -> None:
        super().check(x)
        if x.size == x.shape[1]:
            raise ValueError("expected more than 1 value per channel")


@faulty(
    "single-value-accepted",
    fault="n1-bessel",
    history=("pytorch/pytorch#1381", "FluxML/Flux.jl#2716", "ROCm/rocm-libraries#3030"),
    caught_by=("ERR-01", "ERR-04"),
)
class SingleValueAccepted(Kernel):
    """A single value per channel is accepted, and the unbiased variance divides by zero."""

    def check(self, x: Array) -> None:
        well_shaped = x.ndim == 4 and x.shape[1] == self.config.num_features
        if not well_shaped or x.size != x.shape[1]:
            super().check(x)

    def estimated_var(self, var: Array, n: int) -> Array:
        return super().estimated_var(var, n) if n > 1 else var * np.nan


@faulty(
    "rank-unchecked",
    fault="validation-missing",
    history=("pytorch/pytorch#105458",),
    caught_by=("ERR-02", "ERR-04"),
)
class RankUnchecked(Kernel):
    """An input that is not 4-D is resized to four dimensions instead of refused."""

    def forward(self, x: Array) -> Array:
        if x.ndim != 4:
            x = np.resize(x, (2, self.config.num_features, 1, 1))
        return super().forward(x)


@faulty(
    "channels-unchecked",
    fault="validation-missing",
    history=("pytorch/pytorch#185864",),
    caught_by=("ERR-03", "ERR-04"),
)
class ChannelsUnchecked(Kernel):
    """An input with a wrong number of channels is cut or repeated to fit."""

    def forward(self, x: Array) -> Array:
        if x.ndim == 4 and x.shape[1] != self.config.num_features:
            x = np.resize(x, (*x.shape[:1], self.config.num_features, *x.shape[2:]))
        return super().forward(x)


@faulty(
    "refused-but-counted",
    fault="refusal-not-atomic",
    history=("pytorch/pytorch#6445",),
    caught_by=("ERR-04",),
)
class RefusedButCounted(Kernel):
    """A training forward counts its batch before it checks the input."""

    def check(self, x: Array) -> None:
        if self.tracks():
            self.count()
        super().check(x)

    def track(self, mean: Array, var: Array, n: int) -> None:
        counted = self.num_batches_tracked  # by check
        super().track(mean, var, n)
        self.num_batches_tracked = counted
