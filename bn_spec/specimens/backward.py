"""Faulty specimens whose forward is right and whose backward is not.

As in :mod:`bn_spec.specimens.faulty`, the first line of a docstring explains the mistake,
``history`` names reports of it, and ``caught_by`` the requirements that must catch it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.case.arrays import Parts, put_together, take_apart
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.specimens.catalogue import faulty
from bn_spec.specimens.kernel import Kernel, Saved
from bn_spec.specimens.sound import ShiftedProducts

MIXED = ("mixed_float16", "mixed_bfloat16")
TWICE = {"double_backward": tuple(DTYPES)}

# Training and eval


@faulty(
    "eval-backward-of-training",
    fault="grad-eval-mode",
    history=("soumith/cudnn.torch#244", "pytorch/xla#913", "PaddlePaddle/Paddle#71423"),
    caught_by=("GRD-04",),
)
class EvalBackwardOfTraining(Kernel):
    """dx in eval mode has the terms of mean and variance, as in training."""

    def remember(self, saved: Saved) -> Saved:
        return replace(saved, constant=False)


@faulty(
    "eval-backward-of-stale-statistics",
    fault="grad-eval-mode",
    history=("pytorch/pytorch#586", "apache/mxnet#960", "torch/nn#768"),
    caught_by=("GRD-04", "GRD-20"),
)
class EvalBackwardOfStaleStatistics(Kernel):
    """The backward in eval mode uses the statistics of the last training forward.

    They are NaN if there was no training forward.
    """

    def __init__(self, config: Config, state: State | None) -> None:
        super().__init__(config, state)
        nothing = np.full(config.num_features, np.nan, config.arithmetic.accumulation.dtype)
        self.last = nothing, nothing

    def remember(self, saved: Saved) -> Saved:
        if not saved.constant:
            self.last = saved.mean, saved.s
        return replace(saved, mean=self.last[0], s=self.last[1])


@faulty(
    "mode-taken-at-backward",
    fault="grad-eval-mode",
    history=("apache/mxnet#9580",),
    caught_by=("GRD-15",),
)
class ModeTakenAtBackward(Kernel):
    """The backward follows the mode of the layer when it runs, not that of its forward."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        return super().backward(replace(saved, constant=not self.uses_batch_statistics()), dy)


@faulty(
    "running-statistics-by-reference",
    fault="grad-eval-mode",
    history=("pytorch/pytorch#13402",),
    caught_by=("GRD-15",),
)
class RunningStatisticsByReference(Kernel):
    """Running statistics are saved by reference, and later training changes them in place.

    The backward of an eval forward then uses statistics that its forward did not.
    """

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        if saved.constant and self.running_mean is not None and self.running_var is not None:
            mean = self.widened(self.running_mean)
            s = self.inverse_std(self.widened(self.running_var))
            saved = replace(saved, mean=mean, s=s)
        return super().backward(saved, dy)


@faulty(
    "running-statistics-differentiated",
    fault="grad-eval-mode",
    history=("tensorflow/tensorflow#20407",),
    caught_by=("GRD-17",),
)
class RunningStatisticsDifferentiated(Kernel):
    """A gradient flows through running_mean into an input that was just tracked."""

    tracked: Array | None = None

    def record(self, x: Array, wrt: tuple[str, ...]) -> tuple[Array, Saved]:
        recorded = super().record(x, wrt)
        if self.tracks():
            self.tracked = x
        return recorded

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        inner = super().projected(g, x_hat, dbias, dweight, saved)
        if not saved.constant or self.tracked is not saved.x:
            return inner
        leaked: Array = inner - self.factor() * (dbias / inner.dtype.type(g.shape[1]))[:, None]
        return leaked


@faulty(
    "no-gradient-without-tracking",
    fault="grad-missing",
    history=("Oneflow-Inc/oneflow#5665",),
    caught_by=("GRD-07",),
)
class NoGradientWithoutTracking(Kernel):
    """The input gets no gradient if track_running_stats=False."""

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        asked = super().asked(gradients, saved)
        return asked if self.running_mean is not None else asked._replace(input=None)


# Terms


@faulty(
    "mean-term-missing",
    fault="grad-missing-stat-terms",
    history=("facebookresearch/CrypTen#143",),
    caught_by=("GRD-01", "GRD-11"),
)
class MeanTermMissing(Kernel):
    """dx lacks the term mean(dy)."""

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        return super().projected(g, x_hat, 0 * dbias, dweight, saved)


