"""Faulty specimens that are right on simple calls.

They are wrong in histories, memory layouts, special values, misuse or threads. As in
:mod:`bn_spec.specimens.faulty`, the first line of a docstring explains the mistake, ``history``
names reports of it, and ``caught_by`` the requirements that must catch it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from time import sleep
from typing import ClassVar

import numpy as np

from bn_spec.backend.contract import Gradients
from bn_spec.case.arrays import Parts, gaps, put_together, take_apart
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.specimens.catalogue import faulty
from bn_spec.specimens.kernel import Kernel, Saved, across

MIXED = ("mixed_float16", "mixed_bfloat16")
COUNTER = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")

# Checkpoints


@faulty(
    "counter-not-saved",
    fault="state-nbt",
    history=("mapillary/inplace_abn#130",),
    caught_by=("STA-01", "STA-02", "STA-03"),
)
class CounterNotSaved(Kernel):
    """A checkpoint lacks num_batches_tracked."""

    def save(self) -> dict[str, Array]:
        return {name: a for name, a in super().save().items() if name != COUNTER}


@faulty(
    "counter-saved-one-dimensional",
    fault="state-nbt",
    history=("shaltielshmid/TorchSharp.PyBridge#13",),
    caught_by=("STA-01", "STA-02"),
)
class CounterSavedOneDimensional(Kernel):
    """A checkpoint has num_batches_tracked as an array of shape (1,)."""

    def save(self) -> dict[str, Array]:
        return {name: a.reshape(-1) for name, a in super().save().items()}


@faulty(
    "counter-zeroed-by-checkpoint",
    fault="state-nbt",
    history=("pytorch/pytorch#110361",),
    caught_by=("STA-02", "STA-03"),
)
class CounterZeroedByCheckpoint(Kernel):
    """num_batches_tracked becomes zero when a checkpoint is loaded."""

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        super().load(tensors, strict=strict)
        self.num_batches_tracked = self.built().num_batches_tracked


@faulty(
    "own-batches-counted",
    fault="momentum-none",
    history=("NVIDIA/apex#380",),
    caught_by=("STA-03",),
)
class OwnBatchesCounted(Kernel):
    """A cumulative mean divides by the batches of this layer, not by the loaded counter."""

    def __init__(self, config: Config, state: State | None) -> None:
        super().__init__(config, state)
        self.seen = self.batches()

    def factor(self) -> float:
        self.seen += 1
        if self.config.momentum is not None:
            return super().factor()
        return 1 / self.seen

    def reset_running_stats(self) -> None:
        super().reset_running_stats()
        self.seen = 0


@faulty(
    "partial-load-fills-in",
    fault="state-nbt",
    history=("Oneflow-Inc/oneflow#8723", "pytorch/pytorch#110361"),
    caught_by=("STA-04",),
)
class PartialLoadFillsIn(Kernel):
    """Tensors that a partial load leaves out are set to their initial values."""

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        if not strict:
            tensors = self.built().tensors() | dict(tensors)
        super().load(tensors, strict=strict)


@faulty(
    "statistics-not-saved",
    fault="state-serialisation",
    history=("pytorch/pytorch#70432",),
    caught_by=("STA-01", "STA-02"),
)
class StatisticsNotSaved(Kernel):
    """A checkpoint lacks running_mean and running_var, and loading does not require them."""

    def save(self) -> dict[str, Array]:
        return {name: a for name, a in super().save().items() if name not in STATISTICS}

    def check_load(
        self, own: Mapping[str, Array], loaded: Mapping[str, Array], strict: bool
    ) -> None:
        buffers = {name: a for name, a in own.items() if name in STATISTICS}
        super().check_load(own, buffers | dict(loaded), strict)


@faulty(
    "partial-load-refuses-strangers", fault="state-serialisation", history=(), caught_by=("STA-04",)
)
class PartialLoadRefusesStrangers(Kernel):
    """A partial load refuses tensors that the layer does not have."""

    def check_load(
        self, own: Mapping[str, Array], loaded: Mapping[str, Array], strict: bool
    ) -> None:
        strangers = loaded.keys() - own.keys()
        if strangers:
            raise KeyError(min(strangers))
        super().check_load(own, loaded, strict)


@faulty("checkpoint-by-reference", fault="memory-shared", history=(), caught_by=("STA-05",))
class CheckpointByReference(Kernel):
    """A checkpoint contains the live tensors, which later forwards change."""

    def save(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in self.state().tensors()}


@faulty("loaded-by-reference", fault="memory-shared", history=(), caught_by=("STA-05", "STA-11"))
class LoadedByReference(Kernel):
    """The layer keeps the loaded tensors themselves and updates them in place."""

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        own = self.state().tensors()
        self.check_load(own, tensors, strict)
        self.store(State(**{name: tensors.get(name, a) for name, a in own.items()}))


# Attributes and modes of a live layer


@faulty(
    "eps-taken-at-construction", fault="value-of-another-step", history=(), caught_by=("STA-06",)
)
class EpsTakenAtConstruction(Kernel):
    """A later change of eps has no effect."""

    def configure(self, name: str, value: float | None) -> None:
        if name != "eps":
            super().configure(name, value)


@faulty("eps-taken-at-backward", fault="value-of-another-step", history=(), caught_by=("STA-06",))
class EpsTakenAtBackward(Kernel):
    """The backward recomputes 1 / sqrt(var + eps), with the eps of the layer at that time."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        if saved.constant:
            assert self.running_var is not None
            var = self.widened(self.running_var)
        else:
            var = self.moments(self.rows(saved.x))[1]
        return super().backward(replace(saved, s=self.inverse_std(var)), dy)


