"""One sound BatchNorm2d in plain NumPy, in small steps that a specimen can replace one at a time.

It works in the layer's accumulation dtype, as a kernel does: nothing here is computed in higher
precision. Input, parameters and buffers are widened to it, output and buffers rounded from it once.
The formulas are those of a straightforward two-pass kernel; :mod:`.sound` replaces steps by other
correct ones, :mod:`.faulty` by mistakes that real projects made.
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
    """What a forward leaves for its backward: x (N, C, H, W), mean, s and weight (C,), and its eps.

    ``given`` statistics are those of eval mode; ``wrt`` are the tensors whose gradients will be
    asked.
    """

    x: Array
    mean: Array
    s: Array
    weight: Array | None
    eps: float
    given: bool
    wrt: tuple[str, ...] = ()


class Kernel:
    """A layer whose every step is a method. Statistics have shape (C,), rows (C, n)."""

    def __init__(self, config: Config, state: State | None) -> None:
        self.config = config
        self.training = True
        self.hold(self.built() if state is None else self.loaded(state))

    # State

    def built(self) -> State:
        return initial_state(self.config)

    def loaded(self, state: State) -> State:
        return state  # the layer is built on these tensors, as they lie

    def hold(self, state: State) -> None:
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
        given = {name: tensors[name].astype(a.dtype) for name, a in own.items() if name in tensors}
        self.hold(State(**(own | given)))

    def check_load(
        self, own: Mapping[str, Array], given: Mapping[str, Array], strict: bool
    ) -> None:
        if strict and own.keys() != given.keys():
            raise ValueError(f"expected {sorted(own)}, got {sorted(given)}")
        for name in own.keys() & given.keys():
            if given[name].shape != own[name].shape:
                raise ValueError(
                    f"expected {name} of shape {own[name].shape}, got {given[name].shape}"
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

    # Forward

    def forward(self, x: Array) -> Array:
        self.check(x)
        if not x.size:
            zeros = np.zeros(x.shape[1], self.config.arithmetic.accumulation.dtype)
            self.saved = self.remember(
                Saved(x, zeros, zeros, self.weight, self.config.eps, given=True)
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

    def rows(self, x: Array) -> Array:
        return self.widened(x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1))

    def widened(self, values: Array) -> Array:
        return values.astype(self.config.arithmetic.accumulation.dtype)

    def narrowed(self, values: Array) -> Array:
        """Round to the dtype of the data and widen again."""
        return self.widened(values.astype(self.config.arithmetic.data.dtype))

    # Batch statistics

    def moments(self, rows: Array) -> tuple[Array, Array]:
        mean = self.mean(rows)
        deviations = rows - mean[:, None]
        return mean, self.mean(deviations * deviations)

    def mean(self, rows: Array) -> Array:
        quotient: Array = self.total(rows) / rows.dtype.type(rows.shape[1])
        return quotient

    def total(self, rows: Array) -> Array:
        """Sum from left to right, rounding after each addition."""
        sums: Array = (
            np.add.accumulate(rows, axis=1)[:, -1] if rows.size else np.zeros(len(rows), rows.dtype)
        )
        return sums

    # Running statistics

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

    # Normalisation

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

    # Backward

    def remember(self, saved: Saved) -> Saved:
        return saved

    def record(self, x: Array, wrt: tuple[str, ...]) -> tuple[Array, Saved]:
        y = self.forward(x)
        return y, replace(self.saved, wrt=wrt)

    def backward(self, saved: Saved, dy: Array) -> Gradients:
        g, x_hat = self.rows(dy), self.normalised_rows(saved)
        dbias, dweight = self.bias_gradient(g), self.weight_gradient(g, x_hat, saved)
        dx = self.input_gradient(g, x_hat, dbias, dweight, saved)
        held = dy.dtype if saved.weight is None else saved.weight.dtype
        gradients = Gradients(self.images(dx, saved.x), dweight.astype(held), dbias.astype(held))
        return self.asked(gradients, saved)

    def asked(self, gradients: Gradients, saved: Saved) -> Gradients:
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
        if saved.given:
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

    def images(self, rows: Array, like: Array) -> Array:
        """Lay rows out as an array in the memory order of another."""
        n, c, h, w = like.shape
        images = np.empty_like(like)
        images[...] = rows.reshape(c, n, h, w).transpose(1, 0, 2, 3)
        return images

    # Double backward

    def double_backward(self, saved: Saved, dy: Array, cotangents: Gradients) -> DoubleGradients:
        g, a, x_hat = self.rows(dy), self.rows(cotangents.input), self.normalised_rows(saved)
        zeros = np.zeros_like(saved.s)
        w_dot, b_dot = (zeros if c is None else self.widened(c) for c in cotangents[1:])
        pg, pa = (
            self.projected(r, x_hat, self.total(r), self.total(r * x_hat), saved) for r in (g, a)
        )
        ddy = self.scale(saved)[:, None] * pa + w_dot[:, None] * x_hat + b_dot[:, None]
        dx = (w_dot * saved.s)[:, None] * pg
        if not saved.given:
            dx = dx - (self.scale(saved) * saved.s)[:, None] * self.curvature(g, a, x_hat)
        weight = (
            None
            if saved.weight is None
            else (self.total(a * pg) * saved.s).astype(saved.weight.dtype)
        )
        return DoubleGradients(self.images(ddy, dy), self.images(dx, saved.x), weight)

    # Folding into a convolution before the layer

    def fold(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        mean, scale, shift = self.folded()
        rows = self.widened(weight) * scale.reshape(-1, 1, 1, 1)
        before = np.zeros_like(mean) if bias is None else self.widened(bias)
        return rows.astype(weight.dtype), ((before - mean) * scale + shift).astype(weight.dtype)

    def folded(self) -> tuple[Array, Array, Array]:
        """Return mean, scale and shift of the layer in eval mode."""
        assert self.running_mean is not None
        assert self.running_var is not None
        s = self.inverse_std(self.widened(self.running_var))
        ones, zeros = np.ones_like(s), np.zeros_like(s)
        gamma, beta = (
            neutral if a is None else self.widened(a)
            for a, neutral in ((self.weight, ones), (self.bias, zeros))
        )
        return self.widened(self.running_mean), gamma * s, beta

    def curvature(self, g: Array, a: Array, x_hat: Array) -> Array:
        c, e = self.mean(g * x_hat)[:, None], self.mean(a * x_hat)[:, None]
        g0, a0 = g - self.mean(g)[:, None], a - self.mean(a)[:, None]
        curved: Array = x_hat * (self.mean(a0 * g0)[:, None] - 3 * c * e) + c * a0 + e * g0
        return curved


def across(values: Array) -> Array:
    """Return per-channel values (C,) in the shape (1, C, 1, 1) that broadcasts over (N, C, H, W)."""
    return values.reshape(1, -1, 1, 1)
