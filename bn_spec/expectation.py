"""What the reference answers to a step, with an error bound per element.

The expectation for a step starts from the state that the layer itself reported before it, so that bounds stay
one step deep and one fault gives one finding, not a cascade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import bounds
from .bounds import Model, Moments
from .case import Forward, ResetParameters, ResetRunningStats, Step
from .config import Config, State, initial_state
from .dtypes import Array, Bools, Floats
from .reference import Extended
from .reference import formulas as f


@dataclass(frozen=True, eq=False)
class Bounded:
    """A reference value and a bound on any correct kernel's distance from it, element by element.

    An infinite bound marks elements outside the domain of the theorem: they are counted, not judged.
    """

    value: Extended
    bound: Floats

    @np.errstate(all="ignore")
    def share(self, got: Array) -> Floats:
        """Return err / bound: the share of the error budget used, 0 where nothing is judged."""
        error = np.abs((got.astype(np.float64) - self.value.hi) - self.value.lo)
        share = np.where(np.isnan(error), np.inf, error) / self.bound
        return np.where(np.isfinite(self.bound), share, 0.0)


@dataclass(frozen=True, eq=False)
class Refusal:
    """The step must raise one of these kinds of exception, because of ``reason``."""

    kinds: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a step must give: an output, and each tensor of the state within a bound or exactly.

    ``refusal`` replaces all other fields but the state, which then must be the one before.
    """

    state: State
    output: Bounded | None = None
    running_mean: Bounded | None = None
    running_var: Bounded | None = None
    refusal: Refusal | None = None


def refusal_of(config: Config, x: Array, batch_statistics: bool) -> Refusal | None:
    """Return why a BatchNorm2d must refuse ``x``, or None.

    The kinds are those of torch.nn.BatchNorm2d: ValueError for the rank and for a single value per channel,
    RuntimeError (or ValueError) for the number of channels.
    """
    if x.ndim != 4:
        return Refusal(("ValueError",), f"the input is {x.ndim}-dimensional, not 4-dimensional (N, C, H, W)")
    holds_tensors = config.affine or config.track_running_stats
    if holds_tensors and x.shape[1] != config.num_features:
        return Refusal(
            ("ValueError", "RuntimeError"),
            f"the input has {x.shape[1]} channels, the layer {config.num_features}",
        )
    if batch_statistics and x.size == x.shape[1]:
        return Refusal(("ValueError",), "batch statistics need more than one value per channel")
    return None


@np.errstate(all="ignore")  # infinities and NaN in the data are answered, not announced
def expect(config: Config, before: State, training: bool, step: Step, grade: str) -> Expectation:
    """Return the expectation of ``step`` for a layer in state ``before``, whose kernel claims ``grade``."""
    if isinstance(step, Forward):
        return _expect_forward(config, before, training, step.x, grade)
    fresh = initial_state(config)
    if isinstance(step, ResetParameters):
        return Expectation(fresh)
    if isinstance(step, ResetRunningStats):
        return Expectation(State(before.weight, before.bias, *(a for _, a in fresh.items()[2:])))
    return Expectation(before)


def _expect_forward(config: Config, before: State, training: bool, x: Array, grade: str) -> Expectation:
    batch_statistics = training or before.running_mean is None
    if refusal := refusal_of(config, x, batch_statistics):
        return Expectation(before, refusal=refusal)
    channels, eps = config.num_features, config.eps
    rows = f.by_channel(x)
    model = Model(config.arithmetic, rows.hi.shape[-1], grade)
    weight, bias = f.column(before.weight, 1.0, channels), f.column(before.bias, 0.0, channels)
    if batch_statistics:
        mu = f.mean(rows)
        var = f.biased_variance(rows, mu)
        mean_abs = np.abs(rows.hi).mean(axis=-1, keepdims=True)
        moments = bounds.batch_moments(model, mu.hi, var.hi, mean_abs)
    else:
        mu = f.column(before.running_mean, 0.0, channels)
        var = f.column(before.running_var, 1.0, channels)
        moments = bounds.given_moments(mu.hi, var.hi)
    x_hat = f.normalise(rows, mu, var, eps)
    y = f.affine(x_hat, weight, bias)
    bound = bounds.output_bound(model, moments, eps, rows.hi, x_hat.hi, weight.hi, bias.hi)
    inside = _output_domain(model, moments, eps, rows.hi, y.hi, weight.hi, bias.hi, batch_statistics)
    output = Bounded(f.by_sample(y, x.shape), f.by_sample(Extended(np.where(inside, bound, np.inf)), x.shape).hi)
    if not training or before.running_mean is None:
        return Expectation(before, output)
    return _expect_tracking(config, before, model, moments, mu, var, rows.hi, output)


def _expect_tracking(
    config: Config,
    before: State,
    model: Model,
    moments: Moments,
    mu: Extended,
    var: Extended,
    x: Floats,
    output: Bounded,
) -> Expectation:
    n, channels = model.n, config.num_features
    tracked = before.num_batches_tracked
    counter = None if tracked is None else np.asarray(tracked + 1)
    momentum = f.update_factor(config.momentum, 1 if counter is None else counter.item())
    largest = np.abs(x).max(axis=-1, keepdims=True)
    unbiased = n / (n - 1)

    def blended(old: Array | None, batch: Extended, dbatch: Floats) -> Bounded:
        r = f.column(old, 0.0, channels)
        new = f.blend(r, batch, momentum)
        bound = bounds.running_bound(model, r.hi, batch.hi, dbatch, float(momentum.hi), new.hi)
        inside = bounds.in_domain(
            model,
            moments,
            config.eps,
            largest,
            np.abs(r.hi),
            np.abs(batch.hi) + dbatch,
            np.abs(new.hi) + bound,
        )
        return Bounded(new[:, 0], np.where(inside, bound, np.inf)[:, 0])

    return Expectation(
        State(before.weight, before.bias, before.running_mean, before.running_var, counter),
        output,
        running_mean=blended(before.running_mean, mu, moments.dmean),
        running_var=blended(before.running_var, f.unbiased_variance(var, n), moments.dvar * unbiased),
    )


def _output_domain(
    model: Model,
    moments: Moments,
    eps: float,
    x: Floats,
    y: Floats,
    weight: Floats,
    bias: Floats,
    batch_statistics: bool,
) -> Bools:
    largest = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.maximum(np.abs(weight), 1) / np.sqrt(moments.var + eps)
    summed = largest if batch_statistics else np.zeros_like(largest)  # eval mode squares nothing
    return bounds.in_domain(
        model, moments, eps, summed, largest, scale * largest, scale * np.abs(moments.mean), np.abs(bias)
    ) & np.isfinite(y)