@faulty(
    "variance-term-missing",
    fault="grad-missing-stat-terms",
    history=("facebookresearch/CrypTen#143",),
    caught_by=("GRD-01", "GRD-11"),
)
class VarianceTermMissing(Kernel):
    """dx lacks the term x̂ mean(dy x̂)."""

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        return super().projected(g, x_hat, dbias, 0 * dweight, saved)


@faulty(
    "statistics-detached",
    fault="grad-missing-stat-terms",
    history=("NVIDIA/apex#653", "facebookresearch/CrypTen#143"),
    caught_by=("GRD-01",),
)
class StatisticsDetached(Kernel):
    """dx is weight s dy in training too: mean and variance are treated as constants.

    The backward must differentiate mean and variance, because they are functions of x.
    """

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        return g


@faulty(
    "weight-missing-in-dx",
    fault="affine-ignored",
    history=("kakaobrain/trident#123",),
    caught_by=("GRD-01", "GRD-04"),
)
class WeightMissing(Kernel):
    """dx is not multiplied by the weight."""

    def scale(self, saved: Saved) -> Array:
        return saved.s


@faulty(
    "stored-weight-without-affine",
    fault="grad-affine-off",
    history=("apache/mxnet#1061",),
    caught_by=("GRD-06",),
)
class StoredWeightWithoutAffine(Kernel):
    """dx is multiplied by a stored weight although affine=False."""

    def scale(self, saved: Saved) -> Array:
        stored = 3  # any value but 1 shows the fault
        return super().scale(saved) if saved.weight is not None else saved.s * stored


@faulty(
    "inverse-std-taken-for-variance",
    fault="grad-formula",
    history=(),
    caught_by=("GRD-01", "GRD-02"),
)
class InverseStdTakenForVariance(Kernel):
    """The saved 1 / sqrt(var + eps) is used as a variance, and its inverse root as s."""

    def remember(self, saved: Saved) -> Saved:
        return replace(saved, s=self.inverse_std(saved.s))


@faulty(
    "eps-missing-in-backward",
    fault="eps-ignored",
    history=("tensorflow/tensorflow#37768",),
    caught_by=("GRD-20", "GRD-01"),
)
class EpsMissingInBackward(Kernel):
    """The backward divides by the std without eps, and by zero in constant channels."""

    def remember(self, saved: Saved) -> Saved:
        variance = np.maximum(saved.s.astype(np.float64) ** -2 - saved.eps, 0)
        # The variance recovered from s is inexact, but a constant channel must divide by zero.
        variance = np.where(saved.s == self.steepest(), 0, variance)
        return replace(saved, s=(1 / np.sqrt(variance)).astype(saved.s.dtype))

    def steepest(self) -> Any:
        """Return s of a channel with variance zero."""
        return self.inverse_std(np.zeros(1, self.config.arithmetic.accumulation.dtype))


@faulty("momentum-in-dx", fault="grad-missing-stat-terms", history=(), caught_by=("GRD-01",))
class MomentumInDx(Kernel):
    """The terms of mean and variance in dx are multiplied by momentum.

    They would be if the moving averages had normalised the batch.
    """

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        m = 1 if self.config.momentum is None else self.config.momentum
        return super().projected(g, x_hat, m * dbias, m * dweight, saved)


# Gradients of parameters


@faulty(
    "weight-gradient-of-raw-input",
    fault="grad-formula",
    history=("pytorch/pytorch#175189",),
    caught_by=("GRD-02", "GRD-25"),
)
class WeightGradientOfRawInput(Kernel):
    """The gradient of the weight is Σ dy x instead of Σ dy x̂.

    The two agree for every dy only in channels with mean 0 and s = 1.
    """

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        return self.total(g * self.rows(saved.x))


@faulty(
    "weight-gradient-of-output", fault="grad-formula", history=(), caught_by=("GRD-12", "GRD-02")
)
class WeightGradientOfOutput(Kernel):
    """The gradient of the weight is Σ dy y, and y depends on weight and bias."""

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        if saved.weight is None or self.bias is None:
            return super().weight_gradient(g, x_hat, saved)
        output = self.widened(saved.weight)[:, None] * x_hat + self.widened(self.bias)[:, None]
        return self.total(g * output)