@faulty(
    "momentum-taken-at-construction",
    fault="value-of-another-step",
    history=(),
    caught_by=("STA-07",),
)
class MomentumTakenAtConstruction(Kernel):
    """A later change of momentum has no effect."""

    def configure(self, name: str, value: float | None) -> None:
        if name != "momentum":
            super().configure(name, value)


@faulty("train-resets-statistics", fault="reset-scope", history=(), caught_by=("STA-08",))
class TrainResetsStatistics(Kernel):
    """A switch to training mode resets the running statistics."""

    def train(self, mode: bool) -> None:
        super().train(mode)
        if mode:
            self.reset_running_stats()


@faulty("reset-switches-to-training", fault="reset-scope", history=(), caught_by=("EVL-07",))
class ResetSwitchesToTraining(Kernel):
    """A reset of the parameters switches the layer to training mode.

    Building the layer anew does so too.
    """

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.training = True


@faulty(
    "folded-once-for-all",
    fault="value-of-another-step",
    history=("PaddlePaddle/Paddle-Lite#79",),
    caught_by=("EVL-07", "STA-06"),
)
class FoldedOnceForAll(Kernel):
    """1 / sqrt(running_var + eps) is computed once in eval mode and kept for good."""

    s: Array | None = None

    def inverse_std(self, var: Array) -> Array:
        if self.uses_batch_statistics():
            return super().inverse_std(var)
        if self.s is None:
            self.s = super().inverse_std(var)
        return self.s


@faulty("folded-until-training", fault="value-of-another-step", history=(), caught_by=("STA-06",))
class FoldedUntilTraining(FoldedOnceForAll):
    """1 / sqrt(running_var + eps) is computed once in eval mode and kept until train(True)."""

    def train(self, mode: bool) -> None:
        super().train(mode)
        if mode:
            self.s = None


@faulty(
    "unread-update-dropped",
    fault="running-not-updated",
    history=("tinygrad/tinygrad#17206", "pytorch/pytorch#194504"),
    caught_by=("STA-10",),
)
class UnreadUpdateDropped(Kernel):
    """Running statistics are updated when read; of several updates, only the last counts."""

    pending: tuple[Array, Array, int] | None = None

    def track(self, mean: Array, var: Array, n: int) -> None:
        self.pending = mean, var, n

    def _update(self) -> None:
        """Apply the pending update."""
        if self.pending is not None:
            super().track(*self.pending)
            self.pending = None

    def state(self) -> State:
        self._update()
        return super().state()

    def forward(self, x: Array) -> Array:
        if not self.training:
            self._update()
        return super().forward(x)

    def reset_running_stats(self) -> None:
        self.pending = None
        super().reset_running_stats()


# Memory


def _elements(a: Array) -> Array:
    """Return a writable view of all memory that an array spans, gaps included."""
    flat = take_apart(a).flat
    return np.lib.stride_tricks.as_strided(flat, flat.shape, flat.strides, writeable=True)


