"""The reference BatchNorm2d: a stateful layer over the pure formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bn_spec.case.config import STATE_FIELDS, Config, State, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.oracle.reference import formulas as f
from bn_spec.oracle.reference.extended import Extended


@dataclass(frozen=True, eq=False)
class Record:
    """What a backward pass needs of its forward: the shape of the input, and how it was normalised."""

    shape: tuple[int, ...]
    normalised: f.Normalised

    def rows(self, dy: Array) -> Extended:
        """Lay a gradient of the output out by channel; raise ValueError unless it has the output's shape."""
        if dy.shape != self.shape:
            raise ValueError(f"expected a gradient of shape {self.shape}; got {dy.shape}")
        return f.by_channel(dy)


class BatchNorm2d:
    """Batch normalisation over (N, C, H, W), one mean and one variance per channel.

    The arguments are those of ``torch.nn.BatchNorm2d``; ``dtype`` names a row of
    :data:`bn_spec.case.dtypes.DTYPES`. Every result is computed in double-double arithmetic (106
    bits) and rounded once. A call that raises leaves the layer as it was.

    Example:
        >>> layer = BatchNorm2d(1, momentum=1.0)
        >>> _ = layer(np.array([0.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> layer.running_var
        array([0.5], dtype=float32)

    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: str = "float32",
    ) -> None:
        self.config = Config(num_features, eps, momentum, affine, track_running_stats, dtype)
        self.training = True
        self._set(initial_state(self.config))

    def _set(self, state: State) -> None:
        self.weight = state.weight
        self.bias = state.bias
        self.running_mean = state.running_mean
        self.running_var = state.running_var
        self.num_batches_tracked = state.num_batches_tracked

    def train(self, mode: bool = True) -> BatchNorm2d:
        """Normalise by batch statistics and track them (True), or by running statistics (False)."""
        self.training = mode
        return self

    def eval(self) -> BatchNorm2d:
        """Normalise by running statistics from here on."""
        return self.train(False)

    def __call__(self, x: Array) -> Array:
        """Return the normalised ``x``: same shape (N, C, H, W), same dtype.

        In training mode, running statistics and counter move by one batch, unless it is empty.

        Raises:
            ValueError: ``x`` is not 4-dimensional, has another number of channels or another dtype,
                or gives batch statistics a single value per channel.

        """
        return self.record(x)[0]

    @np.errstate(all="ignore")  # infinities and NaN in the data are answered, not announced
    def record(self, x: Array) -> tuple[Array, Record]:
        """Return what a call returns, and what :meth:`backward` needs to know of it."""
        self._check(x)
        batch_statistics = self.training or self.running_mean is None
        if batch_statistics and x.size == x.shape[1]:
            raise ValueError(
                f"batch statistics need more than 1 value per channel; got an input of shape {x.shape}"
            )
        rows, channels = f.by_channel(x), x.shape[1]
        if batch_statistics and x.size:
            mu = f.mean(rows)
            var = f.biased_variance(rows, mu)
            if self.training:
                self._track(mu, var, rows.hi.shape[-1])
        else:
            mu = f.column(self.running_mean, 0.0, channels)
            var = f.column(self.running_var, 1.0, channels)
        s = f.inverse_std(var, self.config.eps)
        x_hat = f.normalise(rows, mu, s)
        weight, bias = f.column(self.weight, 1.0, channels), f.column(self.bias, 0.0, channels)
        y = f.by_sample(f.affine(x_hat, weight, bias), x.shape)
        return y.rounded(x.dtype), Record(
            x.shape, f.Normalised(weight, s, x_hat, not batch_statistics)
        )

    @np.errstate(all="ignore")
    def backward(self, record: Record, dy: Array) -> tuple[Array, Array | None, Array | None]:
        """Return the gradients of Σ dy · y: of the shape and dtype of input (N, C, H, W), weight and bias (C,).

        ``record`` is that of any earlier forward; None stands for the gradients of parameters that
        do not exist.

        Raises:
            ValueError: ``dy`` does not have the shape of the output.

        """
        dx, dweight, dbias = f.gradients(record.normalised, record.rows(dy))
        return (
            f.by_sample(dx, dy.shape).rounded(dy.dtype),
            self._parameter(dweight),
            self._parameter(dbias),
        )

    @np.errstate(all="ignore")
    def double_backward(
        self,
        record: Record,
        dy: Array,
        v: Array,
        of_weight: Array | None = None,
        of_bias: Array | None = None,
    ) -> tuple[Array, Array, Array | None]:
        """Return the gradients of Σ v · dx + Σ ẇ · dweight + Σ ḃ · dbias with respect to dy, input and weight.

        The cotangents ``v`` (N, C, H, W), ẇ ``of_weight`` and ḃ ``of_bias`` (C,) have the shapes of
        what :meth:`backward` returns; None stands for zeros.
        """
        of_parameters = (
            f.column(cotangent, 0.0, dy.shape[1]) for cotangent in (of_weight, of_bias)
        )
        ddy, dx, dweight = f.double_gradients(
            record.normalised, record.rows(dy), record.rows(v), *of_parameters
        )
        second_dy, second_dx = (f.by_sample(rows, dy.shape).rounded(dy.dtype) for rows in (ddy, dx))
        return second_dy, second_dx, self._parameter(dweight)

    def _parameter(self, gradient: Extended) -> Array | None:
        return None if self.weight is None else gradient.rounded(self.weight.dtype)[:, 0]

    def _track(self, mu: Extended, var: Extended, n: int) -> None:
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        channels, dtype = len(self.running_mean), self.running_mean.dtype
        self.num_batches_tracked = np.asarray(self.num_batches_tracked + 1)
        m = f.update_factor(self.config.momentum, int(self.num_batches_tracked))
        r_mean = f.blend(f.column(self.running_mean, 0.0, channels), mu, m)
        r_var = f.blend(f.column(self.running_var, 1.0, channels), f.unbiased_variance(var, n), m)
        self.running_mean = r_mean.rounded(dtype)[:, 0]
        self.running_var = r_var.rounded(dtype)[:, 0]

    def _check(self, x: Array) -> None:
        if x.ndim != 4:
            raise ValueError(
                f"expected a 4-D input (N, C, H, W); got {x.ndim}-D of shape {x.shape}"
            )
        if x.shape[1] != self.config.num_features:
            raise ValueError(f"expected {self.config.num_features} channels; got shape {x.shape}")
        if x.dtype != self.config.arithmetic.data.dtype:
            raise ValueError(f"expected dtype {self.config.arithmetic.data.name}; got {x.dtype}")

    def reset_running_stats(self) -> None:
        """Set running_mean to 0, running_var to 1 and the counter to 0."""
        fresh = initial_state(self.config)
        self._set(State(self.weight, self.bias, *(a for _, a in fresh.items()[2:])))

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, and reset the running statistics."""
        self._set(initial_state(self.config))

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the tensors that exist, by PyTorch's names."""
        return {name: a.copy() for name in STATE_FIELDS if (a := getattr(self, name)) is not None}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Take copies of the tensors of ``state``; without ``strict``, of those that the layer has.

        Raises:
            ValueError: a key is missing or unexpected (with ``strict``), or a tensor has another
                shape. Nothing is loaded then.

        """
        own = self.state_dict()
        if strict and (missing := sorted(own.keys() - state.keys())):
            raise ValueError(f"missing keys: {', '.join(missing)}; expected: {', '.join(own)}")
        if strict and (unexpected := sorted(state.keys() - own.keys())):
            raise ValueError(
                f"unexpected keys: {', '.join(unexpected)}; expected: {', '.join(own)}"
            )
        for name in own.keys() & state.keys():
            if np.shape(state[name]) != own[name].shape:
                raise ValueError(
                    f"{name} has shape {np.shape(state[name])}; expected {own[name].shape}"
                )
        self._set(
            State(
                **{
                    name: np.array(state.get(name, tensor), tensor.dtype)
                    for name, tensor in own.items()
                }
            )
        )

    @np.errstate(all="ignore")
    def fold(self, weight: Array, bias: Array | None = None) -> tuple[Array, Array]:
        """Return weight (C, I, h, w) and bias (C,) of a convolution that does what one and this layer, in eval, do.

        Source: the affine map of algorithm 2 of Ioffe & Szegedy 2015, put into the convolution
        before it.

        Raises:
            ValueError: there are no running statistics.

        """
        if self.running_mean is None or self.running_var is None:
            raise ValueError(
                "only a layer that tracks running statistics can be folded into a convolution"
            )
        channels = len(weight)
        s = f.inverse_std(f.column(self.running_var, 1.0, channels), self.config.eps)
        gamma, beta = f.column(self.weight, 1.0, channels), f.column(self.bias, 0.0, channels)
        by_input = weight.swapaxes(0, 1)
        scaled = f.by_sample(f.by_channel(by_input) * (gamma * s), by_input.shape)
        shifted = f.affine(
            f.normalise(
                f.column(bias, 0.0, channels), f.column(self.running_mean, 0.0, channels), s
            ),
            gamma,
            beta,
        )
        return scaled.rounded(weight.dtype).swapaxes(0, 1), shifted.rounded(weight.dtype)[:, 0]