@faulty(
    "normalised-value-from-output", fault="grad-formula", history=(), caught_by=("GRD-20", "GRD-02")
)
class NormalisedValueFromOutput(Kernel):
    """x̂ is recovered as (y − bias) / weight, which is NaN where the weight is zero."""

    def normalised_rows(self, saved: Saved) -> Array:
        x_hat = super().normalised_rows(saved)
        if saved.weight is None:
            return x_hat
        weight = self.widened(saved.weight)[:, None]
        recovered: Array = weight * x_hat / weight
        return recovered


@faulty(
    "parameter-gradients-accumulate",
    fault="grad-accumulates",
    history=("intel/ipex-llm#94", "apache/mxnet#18377"),
    caught_by=("GRD-13",),
)
class ParameterGradientsAccumulate(Kernel):
    """Gradients of weight and bias are added to those of the previous backward."""

    sums: tuple[Array, Array] | None = None

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        if self.sums is not None:
            gradients = gradients._replace(
                weight=gradients.weight + self.sums[0], bias=gradients.bias + self.sums[1]
            )
        self.sums = gradients.weight, gradients.bias
        return super().asked(gradients, saved)


@faulty(
    "bias-accumulates-beside-a-frozen-weight",
    fault="grad-accumulates",
    history=("apache/mxnet#18492",),
    caught_by=("GRD-08",),
)
class BiasAccumulatesBesideFrozenWeight(Kernel):
    """The gradient of the bias accumulates if the weight needs no gradient."""

    sum: Array | None = None

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        asked = super().asked(gradients, saved)
        if "weight" in saved.wrt or asked.bias is None:
            return asked
        self.sum = asked.bias if self.sum is None else self.sum + asked.bias
        return asked._replace(bias=self.sum)


# Subsets


@faulty(
    "frozen-weight-freezes-bias",
    fault="grad-mask",
    history=("PaddlePaddle/Paddle#47634", "csarofeen/pytorch#657"),
    caught_by=("GRD-08",),
)
class FrozenWeightFreezesBias(Kernel):
    """The bias gets no gradient if the weight needs none."""

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        asked = super().asked(gradients, saved)
        return asked if "weight" in saved.wrt else asked._replace(bias=None)


@faulty(
    "gradients-never-masked",
    fault="grad-mask",
    history=("csarofeen/pytorch#657",),
    caught_by=("GRD-08",),
)
class GradientsNeverMasked(Kernel):
    """All gradients are returned, even those that were not asked for."""

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        return gradients


@faulty(
    "frozen-input-refused",
    fault="grad-mask",
    history=("PaddlePaddle/Paddle#25686",),
    caught_by=("GRD-08",),
)
class FrozenInputRefused(Kernel):
    """The backward fails if the input needs no gradient."""

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        if "input" not in saved.wrt:
            raise RuntimeError("no buffer for the gradient of the input")
        return super().asked(gradients, saved)


@faulty(
    "frozen-parameters-break-dx",
    fault="grad-mask",
    history=("PaddlePaddle/Paddle#21237",),
    caught_by=("GRD-08",),
)
class FrozenParametersBreakDx(Kernel):
    """The sums in dx are skipped if neither weight nor bias needs a gradient.

    dx contains mean(dy) and mean(dy x̂) even if no parameter needs its gradient.
    """

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        needed = saved.weight is None or len(saved.wrt) > 1
        return super().projected(g, x_hat, dbias * needed, dweight * needed, saved)


# Contexts


@faulty(
    "context-overwritten",
    fault="memory-shared",
    history=("pytorch/pytorch#586",),
    caught_by=("GRD-14",),
)
class ContextOverwritten(Kernel):
    """Saved statistics lie in buffers of the layer, which the next forward overwrites."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        return super().backward(replace(saved, mean=self.saved.mean, s=self.saved.s), dy)


@faulty(
    "dy-overwritten",
    fault="input-mutation",
    history=("PaddlePaddle/Paddle#21065",),
    caught_by=("GRD-16",),
)
class DyOverwritten(Kernel):
    """dx is written over dy."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        gradients = super().backward(saved, dy)
        if gradients.input is not None:
            dy[...] = gradients.input
        return gradients


