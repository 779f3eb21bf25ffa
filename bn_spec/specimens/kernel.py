"""One sound BatchNorm2d in plain NumPy, in small steps that a specimen can replace one at a time.

The kernel works in the accumulation dtype, as real kernels do: no step uses a higher precision.
Inputs, parameters and buffers are widened to this dtype. Outputs and buffers are rounded from it
once. The formulas are those of a two-pass kernel. :mod:`bn_spec.specimens.sound` replaces steps by
other correct ones, :mod:`bn_spec.specimens.faulty` by mistakes that real projects made.

:class:`Kernel` is the whole. Its parts, each a class, are the conversions, the state, the batch
statistics, the running statistics, the forward, the backward, the double backward and the folding.

Shapes: an input x, an output y and their gradients have shape (N, C, H, W). Parameters, statistics
and other values per channel have shape (C,). The steps compute on *rows* of shape (C, n): one row
per channel, with its n = N · H · W values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import Array


@dataclass(frozen=True, eq=False)
class Saved:
    """What a forward saves for its backward.

    Attributes:
        x: The input (N, C, H, W).
        mean: The mean (C,) that normalised the input.
        s: 1 / sqrt(var + eps), of shape (C,).
        weight: The weight (C,), or None for a layer without affine parameters.
        eps: The eps of the layer during the forward.
        constant: Whether mean and s do not depend on x: in eval mode, or if x is empty.
        wrt: Names of the tensors whose gradients the backward returns.

    """

    x: Array
    mean: Array
    s: Array
    weight: Array | None
    eps: float
    constant: bool
    wrt: tuple[str, ...] = ()


class Conversions:
    """Conversions between tensors in their own dtypes and rows in the accumulation dtype.

    ``rows`` turns (N, C, H, W) into (C, n), and ``images`` turns (C, n) into (N, C, H, W).
    """

    config: Config

    def rows(self, x: Array) -> Array:
        return self.widened(x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1))

    def images(self, rows: Array, like: Array) -> Array:
        """Return the rows as an array with the shape, dtype and memory order of ``like``."""
        n, c, h, w = like.shape
        images = np.empty_like(like)
        images[...] = rows.reshape(c, n, h, w).transpose(1, 0, 2, 3)
        return images

    def widened(self, values: Array) -> Array:
        """Return values of any shape in the accumulation dtype."""
        return values.astype(self.config.arithmetic.accumulation.dtype)

    def narrowed(self, values: Array) -> Array:
        """Round values of any shape to the dtype of the data, and widen them again."""
        return self.widened(values.astype(self.config.arithmetic.data.dtype))


class LayerState(Conversions):
    """Construction, mode and attributes of the layer, its five tensors, and checkpoints of them.

    weight, bias, running_mean and running_var have shape (C,); num_batches_tracked has shape ().
    ``built`` returns the initial state: weight and running_var are 1, the other tensors are 0.
    """

    def __init__(self, config: Config, state: State | None) -> None:
        self.config = config
        self.training = True
        self.store(self.built() if state is None else self.loaded(state))

    def built(self) -> State:
        return initial_state(self.config)

    def loaded(self, state: State) -> State:
        return state  # without a copy, so that its strides and gaps stay

    def store(self, state: State) -> None:
        self.weight, self.bias = state.weight, state.bias
        self.running_mean, self.running_var = state.running_mean, state.running_var
        self.num_batches_tracked = state.num_batches_tracked

    def state(self) -> State:
        return State(
            self.weight, self.bias, self.running_mean, self.running_var, self.num_batches_tracked
        ).copy()

    def save(self) -> dict[str, Array]:
        return self.state().tensors()

    def load(self, tensors: Mapping[str, Array], *, strict: bool) -> None:
        own = self.state().tensors()
        self.check_load(own, tensors, strict)
        loaded = {name: tensors[name].astype(a.dtype) for name, a in own.items() if name in tensors}
        self.store(State(**(own | loaded)))

    def check_load(
        self, own: Mapping[str, Array], loaded: Mapping[str, Array], strict: bool
    ) -> None:
        if strict and own.keys() != loaded.keys():
            raise ValueError(f"expected {sorted(own)}, got {sorted(loaded)}")
        for name in own.keys() & loaded.keys():
            if loaded[name].shape != own[name].shape:
                raise ValueError(
                    f"expected {name} of shape {own[name].shape}, got {loaded[name].shape}"
                )

    def configure(self, name: str, value: float | None) -> None:
        self.config = self.config.changed(name, value)

    def train(self, mode: bool) -> None:
        self.training = mode

    def reset_running_stats(self) -> None:
        fresh = self.built()
        self.running_mean, self.running_var = fresh.running_mean, fresh.running_var
        self.num_batches_tracked = fresh.num_batches_tracked

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        fresh = self.built()
        self.weight, self.bias = fresh.weight, fresh.bias


class BatchStatistics(Conversions):
    """Mean and biased variance (C,) of rows (C, n), in two passes.

    mean = Σ x / n, then var = Σ (x − mean)² / n.
    """

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        deviations = rows - mean[:, None]
        return mean, self.mean(deviations * deviations)

    def mean(self, rows: Array) -> Array:
        quotient: Array = self.total(rows) / rows.dtype.type(rows.shape[1])
        return quotient

    def total(self, rows: Array) -> Array:
        """Sum from left to right, rounding after each addition."""
        if not rows.size:
            return np.zeros(len(rows), rows.dtype)
        # np.add.accumulate adds in order; np.sum adds pairwise.
        sums: Array = np.add.accumulate(rows, axis=1)[:, -1]
        return sums


class RunningStatistics(LayerState):
    """The update of the running statistics (C,) by a training forward with n values per channel.

    running_mean ← (1 − m) running_mean + m mean, and
    running_var ← (1 − m) running_var + m var n / (n − 1), with the biased var of the batch.
    m is the momentum; without one, it is 1 / num_batches_tracked, counted with this batch.
    """

    def tracks(self) -> bool:
        return self.training and self.running_mean is not None

    def track(self, mean: Array, var: Array, n: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        self.count()
        m = self.factor()
        self.running_mean[...] = self.blend(
            self.widened(self.running_mean), self.estimated_mean(mean, n), m
        )
        self.running_var[...] = self.blend(
            self.widened(self.running_var), self.estimated_var(var, n), m
        )

    def count(self) -> None:
        self.num_batches_tracked = np.asarray(self.batches() + 1)

    def batches(self) -> int:
        return 0 if self.num_batches_tracked is None else int(self.num_batches_tracked)

    def factor(self) -> float:
        return self.config.momentum if self.config.momentum is not None else 1 / self.batches()

    def blend(self, old: Array, new: Array, m: float) -> Array:
        return (1 - m) * old + m * new

    def estimated_mean(self, mean: Array, n: int) -> Array:
        return mean

    def estimated_var(self, var: Array, n: int) -> Array:
        return var * (n / (n - 1))


class ForwardPass(BatchStatistics, RunningStatistics):
    """The forward of a batch x (N, C, H, W), with batch or running statistics (C,).

    s = 1 / sqrt(var + eps), x̂ = (x − mean) s, y = x̂ weight + bias.
    """

    saved: Saved

    def forward(self, x: Array) -> Array:
        self.check(x)
        if not x.size:
            zeros = np.zeros(x.shape[1], self.config.arithmetic.accumulation.dtype)
            self.saved = self.remember(
                Saved(x, zeros, zeros, self.weight, self.config.eps, constant=True)
            )
            return np.empty_like(x)
        if self.uses_batch_statistics():
            rows = self.rows(x)
            mean, var = self.moments(rows)
            if self.tracks():
                self.track(mean, var, rows.shape[1])
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, var = self.widened(self.running_mean), self.widened(self.running_var)
        s = self.inverse_std(var)
        self.saved = self.remember(
            Saved(x, mean, s, self.weight, self.config.eps, not self.uses_batch_statistics())
        )
        return self.normalise(self.widened(x), mean, s).astype(x.dtype)

    def check(self, x: Array) -> None:
        if x.ndim != 4:
            raise ValueError(f"expected a 4-D input, got {x.ndim}-D")
        if x.shape[1] != self.config.num_features:
            raise ValueError(f"expected {self.config.num_features} channels, got {x.shape[1]}")
        if self.uses_batch_statistics() and x.size == x.shape[1]:
            raise ValueError("expected more than 1 value per channel")

    def uses_batch_statistics(self) -> bool:
        return self.training or self.running_mean is None

    def inverse_std(self, var: Array) -> Array:
        s: Array = 1 / np.sqrt(var + var.dtype.type(self.config.eps))
        return s

    def normalise(self, x: Array, mean: Array, s: Array) -> Array:
        return self.affine((x - across(mean)) * across(s))

    def affine(self, x_hat: Array) -> Array:
        if self.weight is None or self.bias is None:
            return x_hat
        y: Array = x_hat * across(self.widened(self.weight)) + across(self.widened(self.bias))
        return y

    def remember(self, saved: Saved) -> Saved:
        return saved


class BackwardPass(ForwardPass):
    """The backward: gradients of Σ dy y with respect to x, weight and bias.

    The rows (C, n) are g, those of dy, and x̂. dbias = Σ g and dweight = Σ g x̂ have shape (C,).
    dx = s weight (g − dbias / n − x̂ dweight / n) where mean and s depend on x, and
    dx = s weight g where they are constants.
    """

    def record(self, x: Array, wrt: tuple[str, ...]) -> tuple[Array, Saved]:
        y = self.forward(x)
        return y, replace(self.saved, wrt=wrt)

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        g, x_hat = self.rows(dy), self.normalised_rows(saved)
        dbias, dweight = self.bias_gradient(g), self.weight_gradient(g, x_hat, saved)
        dx = self.input_gradient(g, x_hat, dbias, dweight, saved)
        dtype = dy.dtype if saved.weight is None else saved.weight.dtype
        gradients = Gradients(self.images(dx, saved.x), dweight.astype(dtype), dbias.astype(dtype))
        return self.asked(gradients, saved)

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
        """Return the gradients of the tensors in ``saved.wrt``, and None for the others."""
        return Gradients(
            **{name: g for name, g in gradients._asdict().items() if name in saved.wrt}
        )

    def normalised_rows(self, saved: Saved) -> Array:
        x_hat: Array = (self.rows(saved.x) - saved.mean[:, None]) * saved.s[:, None]
        return x_hat

    def bias_gradient(self, g: Array) -> Array:
        return self.total(g)

    def weight_gradient(self, g: Array, x_hat: Array, saved: Saved) -> Array:
        return self.total(g * x_hat)

    def projected(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        """Return g − mean(g) − x̂ mean(g x̂), of shape (C, n); or g, where statistics are constants.

        This is the orthogonal projection of g onto the rows with Σ g = 0 and Σ g x̂ = 0, if eps is
        zero.
        """
        if saved.constant:
            return g
        n = g.dtype.type(g.shape[1])
        inner: Array = g - (dbias / n)[:, None] - x_hat * (dweight / n)[:, None]
        return inner

    def input_gradient(
        self, g: Array, x_hat: Array, dbias: Array, dweight: Array, saved: Saved
    ) -> Array:
        dx: Array = self.scale(saved)[:, None] * self.projected(g, x_hat, dbias, dweight, saved)
        return dx

    def scale(self, saved: Saved) -> Array:
        return saved.s if saved.weight is None else saved.s * self.widened(saved.weight)


class DoubleBackwardPass(BackwardPass):
    """The double backward: gradients of Σ of the products of cotangents and first gradients.

    The cotangents are a (C, n) for dx, and w' and b' (C,) for dweight and dbias. With P for
    ``projected``, K for ``curvature`` and k = s weight, the gradients are:

    with respect to dy: k P(a) + w' x̂ + b',
    with respect to x: w' s P(g) − k s K, without the last term where mean and s are constants,
    with respect to weight: s Σ a P(g).
    """

    def double_backward(self, saved: Saved, dy: Array, cotangents: Gradients) -> DoubleGradients:
        g, a, x_hat = self.rows(dy), self.rows(cotangents.input), self.normalised_rows(saved)
        zeros = np.zeros_like(saved.s)
        w_dot = zeros if cotangents.weight is None else self.widened(cotangents.weight)
        b_dot = zeros if cotangents.bias is None else self.widened(cotangents.bias)
        pg = self.projected(g, x_hat, self.total(g), self.total(g * x_hat), saved)
        pa = self.projected(a, x_hat, self.total(a), self.total(a * x_hat), saved)
        ddy = self.scale(saved)[:, None] * pa + w_dot[:, None] * x_hat + b_dot[:, None]
        dx = (w_dot * saved.s)[:, None] * pg
        if not saved.constant:
            dx = dx - (self.scale(saved) * saved.s)[:, None] * self.curvature(g, a, x_hat)
        if saved.weight is None:
            return DoubleGradients(self.images(ddy, dy), self.images(dx, saved.x))
        weight = (self.total(a * pg) * saved.s).astype(saved.weight.dtype)
        return DoubleGradients(self.images(ddy, dy), self.images(dx, saved.x), weight)

    def curvature(self, g: Array, a: Array, x_hat: Array) -> Array:
        """Return x̂ (mean(a0 g0) − 3 c e) + c a0 + e g0, of shape (C, n).

        c = mean(g x̂) and e = mean(a x̂); g0 and a0 are g and a without their means.
        """
        c, e = self.mean(g * x_hat)[:, None], self.mean(a * x_hat)[:, None]
        g0, a0 = g - self.mean(g)[:, None], a - self.mean(a)[:, None]
        curved: Array = x_hat * (self.mean(a0 * g0)[:, None] - 3 * c * e) + c * a0 + e * g0
        return curved


class ConvolutionFolding(ForwardPass):
    """Folding of the layer, in eval mode, into the convolution before it.

    With k = gamma s, gamma the layer's weight and beta its bias, the folded convolution has the
    weight k weight, of shape (C, I, h, w), and the bias (bias − running_mean) k + beta, of shape
    (C,).
    """

    def fold(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        mean, scale, shift = self.folded()
        rows = self.widened(weight) * scale.reshape(-1, 1, 1, 1)
        before = np.zeros_like(mean) if bias is None else self.widened(bias)
        return rows.astype(weight.dtype), ((before - mean) * scale + shift).astype(weight.dtype)

    def folded(self) -> tuple[Array, Array, Array]:
        """Return running_mean, gamma s and beta (C,), in the accumulation dtype."""
        assert self.running_mean is not None
        assert self.running_var is not None
        s = self.inverse_std(self.widened(self.running_var))
        gamma = np.ones_like(s) if self.weight is None else self.widened(self.weight)
        beta = np.zeros_like(s) if self.bias is None else self.widened(self.bias)
        return self.widened(self.running_mean), gamma * s, beta


class Kernel(DoubleBackwardPass, ConvolutionFolding):
    """A BatchNorm2d layer of which every step is a method that a specimen can replace."""


def across(values: Array) -> Array:
    """Return values (C,) in the shape (1, C, 1, 1), which broadcasts over (N, C, H, W)."""
    return values.reshape(1, -1, 1, 1)