def _lies_within(a: Array, more: int) -> bool:
    """Whether the buffer of an array has at least ``more`` elements after the array."""
    if not isinstance(a.base, np.ndarray):
        return False
    whole = a.base
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    end = a.__array_interface__["data"][0] + take_apart(a).flat.nbytes + more * a.itemsize
    return bool(end <= whole.__array_interface__["data"][0] + whole.nbytes)


@faulty(
    "expanded-sample-counted-once", fault="layout-forward-view", history=(), caught_by=("LAY-02",)
)
class ExpandedSampleCountedOnce(Kernel):
    """An expanded batch (stride 0) counts as one sample in the unbiased variance.

    The n of n / (n − 1) counts every sample, even if all share their memory.
    """

    def rows(self, x: Array) -> Array:
        expanded = x.ndim == 4 and x.strides[0] == 0
        # A sample with one value per channel would have no unbiased variance.
        if expanded and x[:1].size > x.shape[1]:
            x = x[:1]
        return super().rows(x)


@faulty(
    "plane-size-from-a-stride",
    fault="layout-forward",
    history=("pytorch/pytorch#64100",),
    caught_by=("LAY-03",),
)
class PlaneSizeFromAStride(Kernel):
    """The distance of two planes is taken for H times the stride of H, which is wrong if H = 1.

    Where H is 1, its stride can have any value.
    """

    def forward(self, x: Array) -> Array:
        if x.ndim == 4 and x.size and x.flags.c_contiguous:
            flat, (n, c, h, w), strides = take_apart(x)
            # An axis of length 1 can have any stride, and NumPy still calls the array contiguous.
            plane = h * strides[2] if h == 1 < w else h * w
            x = put_together(Parts(flat, (n, c, h, w), (c * plane, plane, w, 1)))
        return super().forward(x)


@faulty(
    "channels-last-by-one-stride",
    fault="layout-forward",
    history=("pytorch/pytorch#64100",),
    caught_by=("LAY-03",),
)
class ChannelsLastByOneStride(Kernel):
    """An input whose samples are one element apart is read as if samples were innermost."""

    def forward(self, x: Array) -> Array:
        if x.ndim == 4 and x.flags.c_contiguous and take_apart(x).strides[0] == 1 and x.size > 1:
            n, c, h, w = x.shape
            x = np.ascontiguousarray(x).reshape(h, w, c, n).transpose(3, 2, 0, 1)
        return super().forward(x)


@faulty(
    "statistics-updated-in-a-copy",
    fault="running-not-updated",
    history=("pytorch/pytorch#33867",),
    caught_by=("LAY-04",),
)
class StatisticsUpdatedInACopy(Kernel):
    """Running statistics with gaps are copied for the update, and the update is lost.

    The copy is contiguous, and nothing writes it back.
    """

    def track(self, mean: Array, var: Array, n: int) -> None:
        before = self.state()
        super().track(mean, var, n)
        for name in STATISTICS:
            if not getattr(self, name).flags.c_contiguous:
                getattr(self, name)[...] = getattr(before, name)


@faulty(
    "parameter-strides-ignored",
    fault="layout-forward-view",
    history=("pytorch/pytorch#1246",),
    caught_by=("LAY-04",),
)
class ParameterStridesIgnored(Kernel):
    """weight and bias are read as if they were contiguous."""

    def affine(self, x_hat: Array) -> Array:
        if self.weight is None or self.bias is None:
            return x_hat
        weight, bias = (take_apart(a).flat[: len(a)] for a in (self.weight, self.bias))
        y: Array = x_hat * across(self.widened(weight)) + across(self.widened(bias))
        return y


@faulty("gaps-zeroed", fault="out-of-bounds-write", history=(), caught_by=("LAY-05",))
class GapsZeroed(Kernel):
    """The gaps between the rows of an input are set to zero first.

    A vector that reads several elements at once would read the gaps too.
    """

    def forward(self, x: Array) -> Array:
        if x.ndim == 4 and 0 not in x.strides:
            _elements(x)[gaps(x)] = 0
        return super().forward(x)