@faulty(
    "statistics-move-in-backward",
    fault="double-update",
    history=("pytorch/pytorch#96136", "gpleiss/efficient_densenet_pytorch#73"),
    caught_by=("GRD-16",),
)
class StatisticsMoveInBackward(Kernel):
    """The backward repeats its forward, which updates the running statistics again."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        if self.tracks() and not saved.constant:
            self.forward(saved.x)
        return super().backward(saved, dy)


@faulty(
    "recorded-forward-not-tracked",
    fault="update-tied-to-backward",
    history=("facebookresearch/fairscale#1035", "ml-explore/mlx#1960"),
    caught_by=("GRD-19",),
)
class RecordedForwardNotTracked(Kernel):
    """A forward that records for a backward does not update the running statistics."""

    recording = False

    def record(self, x: Array, wrt: tuple[str, ...]) -> tuple[Array, Saved]:
        self.recording = True
        recorded = super().record(x, wrt)
        self.recording = False
        return recorded

    def tracks(self) -> bool:
        return super().tracks() and not self.recording


@faulty(
    "update-moved-to-backward",
    fault="update-tied-to-backward",
    history=("apache/mxnet#853", "apache/mxnet#14357", "apache/mxnet#21111"),
    caught_by=("RUN-01", "RUN-07", "GRD-16"),
)
class UpdateMovedToBackward(Kernel):
    """Running statistics are updated by the backward of a training forward, not by the forward."""

    def tracks(self) -> bool:
        return False

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        if super().tracks() and not saved.constant:
            rows = self.rows(saved.x)
            self.track(*self.moments(rows), rows.shape[1])
        return super().backward(saved, dy)


# Values of dy


@faulty("dy-of-zeros-taken-for-ones", fault="values-replaced", history=(), caught_by=("GRD-09",))
class DyOfZerosTakenForOnes(Kernel):
    """A dy of zeros is taken for a missing one and replaced by ones."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        return super().backward(saved, dy if dy.any() else np.ones_like(dy))


@faulty("dy-clipped", fault="values-replaced", history=(), caught_by=("GRD-10", "GRD-01"))
class DyClipped(Kernel):
    """Elements of dy beyond ±2 are clipped."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        return super().backward(saved, np.clip(dy, -2, 2))


# Memory and form


@faulty(
    "dy-layout-ignored",
    fault="layout-backward",
    history=("pytorch/pytorch#156555", "pytorch/pytorch#2000", "PaddlePaddle/Paddle#54703"),
    caught_by=("GRD-21",),
)
class DyLayoutIgnored(Kernel):
    """dy is read in the memory order of the input, whatever the strides of dy are."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        memory = take_apart(dy).flat
        flat, shape, strides = take_apart(saved.x)
        if memory.size == flat.size:
            dy = put_together(Parts(memory, shape, strides))
        return super().backward(saved, dy)


@faulty(
    "gradient-always-contiguous",
    fault="layout-output-format",
    history=("pytorch/pytorch#107199",),
    caught_by=("GRD-22",),
    gradient_layout=True,
)
class GradientAlwaysContiguous(Kernel):
    """dx is in NCHW order for every input, but the order of the input is claimed."""

    def images(self, rows: Array, like: Array) -> Array:
        return np.ascontiguousarray(super().images(rows, like))


@faulty(
    "parameter-gradients-in-half",
    fault="mixed-dtype",
    history=("pytorch/pytorch#156513",),
    caught_by=("GRD-05",),
    dtypes=MIXED,
)
class ParameterGradientsInHalf(Kernel):
    """The gradients of float32 parameters have the dtype of the data."""

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        asked = super().asked(gradients, saved)
        found = {name: g for name, g in asked._asdict().items() if g is not None}
        return Gradients(**{name: g.astype(saved.x.dtype) for name, g in found.items()})


@faulty(
    "bias-gradient-of-four-dimensions",
    fault="grad-formula",
    history=(),
    caught_by=("GRD-05", "GRD-03"),
)
class BiasGradientOfFourDimensions(Kernel):
    """The gradient of the bias has the shape (1, C, 1, 1)."""

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        asked = super().asked(gradients, saved)
        if asked.bias is None:
            return asked
        return asked._replace(bias=asked.bias.reshape(1, -1, 1, 1))


# Sums


