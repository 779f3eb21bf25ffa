"""Faulty specimens whose formulas are right and whose arithmetic is not.

As in :mod:`bn_spec.specimens.faulty`, the first line of a docstring explains the mistake,
``history`` names reports of it, and ``caught_by`` the requirements that must catch it.
"""

from __future__ import annotations

import ctypes
import platform

import numpy as np

from bn_spec.case.dtypes import Array
from bn_spec.specimens.catalogue import faulty
from bn_spec.specimens.kernel import Kernel, across
from bn_spec.specimens.sound import FlushesSubnormals, Textbook


@faulty(
    "pairwise-sums-claimed",
    fault="accumulation-precision",
    history=("ROCm/MIOpen#3900",),
    caught_by=("NUM-10",),
    dtypes=("float32", "float64"),
    grade="two-pass",
    summation="pairwise",
)
class PairwiseClaimed(Kernel):
    """Sums are taken value by value, but pairwise sums are claimed."""


@faulty(
    "wide-sums-claimed",
    fault="accumulation-precision",
    history=("ROCm/MIOpen#3900",),
    caught_by=("NUM-10",),
    dtypes=("float32", "mixed_bfloat16"),
    grade="two-pass",
    summation="wide",
)
class WideClaimed(Kernel):
    """Sums are kept in float32, but accumulation in float64 is claimed."""


HALF_DATA = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
MIXED = ("mixed_float16", "mixed_bfloat16")


@faulty(
    "clamped-textbook-variance",
    fault="stat-onepass-cancellation",
    history=("ROCm/rocm-libraries#5013", "google/objax#182", "BVLC/caffe#3299"),
    caught_by=("NUM-01", "NUM-03"),
)
class ClampedTextbook(Textbook):
    """The variance is E[x²] − E[x]², clamped at zero, but Welford's accuracy is claimed."""


@faulty(
    "variance-around-the-first-channel",
    fault="stat-onepass-cancellation",
    history=("tensorflow/tensorflow#3290",),
    caught_by=("NUM-03",),
    dtypes=("float32", "float64", *MIXED),
)
class VarianceAroundFirstChannel(Kernel):
    """The one-pass variance of every channel is shifted by the mean of the first channel.

    A shift cancels only if it is close to the channel's own mean.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        shift = self.mean(rows[:1])[:, None]
        mean = self.mean(rows - shift)
        var = self.mean((rows - shift) ** 2) - mean * mean
        return mean + shift[:, 0], np.maximum(var, 0)


@faulty(
    "variance-around-running-mean",
    fault="norm-formula",
    history=("BVLC/caffe#3299",),
    caught_by=("NUM-01", "RUN-02", "TRN-01"),
)
class VarianceAroundRunningMean(Kernel):
    """Deviations are taken from the old running mean instead of the batch mean.

    The mean square of these deviations exceeds the variance by the square of the difference.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        shift = mean if self.running_mean is None else self.widened(self.running_mean)
        deviations = rows - shift[:, None]
        return mean, self.mean(deviations * deviations)


@faulty(
    "mean-summed-in-half",
    fault="lowprec-accumulation",
    history=("tensorflow/tensorflow#8535",),
    caught_by=("RUN-01", "NUM-02"),
    dtypes=HALF_DATA,
)
class MeanSummedInHalf(Kernel):
    """The sum of values is kept in the dtype of the data; the sum of squares is not."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        _, var = super().moments(rows)
        half = rows.astype(self.config.arithmetic.data.dtype)
        return self.widened(self.total(half)) / rows.dtype.type(rows.shape[1]), var


@faulty(
    "squares-summed-in-half",
    fault="lowprec-accumulation",
    history=("pytorch/pytorch#126525", "microsoft/tensorflow-directml-plugin#321"),
    caught_by=("RUN-02", "TRN-01"),
    dtypes=HALF_DATA,
)
class SquaresSummedInHalf(Kernel):
    """The sum of squared deviations is kept in the dtype of the data; that of values is not."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, _ = super().moments(rows)
        squares = ((rows - mean[:, None]) ** 2).astype(self.config.arithmetic.data.dtype)
        return mean, self.widened(self.total(squares)) / rows.dtype.type(rows.shape[1])


@faulty(
    "count-in-half",
    fault="lowprec-accumulation",
    history=("tensorflow/tensorflow#8535",),
    caught_by=("SHP-02", "NUM-10"),
    dtypes=("mixed_bfloat16", "bfloat16"),
)
class CountInHalf(Kernel):
    """The number of values per channel is kept in the dtype of the data: 257 becomes 256."""

    def mean(self, rows: Array) -> Array:
        count = np.asarray(rows.shape[1]).astype(self.config.arithmetic.data.dtype)
        return np.asarray(self.total(rows) / rows.dtype.type(count))