@faulty(
    "statistics-written-by-fours",
    fault="out-of-bounds-write",
    history=("chainer/chainer#6323",),
    caught_by=("LAY-05",),
)
class StatisticsWrittenByFours(Kernel):
    """Running statistics are written four at a time, past the last channel."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        super().track(mean, var, n)
        assert self.running_mean is not None
        over = -len(self.running_mean) % 4
        if over and self.running_mean.flags.c_contiguous and _lies_within(self.running_mean, over):
            wider = (len(self.running_mean) + over,)
            np.lib.stride_tricks.as_strided(self.running_mean, wider, writeable=True)[-over:] = 0


@faulty(
    "dx-written-over-dy",
    fault="input-mutation",
    history=("PaddlePaddle/Paddle#21065",),
    caught_by=("LAY-06", "GRD-16"),
)
class DxWrittenOverDy(Kernel):
    """The gradient of the input takes the memory of dy."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        gradients = super().backward(saved, dy)
        if gradients.input is None or 0 in dy.strides:
            return gradients
        dy[...] = gradients.input
        return gradients._replace(input=dy)


@faulty("output-in-one-workspace", fault="memory-shared", history=(), caught_by=("LAY-07",))
class OutputInOneWorkspace(Kernel):
    """Outputs of one shape share a workspace: the next forward overwrites the last output."""

    def __init__(self, config: Config, state: State | None) -> None:
        super().__init__(config, state)
        self.workspaces: dict[tuple[int, ...], Array] = {}

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        kept = self.workspaces.setdefault(x.shape, np.empty_like(y))
        kept[...] = y
        return kept


@faulty(
    "gradients-in-one-workspace",
    fault="grad-accumulates",
    history=(),
    caught_by=("LAY-07", "GRD-13"),
)
class GradientsInOneWorkspace(Kernel):
    """The gradient of the bias lies in a buffer to which every backward adds."""

    sums: Array | None = None

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        gradients = super().backward(saved, dy)
        if gradients.bias is None:
            return gradients
        self.sums = np.zeros_like(gradients.bias) if self.sums is None else self.sums
        self.sums += gradients.bias
        return gradients._replace(bias=self.sums)


@faulty(
    "output-always-contiguous",
    fault="layout-output-format",
    history=("pytorch/pytorch#107199",),
    caught_by=("LAY-08",),
    output_layout=True,
)
class OutputAlwaysContiguous(Kernel):
    """The output is in NCHW order for every input, but the order of the input is claimed."""

    def forward(self, x: Array) -> Array:
        return np.ascontiguousarray(super().forward(x))


# Dtypes of the state


@faulty(
    "statistics-widened-by-update",
    fault="mixed-dtype",
    history=("tinygrad/tinygrad#7025",),
    caught_by=("DTY-01",),
    dtypes=tuple(name for name in DTYPES if name != "float64"),
)
class StatisticsWidenedByUpdate(Kernel):
    """The first update turns the running statistics into float64."""

    def track(self, mean: Array, var: Array, n: int) -> None:
        super().track(mean, var, n)
        for name in STATISTICS:
            setattr(self, name, getattr(self, name).astype(np.float64))


@faulty(
    "counter-turns-float",
    fault="state-nbt",
    history=("tinygrad/tinygrad#6195",),
    caught_by=("DTY-01", "RUN-07"),
)
class CounterTurnsFloat(Kernel):
    """num_batches_tracked becomes a float32 when it is incremented."""

    def count(self) -> None:
        self.num_batches_tracked = np.asarray(np.float32(self.batches() + 1))


@faulty(
    "statistics-in-the-dtype-of-the-data",
    fault="mixed-dtype",
    history=("chainer/chainer#6484",),
    caught_by=("DTY-02", "RUN-01", "RUN-02"),
    dtypes=("mixed_float16",),
)
class StatisticsInTheDtypeOfTheData(Kernel):
    """Running statistics are rounded to half precision, but their buffers are float32."""

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return self.narrowed(super().blend(old, new, m))