@faulty(
    "tail-dropped-in-backward",
    fault="tail-elements-dropped",
    history=("ROCm/MIOpen#916",),
    caught_by=("GRD-18",),
)
class TailDroppedInBackward(Kernel):
    """Backward sums drop what follows the last multiple of 4 in planes of over 256 values."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        plane = dy.shape[2] * dy.shape[3]
        summed = plane - plane % 4 if plane > 256 else plane
        self.kept = np.arange(dy.size // dy.shape[1]) % plane < summed
        return super().backward(saved, dy)

    def bias_gradient(self, g: Array) -> Array:
        return super().bias_gradient(g * self.kept)

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        return super().weight_gradient(g * self.kept, x_hat, saved)


@faulty(
    "gradient-sums-in-half",
    fault="lowprec-accumulation",
    history=("pytorch/pytorch#147303", "ROCm/MIOpen#2385"),
    caught_by=("GRD-03", "GRD-26"),
    dtypes=MIXED,
)
class GradientSumsInHalf(Kernel):
    """The sum of dy is accumulated in the dtype of the data."""

    def bias_gradient(self, g: Array) -> Array:
        total = g[:, 0]
        for values in g.T[1:]:
            total = self.narrowed(total + values)
        return total


@faulty(
    "gradient-sums-in-float32",
    fault="accumulation-precision",
    history=("ROCm/MIOpen#2024",),
    caught_by=("GRD-26", "GRD-02"),
    dtypes=("float64",),
)
class GradientSumsInFloat32(Kernel):
    """Sums in the backward of a float64 kernel are kept in float32."""

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        g32, x_hat32 = g.astype(np.float32), x_hat.astype(np.float32)
        return super().weight_gradient(g32, x_hat32, saved).astype(g.dtype)


@faulty(
    "shifted-products-claimed-centred",
    fault="grad-illconditioned",
    history=("tensorflow/tensorflow#118701",),
    caught_by=("GRD-25",),
    dtypes=("float32", "float64", *MIXED),
    grade="two-pass",
    centred_products=True,
)
class ShiftedProductsClaimedCentred(ShiftedProducts):
    """The weight gradient is s (Σ dy x − mean Σ dy), but centred products are claimed.

    Centred products are those with x − mean.
    """


@faulty(
    "terms-of-dx-in-half",
    fault="grad-illconditioned",
    history=("pytorch/pytorch#82493",),
    caught_by=("GRD-01", "GRD-11"),
    dtypes=(*MIXED, "float16", "bfloat16"),
)
class TermsOfDxInHalf(Kernel):
    """mean(dy) and mean(dy x̂) are rounded to the dtype of the data.

    For a constant dy, dx consists of their rounding errors alone.
    """

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        n = g.dtype.type(g.shape[1])
        dbias, dweight = self.narrowed(dbias / n) * n, self.narrowed(dweight / n) * n
        return super().projected(g, x_hat, dbias, dweight, saved)


# Double backward


@faulty(
    "curvature-missing",
    fault="grad-higher-order",
    history=("pytorch/pytorch#186779", "pytorch/pytorch#196699"),
    caught_by=("GRD-23",),
    **TWICE,
)
class CurvatureMissing(Kernel):
    """The double backward treats the saved statistics as constants."""

    def curvature(self, g: Array, a: Array, x_hat: Array) -> Array:
        return 0 * g


@faulty(
    "eval-double-backward-of-training",
    fault="grad-higher-order",
    history=("pytorch/pytorch#2277", "PaddlePaddle/Paddle#27549"),
    caught_by=("GRD-24",),
    **TWICE,
)
class EvalDoubleBackwardOfTraining(Kernel):
    """The double backward in eval mode differentiates mean and variance, as in training."""

    def double_backward(self, saved: Saved, dy: Array, cotangents: Gradients) -> DoubleGradients:
        return super().double_backward(replace(saved, constant=False), dy, cotangents)


@faulty(
    "curvature-counted-once", fault="grad-higher-order", history=(), caught_by=("GRD-23",), **TWICE
)
class CurvatureCountedOnce(Kernel):
    """The product of the two correlations counts once in the curvature, not three times."""

    def curvature(self, g: Array, a: Array, x_hat: Array) -> Array:
        # The term −3 c e x̂ of the curvature becomes −c e x̂.
        twice: Array = 2 * x_hat * (self.mean(g * x_hat) * self.mean(a * x_hat))[:, None]
        return super().curvature(g, a, x_hat) + twice


@faulty(
    "double-gradient-not-narrowed",
    fault="mixed-dtype",
    history=(),
    caught_by=("GRD-23", "GRD-24"),
    dtypes=("float16", "bfloat16"),
    double_backward=("float16", "bfloat16"),
)
class DoubleGradientNotNarrowed(Kernel):
    """The second-order gradient of the weight keeps its accumulation dtype."""

    def double_backward(self, saved: Saved, dy: Array, cotangents: Gradients) -> DoubleGradients:
        found = super().double_backward(saved, dy, cotangents)
        if found.weight is None:
            return found
        return found._replace(weight=self.widened(found.weight))