@faulty(
    "count-overflows-half",
    fault="lowprec-accumulation",
    history=("pytorch/pytorch#126525",),
    caught_by=("NUM-11",),
    dtypes=("mixed_float16", "float16"),
)
class CountOverflowsHalf(CountInHalf):
    """The number of values per channel is kept in float16, where large counts are infinite.

    65504 is the largest float16.
    """

    def mean(self, rows: Array) -> Array:
        # Smaller counts stay exact, so that only large ones show the fault.
        return super().mean(rows) if rows.shape[1] > 2**16 else Kernel.mean(self, rows)


@faulty(
    "statistics-rounded-to-half",
    fault="mixed-dtype",
    history=("chainer/chainer#6323", "chainer/chainer#6484"),
    caught_by=("TRN-01", "NUM-01"),
    dtypes=HALF_DATA,
)
class StatisticsRoundedToHalf(Kernel):
    """Mean and variance are rounded to the dtype of the data, which is not claimed."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, var = super().moments(rows)
        return self.narrowed(mean), self.narrowed(var)


@faulty(
    "inverse-std-in-half",
    fault="mixed-dtype",
    history=("chainer/chainer#6323", "cupy/cupy#2060"),
    caught_by=("NUM-06", "TRN-01", "EVL-01"),
    dtypes=("mixed_float16", "float16"),
)
class InverseStdInHalf(Kernel):
    """1 / sqrt(var + eps) is rounded to float16, which overflows for small variances."""

    def inverse_std(self, var: Array) -> Array:
        return self.narrowed(super().inverse_std(var))


@faulty(
    "parameters-cast-to-half",
    fault="mixed-dtype",
    history=("tinygrad/tinygrad#7025",),
    caught_by=("TRN-02", "EVL-01"),
    dtypes=MIXED,
)
class ParametersCastToHalf(Kernel):
    """float32 weight and bias are cast to the dtype of the data."""

    def affine(self, x_hat: Array) -> Array:
        if self.weight is None or self.bias is None:
            return x_hat
        y: Array = x_hat * across(self.narrowed(self.weight)) + across(self.narrowed(self.bias))
        return y


@faulty(
    "momentum-in-half",
    fault="mixed-dtype",
    history=("tensorflow/tensorflow#8535",),
    caught_by=("RUN-01", "RUN-02"),
    dtypes=MIXED,
)
class MomentumInHalf(Kernel):
    """momentum is rounded to the dtype of the data.

    0.1 becomes 0.09998 in float16 and 0.1001 in bfloat16.
    """

    def factor(self) -> float:
        return float(np.asarray(super().factor()).astype(self.config.arithmetic.data.dtype))


@faulty(
    "normalised-value-in-half",
    fault="mixed-dtype",
    history=("pytorch/pytorch#88929",),
    caught_by=("NUM-04", "TRN-02"),
    dtypes=HALF_DATA,
)
class NormalisedValueInHalf(Kernel):
    """x̂ is rounded to the dtype of the data before weight and bias are applied."""

    def affine(self, x_hat: Array) -> Array:
        return super().affine(self.narrowed(x_hat))


@faulty(
    "weight-before-scale",
    fault="intermediate-range",
    history=("PaddlePaddle/Paddle#16545",),
    caught_by=("NUM-05",),
    dtypes=("mixed_float16", "float16"),
)
class WeightBeforeScale(Kernel):
    """weight · (x − mean) is formed in the dtype of the data, then divided by the std.

    It overflows where the output does not.
    """

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        if self.weight is None or self.bias is None:
            return super().normalise(x, mean, s)
        product = (x - across(mean)) * across(self.widened(self.weight))
        largest = self.config.arithmetic.data.largest
        product = np.where(np.abs(product) > largest, np.inf * product, product)
        return np.asarray(product * across(s) + across(self.widened(self.bias)))


@faulty(
    "sums-in-float32",
    fault="accumulation-precision",
    history=("ROCm/MIOpen#3900",),
    caught_by=("TRN-01", "RUN-01"),
    dtypes=("float64",),
)
class SumsInFloat32(Kernel):
    """Sums of a float64 kernel are kept in float32."""

    def total(self, rows: Array) -> Array:
        return super().total(rows.astype(np.float32)).astype(rows.dtype)


@faulty(
    "rough-reciprocal-root",
    fault="rounding-direction",
    history=("Tencent/ncnn#6903",),
    caught_by=("TRN-01", "EVL-01", "NUM-02"),
    dtypes=("float32", "float64", *MIXED[:1]),
)
class RoughReciprocalRoot(Kernel):
    """1 / sqrt(var + eps) is the processor's 12-bit estimate, without a Newton step."""

    def inverse_std(self, var: Array) -> Array:
        mantissa, exponent = np.frexp(super().inverse_std(var))
        estimate = np.ldexp(np.round(mantissa * 2**12) / 2**12, exponent)
        return np.asarray(estimate.astype(var.dtype))