@faulty(
    "eval-output-promoted",
    fault="mixed-dtype",
    history=("pytorch/pytorch#154887",),
    caught_by=("DTY-03",),
    dtypes=MIXED,
)
class EvalOutputPromoted(Kernel):
    """The output in eval mode has the dtype of the parameters."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        return y if self.uses_batch_statistics() else self.widened(y)


# Shapes


@faulty(
    "samples-counted-in-16-bits",
    fault="size-limit",
    history=("pytorch/pytorch#16998", "pytorch/pytorch#19911", "microsoft/onnxruntime#7095"),
    caught_by=("SHP-04",),
)
class SamplesCountedInSixteenBits(Kernel):
    """Samples after the first 65535 are not normalised."""

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        y = super().normalise(x, mean, s)
        y[65535:] = x[65535:]
        return y


@faulty(
    "channels-counted-in-16-bits",
    fault="size-limit",
    history=("torch/cunn#298",),
    caught_by=("SHP-04",),
)
class ChannelsCountedInSixteenBits(Kernel):
    """Channels after the first 65535 get mean 0 and variance 1."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean, var = super().moments(rows)
        mean[65535:], var[65535:] = 0, 1
        return mean, var


@faulty(
    "elements-counted-in-32-bits",
    fault="int32-index-overflow",
    history=("apache/mxnet#19065",),
    caught_by=("SHP-07",),
)
class ElementsCountedIn32Bits(Kernel):
    """Elements after the first 2³¹ are not normalised."""

    limit: ClassVar[int] = 2**31

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        y = super().normalise(x, mean, s)
        y.reshape(-1)[self.limit :] = np.ascontiguousarray(x).reshape(-1)[self.limit :]
        return y


@faulty(
    "last-of-many-blocks-dropped",
    fault="tail-elements-dropped",
    history=("ROCm/MIOpen#3900",),
    caught_by=("SHP-05",),
)
class LastOfManyBlocksDropped(Kernel):
    """Values after the last full block of 4096 are not summed.

    Channels of at most 8192 values are right.
    """

    def total(self, rows: Array) -> Array:
        n = rows.shape[1]
        if n > 8192:
            rows = rows[:, : n - n % 4096]
        return super().total(rows)


@faulty(
    "empty-batch-makes-nan",
    fault="empty-batch",
    history=("pytorch/pytorch#12013",),
    caught_by=("SHP-06",),
    empty_batch=True,
)
class EmptyBatchMakesNan(Kernel):
    """An empty batch has the mean 0 / 0, which enters the running statistics."""

    def forward(self, x: Array) -> Array:
        if not x.size and self.tracks():
            for name in STATISTICS:
                getattr(self, name)[...] = np.nan
        return super().forward(x)


@faulty(
    "empty-batch-divides-by-zero",
    fault="empty-batch",
    history=("pytorch/pytorch#95324", "pytorch/pytorch#40806"),
    caught_by=("SHP-06",),
    empty_batch=True,
)
class EmptyBatchDividesByZero(Kernel):
    """An empty batch ends in an integer division by zero."""

    def forward(self, x: Array) -> Array:
        if not x.size:
            raise ZeroDivisionError("integer division or modulo by zero")
        return super().forward(x)


@faulty(
    "empty-batch-divides-gradients",
    fault="empty-batch",
    history=("pytorch/pytorch#12013",),
    caught_by=("GRD-27",),
    empty_batch=True,
)
class EmptyBatchDividesGradients(Kernel):
    """The gradient of the weight is a mean times a count: 0 / 0 · 0 for an empty batch."""

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        n = g.dtype.type(g.shape[1])
        # Elsewhere the mean times the count is the sum, up to rounding.
        weight: Array = super().weight_gradient(g, x_hat, saved) / n * n
        return weight


# Special values


def _multiplied_by_masks(rows: Array) -> Array:
    """Return rows (C, n) plus zero times the sum of all values: NaN unless all are finite."""
    spoilt: Array = rows + (rows * 0).sum(dtype=rows.dtype)
    return spoilt


@faulty(
    "channels-masked-by-zero",
    fault="nonfinite-poisoning",
    history=("pytorch/pytorch#115500",),
    caught_by=("SPV-01", "SPV-03"),
)
class ChannelsMaskedByZero(Kernel):
    """Sums include the other channels times zero, and NaN and infinity survive that."""

    def total(self, rows: Array) -> Array:
        return super().total(_multiplied_by_masks(rows))


@faulty("nan-taken-for-zero", fault="values-replaced", history=(), caught_by=("SPV-02", "SPV-05"))
class NanTakenForZero(Kernel):
    """NaN and infinity in the input count as zero."""

    def widened(self, values: Array) -> Array:
        wide = super().widened(values)
        return np.where(np.isfinite(wide), wide, wide.dtype.type(0))


