"""The reference layer: the state of a BatchNorm2d around the pure formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bn_spec.case.config import STATE_FIELDS, Config, State, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.oracle.reference import formulas as f
from bn_spec.oracle.reference.extended import Extended


@dataclass(frozen=True, eq=False)
class ForwardRecord:
    """The values of a forward that its backward needs.

    ``shape`` is that of the input, (N, C, H, W). ``normalised`` has the normalised input and the
    factors of its derivatives.
    """

    shape: tuple[int, ...]
    normalised: f.Normalised

    def rows(self, dy: Array) -> Extended:
        """Return a gradient of the output as rows (C, n).

        Raises:
            ValueError: ``dy`` does not have the shape of the output.

        """
        if dy.shape != self.shape:
            raise ValueError(f"expected a gradient of shape {self.shape}; got {dy.shape}")
        return f.by_channel(dy)


class BatchNorm2d:
    """Batch normalisation over (N, C, H, W), with one mean and one variance per channel.

    The arguments are those of ``torch.nn.BatchNorm2d``. ``dtype`` names a row of
    :data:`bn_spec.case.dtypes.DTYPES`. Every result is computed in double-double arithmetic (106
    bits) and rounded once. A call that raises an exception does not change the layer.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2.

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
        """Normalise by the batch statistics and track them.

        With ``mode`` False, normalise by the running statistics and do not track.
        """
        self.training = mode
        return self

    def eval(self) -> BatchNorm2d:
        """Normalise by the running statistics from now on."""
        return self.train(False)

    def __call__(self, x: Array) -> Array:
        """Return ``x`` normalised, in its shape (N, C, H, W) and its dtype.

        In training mode, also update the running statistics and count the batch, unless the batch
        is empty.

        Raises:
            ValueError: ``x`` is not 4-dimensional, has the wrong number of channels or the wrong
                dtype, or has a single value per channel where batch statistics are needed.

        """
        return self.record(x)[0]

    @np.errstate(all="ignore")  # infinities and NaN in the data are valid input
    def record(self, x: Array) -> tuple[Array, ForwardRecord]:
        """Return the output of a call, and its record for ``backward``.

        Raises:
            ValueError: as for a call.

        """
        self._check(x)
        channels = x.shape[1]
        batch_statistics = self.training or self.running_mean is None
        if batch_statistics and x.size == channels:
            raise ValueError(
                "batch statistics need more than 1 value per channel;"
                f" got an input of shape {x.shape}"
            )
        rows = f.by_channel(x)
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
        weight = f.column(self.weight, 1.0, channels)
        bias = f.column(self.bias, 0.0, channels)
        y = f.by_sample(f.affine(x_hat, weight, bias), x.shape).rounded(x.dtype)
        normalised = f.Normalised(weight, s, x_hat, constant_statistics=not batch_statistics)
        return y, ForwardRecord(x.shape, normalised)

    @np.errstate(all="ignore")
    def backward(
        self, record: ForwardRecord, dy: Array
    ) -> tuple[Array, Array | None, Array | None]:
        """Return the gradients of Σ dy y with respect to input, weight and bias.

        They have the shapes and dtypes of the input (N, C, H, W), of weight and of bias (C,). The
        gradient of a parameter that the layer does not have is None. ``record`` may be that of any
        earlier forward of this layer.

        Raises:
            ValueError: ``dy`` does not have the shape of the output.

        """
        dx, dweight, dbias = f.gradients(record.normalised, record.rows(dy))
        grad_input = f.by_sample(dx, dy.shape).rounded(dy.dtype)
        return grad_input, self._parameter(dweight), self._parameter(dbias)

    @np.errstate(all="ignore")
    def double_backward(
        self,
        record: ForwardRecord,
        dy: Array,
        v: Array,
        of_weight: Array | None = None,
        of_bias: Array | None = None,
    ) -> tuple[Array, Array, Array | None]:
        """Return the gradients of Σ v dx + Σ ẇ dweight + Σ ḃ dbias.

        dx, dweight and dbias are the results of ``backward``. Their cotangents ``v``
        (N, C, H, W), ẇ ``of_weight`` (C,) and ḃ ``of_bias`` (C,) have the same shapes; None stands
        for zeros. The results are the gradients with respect to dy, input and weight.

        Raises:
            ValueError: ``dy`` or ``v`` does not have the shape of the output.

        """
        w_dot = f.column(of_weight, 0.0, dy.shape[1])
        b_dot = f.column(of_bias, 0.0, dy.shape[1])
        ddy, ddx, ddweight = f.double_gradients(
            record.normalised, record.rows(dy), record.rows(v), w_dot, b_dot
        )
        double_dy = f.by_sample(ddy, dy.shape).rounded(dy.dtype)
        double_input = f.by_sample(ddx, dy.shape).rounded(dy.dtype)
        return double_dy, double_input, self._parameter(ddweight)

    def _parameter(self, gradient: Extended) -> Array | None:
        """Return the gradient of a parameter (C,), or None if the layer has no parameters."""
        return None if self.weight is None else gradient.rounded(self.weight.dtype)[:, 0]

    def _track(self, mu: Extended, var: Extended, n: int) -> None:
        """Update the running statistics and count the batch, if the layer tracks them."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        channels = len(self.running_mean)
        dtype = self.running_mean.dtype
        self.num_batches_tracked = np.asarray(self.num_batches_tracked + 1)
        m = f.update_factor(self.config.momentum, int(self.num_batches_tracked))
        old_mean = f.column(self.running_mean, 0.0, channels)
        old_var = f.column(self.running_var, 1.0, channels)
        new_mean = f.blend(old_mean, mu, m)
        new_var = f.blend(old_var, f.unbiased_variance(var, n), m)
        self.running_mean = new_mean.rounded(dtype)[:, 0]
        self.running_var = new_var.rounded(dtype)[:, 0]

    def _check(self, x: Array) -> None:
        """Raise ValueError unless ``x`` has the rank, the channels and the dtype of the layer."""
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
        self._set(replace(fresh, weight=self.weight, bias=self.bias))

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, and reset the running statistics."""
        self._set(initial_state(self.config))

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of each tensor that the layer has, by PyTorch's name for it."""
        tensors = {name: getattr(self, name) for name in STATE_FIELDS}
        return {name: tensor.copy() for name, tensor in tensors.items() if tensor is not None}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy the tensors of ``state`` into the layer, in the dtypes of the layer.

        With ``strict``, ``state`` must have exactly the tensors that the layer has. Without it,
        tensors that the layer does not have are ignored, and those that ``state`` does not have
        stay as they are.

        Raises:
            ValueError: a tensor is missing or unexpected (with ``strict``), or has the wrong shape.
                Nothing is loaded then.

        """
        own = self.state_dict()
        missing = sorted(own.keys() - state.keys())
        unexpected = sorted(state.keys() - own.keys())
        if strict and missing:
            raise ValueError(f"missing keys: {', '.join(missing)}; expected: {', '.join(own)}")
        if strict and unexpected:
            raise ValueError(
                f"unexpected keys: {', '.join(unexpected)}; expected: {', '.join(own)}"
            )
        for name in own.keys() & state.keys():
            if np.shape(state[name]) != own[name].shape:
                raise ValueError(
                    f"{name} has shape {np.shape(state[name])}; expected {own[name].shape}"
                )
        merged = {name: np.array(state.get(name, a), a.dtype) for name, a in own.items()}
        self._set(State(**merged))

    @np.errstate(all="ignore")
    def fold(self, weight: Array, bias: Array | None = None) -> tuple[Array, Array]:
        """Fold the layer, in eval mode, into the convolution before it.

        ``weight`` (C, I, h, w) and ``bias`` (C,) are those of the convolution; None stands for no
        bias. The results replace them: a convolution with the results has the output of the
        original convolution followed by this layer.

        Source: the affine map of algorithm 2 of Ioffe & Szegedy 2015, applied to the weight and
        the bias of the convolution.

        Raises:
            ValueError: the layer has no running statistics.

        """
        if self.running_mean is None or self.running_var is None:
            raise ValueError(
                "only a layer that tracks running statistics can be folded into a convolution"
            )
        channels = len(weight)
        mu = f.column(self.running_mean, 0.0, channels)
        var = f.column(self.running_var, 1.0, channels)
        gamma = f.column(self.weight, 1.0, channels)
        beta = f.column(self.bias, 0.0, channels)
        s = f.inverse_std(var, self.config.eps)
        # Output channels come first in a weight, second in the arrays of by_channel.
        by_input = weight.swapaxes(0, 1)
        scaled = f.by_sample(f.by_channel(by_input) * (gamma * s), by_input.shape)
        shifted = f.affine(f.normalise(f.column(bias, 0.0, channels), mu, s), gamma, beta)
        return scaled.rounded(weight.dtype).swapaxes(0, 1), shifted.rounded(weight.dtype)[:, 0]