@faulty(
    "last-of-thousands-dropped",
    fault="tail-elements-dropped",
    history=("ROCm/MIOpen#916", "NVIDIA/apex#1768"),
    caught_by=("NUM-02",),
    dtypes=("float32", *MIXED),
    grade="two-pass",
)
class LastOfThousandsDropped(Kernel):
    """The last value is not summed in channels of more than 4096 values.

    One value of thousands weighs less than the bound on rounding errors of a sum in any order.
    """

    def total(self, rows: Array) -> Array:
        if rows.shape[1] > 4096:
            rows = rows[:, :-1]
        return super().total(rows)


@faulty(
    "nan-from-overflow",
    fault="intermediate-range",
    history=("pytorch/pytorch#44350",),
    caught_by=("NUM-13",),
    overflow_safe=True,
    dtypes=("float32", "float64", "mixed_bfloat16", "bfloat16"),
)
class NanFromOverflow(Kernel):
    """1 / sqrt(v) is computed as v / (v · sqrt(v)), which is ∞ / ∞ if the squares overflow."""

    def inverse_std(self, var: Array) -> Array:
        v = var + var.dtype.type(self.config.eps)
        return np.where(np.isinf(v), v / v, super().inverse_std(var))


@faulty(
    "subnormals-flushed",
    fault="intermediate-range",
    history=("pytorch/pytorch#19652",),
    caught_by=("NUM-07",),
)
class SubnormalsFlushed(FlushesSubnormals):
    """Subnormal numbers are flushed to zero, which is not claimed."""


@faulty(
    "rounding-mode-left-changed",
    fault="rounding-direction",
    history=("kcat/openal-soft#148", "llvm/llvm-project#57589"),
    caught_by=("NUM-12",),
    dtypes=("float32",),
)
class RoundingModeLeftChanged(Kernel):
    """The processor's rounding mode is left at 'towards zero' after a forward."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        ctypes.CDLL(None).fesetround(TOWARDS_ZERO[platform.machine()])
        return y


TOWARDS_ZERO = {"x86_64": 0xC00, "aarch64": 0xC00000, "arm64": 0xC00000}
"""Values of ``FE_TOWARDZERO`` in the C library, by processor."""


@faulty(
    "output-truncated",
    fault="rounding-direction",
    history=("tenstorrent/tt-metal#57408",),
    caught_by=("NUM-08",),
    dtypes=("float32",),
)
class OutputTruncated(Kernel):
    """The last operation of the output rounds towards zero.

    These errors have the same sign, so that they do not average out.
    """

    def affine(self, x_hat: Array) -> Array:
        if self.weight is None or self.bias is None:
            return x_hat
        return towards_zero(x_hat.astype(np.float64) * across(self.weight) + across(self.bias))


@faulty(
    "output-truncated-to-half",
    fault="rounding-direction",
    history=("tinygrad/tinygrad#11848", "tenstorrent/tt-metal#19882"),
    caught_by=("TRN-01", "EVL-01"),
    dtypes=("mixed_bfloat16", "bfloat16"),
)
class OutputTruncatedToHalf(Kernel):
    """The float32 output is cut to bfloat16 by dropping its lower bits."""

    def affine(self, x_hat: Array) -> Array:
        bits = super().affine(x_hat).view(np.uint32)
        return (bits & np.uint32(0xFFFF0000)).view(np.float32)


@faulty(
    "sums-truncated",
    fault="rounding-direction",
    history=(),
    caught_by=("NUM-08", "NUM-09"),
    dtypes=("float32",),
)
class SumsTruncated(Kernel):
    """Every addition of a sum rounds towards zero.

    These errors have the same sign, so that they do not average out.
    """

    def total(self, rows: Array) -> Array:
        total = rows[:, 0]
        for x in rows.T[1:]:
            total = towards_zero(total.astype(np.float64) + x)
        return total


@faulty(
    "reciprocal-always-low",
    fault="rounding-direction",
    history=("Xilinx/finn#1667",),
    caught_by=("NUM-08",),
    dtypes=("float32", "float64"),
)
class ReciprocalAlwaysLow(Kernel):
    """1 / sqrt(var + eps) is one ulp lower: within two ulps, but always on the same side."""

    def inverse_std(self, var: Array) -> Array:
        return np.asarray(np.nextafter(super().inverse_std(var), var.dtype.type(0)))


def towards_zero(wide: Array) -> Array:
    """Round float64 numbers to float32, towards zero."""
    nearest = wide.astype(np.float32)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(wide)
    truncated: Array = np.where(too_far, np.nextafter(nearest, np.float32(0)), nearest)
    return truncated