@faulty(
    "update-skipped-for-one-channel",
    fault="nonfinite-poisoning",
    history=("pytorch/pytorch#115500",),
    caught_by=("SPV-03",),
)
class UpdateSkippedForOneChannel(Kernel):
    """No channel is updated if the statistics of any channel are not finite.

    Channels are independent: each must be updated by its own statistics.
    """

    def track(self, mean: Array, var: Array, n: int) -> None:
        if np.isfinite(mean + var).all():
            super().track(mean, var, n)
        else:
            self.count()


@faulty("vector-of-four-spoilt", fault="nonfinite-poisoning", history=(), caught_by=("SPV-04",))
class VectorOfFourSpoilt(Kernel):
    """Four neighbours become NaN together in eval mode if one of them is not finite."""

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        y = super().normalise(x, mean, s)
        if not self.uses_batch_statistics() and not np.isfinite(x).all():
            bad = np.flatnonzero(~np.isfinite(x).ravel())
            spoilt = y.ravel()
            for start in 4 * np.unique(bad // 4):
                spoilt[start : start + 4] = np.nan
            y = spoilt.reshape(y.shape)
        return y


@faulty("gradients-masked-by-zero", fault="nonfinite-poisoning", history=(), caught_by=("SPV-06",))
class GradientsMaskedByZero(Kernel):
    """Sums of the backward include the other channels times zero."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        poison = (self.widened(dy) * 0).sum()
        return super().backward(saved, (self.widened(dy) + poison).astype(dy.dtype))


@faulty("nan-in-dy-taken-for-zero", fault="values-replaced", history=(), caught_by=("SPV-07",))
class NanInDyTakenForZero(Kernel):
    """NaN and infinity in dy count as zero."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        return super().backward(saved, np.where(np.isfinite(dy), dy, dy.dtype.type(0)))


@faulty("negative-zero-means-missing", fault="values-replaced", history=(), caught_by=("SPV-08",))
class NegativeZeroMeansMissing(Kernel):
    """A negative zero marks a missing element and becomes NaN."""

    def widened(self, values: Array) -> Array:
        wide = super().widened(values)
        if values.ndim <= 1:
            return wide  # a statistic or a parameter, not an input
        missing = (wide == 0) & np.signbit(wide)
        return np.where(missing, np.nan, wide).astype(wide.dtype)


# Misuse


@faulty(
    "loaded-unchecked",
    fault="validation-missing",
    history=("pytorch/pytorch#185864",),
    caught_by=("ERR-05",),
)
class LoadedUnchecked(Kernel):
    """Loaded tensors are cut or repeated to fit, and missing tensors keep their values."""

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        own = self.state().tensors()
        fitting = {
            name: np.resize(a, own[name].shape) for name, a in tensors.items() if name in own
        }
        super().load(fitting, strict=False)


@faulty("strangers-loaded", fault="validation-missing", history=(), caught_by=("ERR-05",))
class StrangersLoaded(Kernel):
    """A strict load ignores tensors that the layer does not have."""

    def check_load(
        self, own: Mapping[str, Array], loaded: Mapping[str, Array], strict: bool
    ) -> None:
        known = {name: a for name, a in loaded.items() if name in own}
        super().check_load(own, known, strict)


@faulty("loaded-until-refused", fault="refusal-not-atomic", history=(), caught_by=("ERR-06",))
class LoadedUntilRefused(Kernel):
    """Tensors that fit are loaded before the others are refused."""

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        own = self.state().tensors()
        known = {name: a for name, a in tensors.items() if name in own}
        fitting = {name: a for name, a in known.items() if a.shape == own[name].shape}
        super().load(fitting, strict=False)
        super().load(tensors, strict=strict)


@faulty("dy-cut-to-fit", fault="validation-missing", history=(), caught_by=("ERR-07",))
class DyCutToFit(Kernel):
    """A dy with more samples than the output is cut to fit."""

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        return super().backward(saved, dy[: len(saved.x)])


@faulty("eval-mode-after-a-refusal", fault="refusal-not-atomic", history=(), caught_by=("ERR-08",))
class EvalModeAfterARefusal(Kernel):
    """Inputs are checked in eval mode, and a refused input leaves the layer in it."""

    def check(self, x: Array) -> None:
        mode = self.training
        try:
            super().check(x)
        except ValueError:
            mode = False
            raise
        finally:
            self.training = mode


# Laws


@faulty(
    "last-row-dropped",
    fault="tail-elements-dropped",
    history=(),
    caught_by=("MET-02", "SHP-01", "TRN-01"),
)
class LastRowDropped(Kernel):
    """The last row of planes with more than two rows is not summed."""

    def rows(self, x: Array) -> Array:
        if x.ndim == 4 and x.shape[2] > 2:
            x = x[:, :, :-1]
        return super().rows(x)


@faulty(
    "variance-about-zero",
    fault="norm-formula",
    history=(),
    caught_by=("MET-04", "TRN-01", "RUN-02"),
)
class VarianceAboutZero(Kernel):
    """The mean square is taken for the variance."""

    def moments(self, rows: Array) -> tuple[Array, Array]:
        return self.mean(rows), self.mean(rows * rows)


# Determinism and threads


@faulty(
    "atomic-order",
    fault="summation-order",
    history=(),
    caught_by=("DET-01",),
    dtypes=("float32", "float64", *MIXED),
)
class AtomicOrder(Kernel):
    """Values are summed in another order at each call, as atomic additions do."""

    calls: ClassVar = count()

    def total(self, rows: Array) -> Array:
        order = np.random.default_rng(next(self.calls)).permutation(rows.shape[1])
        return super().total(rows[:, order])


@faulty("workspace-of-all-layers", fault="memory-shared", history=(), caught_by=("DET-02",))
class WorkspaceOfAllLayers(Kernel):
    """Batch statistics pass through a workspace that all layers share."""

    workspace: ClassVar[list[tuple[Array, Array]]] = []

    def moments(self, rows: Array) -> tuple[Array, Array]:
        found = super().moments(rows)
        self.workspace[:] = [found]
        sleep(2e-4)  # another thread gets the time to write its own statistics
        mean, var = self.workspace[0]
        # Another layer may have written statistics of other shapes, which cannot be used at all.
        return (mean, var) if mean.shape == found[0].shape else found


# Folding into a convolution


@faulty(
    "folded-on-the-input-axis",
    fault="fold-conv-bn",
    history=("ultralytics/ultralytics#25364",),
    caught_by=("FLD-01",),
)
class FoldedOnTheInputAxis(Kernel):
    """The weight of the convolution is scaled along its input channels."""

    def fold(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        _, shifted = super().fold(weight, bias)
        _, scale, _ = self.folded()
        across_inputs = np.resize(scale, weight.shape[1]).reshape(1, -1, 1, 1)
        return (self.widened(weight) * across_inputs).astype(weight.dtype), shifted


@faulty(
    "folded-without-eps",
    fault="fold-conv-bn",
    history=("apache/tvm#3216",),
    caught_by=("FLD-01", "FLD-02"),
)
class FoldedWithoutEps(Kernel):
    """The folded scale is weight / sqrt(running_var), without eps."""

    def folded(self) -> tuple[Array, Array, Array]:
        mean, scale, shift = super().folded()
        assert self.running_var is not None
        var = self.widened(self.running_var)
        return mean, scale / self.inverse_std(var) / np.sqrt(var), shift


@faulty(
    "folded-without-affine",
    fault="fold-conv-bn",
    history=("pytorch/pytorch#45474",),
    caught_by=("FLD-01",),
)
class FoldedWithoutAffine(Kernel):
    """A layer without weight and bias cannot be folded."""

    def folded(self) -> tuple[Array, Array, Array]:
        if self.weight is None:
            raise TypeError("unsupported operand type(s) for *: 'NoneType' and 'Tensor'")
        return super().folded()


@faulty(
    "folded-not-narrowed",
    fault="mixed-dtype",
    history=(),
    caught_by=("FLD-01", "FLD-02"),
    dtypes=("float16", "bfloat16", "mixed_float16", "mixed_bfloat16"),
)
class FoldedNotNarrowed(Kernel):
    """The parameters of the folded convolution keep the accumulation dtype."""

    def fold(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        scaled, shifted = super().fold(weight, bias)
        return self.widened(scaled), self.widened(shifted)


@faulty("convolution-bias-forgotten", fault="fold-conv-bn", history=(), caught_by=("FLD-02",))
class ConvolutionBiasForgotten(Kernel):
    """The bias that the convolution had is left out."""

    def fold(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        return super().fold(weight, None)
