"""Laws: how the output must change with the input.

A law uses the error bounds, but no formula of the reference. It therefore also detects a reference
and a backend that are wrong in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import frexp
from types import MappingProxyType

import numpy as np

from bn_spec.case.dtypes import Array, Floats


@dataclass(frozen=True)
class Law:
    """If the input x (N, C, H, W) becomes ``change(x)``, the output y becomes ``image(y)``.

    Attributes:
        change: The change of the input.
        image: The change of the output that must follow.
        eps_factor: Factor by which eps is multiplied at the same time.
        parameters: Whether weight and bias are reversed at the same time.

    """

    change: Callable[[Array], Array]
    image: Callable[[Array], Array]
    eps_factor: float = 1.0
    parameters: bool = False


SCALE = 8.0
"""Factor of the law "scaled": a power of two, so that multiplication is exact."""


def _same(y: Array) -> Array:
    return y


def _scaled(x: Array) -> Array:
    return (x.astype(np.float64) * SCALE).astype(x.dtype)


def _shifted(x: Array) -> Array:
    """Add the power of two just above the largest value."""
    largest = float(np.abs(x.astype(np.float64)).max(initial=0))
    return (x.astype(np.float64) + 2.0 ** frexp(largest)[1]).astype(x.dtype)


def doubled(x: Array) -> Array:
    """Return a batch (2 N, C, H, W) of every sample of ``x`` twice."""
    return np.concatenate([x, x])


def _samples(x: Array) -> Array:
    return x[::-1]


def _pixels(x: Array) -> Array:
    return x[:, :, ::-1, ::-1]


def _channels(x: Array) -> Array:
    return x[:, ::-1]


LAWS: Mapping[str, Law] = MappingProxyType(
    {
        "samples reversed": Law(_samples, _samples),
        "pixels reversed": Law(_pixels, _pixels),
        "channels reversed": Law(_channels, _channels, parameters=True),
        "shifted": Law(_shifted, _same),
        "scaled": Law(_scaled, _same, eps_factor=SCALE**2),
        "twice over": Law(doubled, doubled),
    }
)
"""Laws about one forward and the next, by the name of the change of the input."""

OTHER_LAWS = (
    "unscaled",
    "additive",
    "joined",
    "centred",
    "two values",
    "contraction",
    "estimator",
)
"""Names of the laws that are not a change from one input to the next."""


def of_two_values(x: Array) -> Array:
    """Return an array of the shape and dtype of ``x`` with two values per channel.

    Half the values of a channel are c + a, the other half c − a: a is a power of two, and c a
    multiple of a, so that both values are exact. N H W must be even for equal halves.
    """
    n, c, h, w = x.shape
    places = np.arange(n * h * w).reshape(n, 1, h, w)
    half = 2.0 ** (np.arange(c) % 7 - 3).reshape(1, -1, 1, 1)
    centre = half * (np.arange(c) % 3 - 1).reshape(1, -1, 1, 1)
    return (centre + np.where(places % 2, -half, half)).astype(x.dtype)


def two_values(x: Array) -> tuple[Floats, Floats, Floats] | None:
    """Return how the values of an input are c ± a in each channel, each half of the time.

    Returns:
        c (C,), a (C,) and the signs of a (N, C, H, W); None if the values are not of this kind.

    """
    values = x.astype(np.float64)
    high = values.max(axis=(0, 2, 3), keepdims=True)
    low = values.min(axis=(0, 2, 3), keepdims=True)
    centre, half = (high + low) / 2, (high - low) / 2
    signs = np.sign(values - centre)
    if not np.array_equal(centre + signs * half, values):
        return None
    if (signs == 0).any() or signs.sum(axis=(0, 2, 3)).any():
        return None
    return centre.ravel(), half.ravel(), signs


def is_exact(law: Law, x: Array, changed: Array) -> bool:
    """Return whether ``changed`` is the exact result of the change of ``x`` by a law.

    Shifting and scaling can round, overflow and underflow; the other changes only move values.
    """
    if law.image is not _same:
        return True
    before, after = x.astype(np.float64), changed.astype(np.float64)
    # A shift adds the same number to all values; scaling by a factor scales eps by its square.
    offset = after.flat[0] - before.flat[0] if law.eps_factor == 1 else 0.0
    undone = (after - offset) / law.eps_factor**0.5
    return bool(np.isfinite(after).all() and (undone == before).all())
