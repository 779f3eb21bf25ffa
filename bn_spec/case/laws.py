"""Laws: how the output must follow a change of the input. No formula of the reference plays a part, only bounds.

They check the reference as well: one that is wrong breaks a law, even if a backend is wrong in the
same way.
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
    """Where the input x (N, C, H, W) becomes ``change(x)``, the output y becomes ``image(y)``.

    ``eps_factor`` is that by which eps is multiplied at the same time; with ``parameters``, weight
    and bias are reversed as well.
    """

    change: Callable[[Array], Array]
    image: Callable[[Array], Array]
    eps_factor: float = 1.0
    parameters: bool = False


SCALE = 8.0
"""A power of two, by which multiplication is exact."""


def _same(y: Array) -> Array:
    return y


def _scaled(x: Array) -> Array:
    return (x.astype(np.float64) * SCALE).astype(x.dtype)


def _shifted(x: Array) -> Array:
    """Add the power of two just above the largest value."""
    largest = float(np.abs(x.astype(np.float64)).max(initial=0))
    return (x.astype(np.float64) + 2.0 ** frexp(largest)[1]).astype(x.dtype)


def doubled(x: Array) -> Array:
    """Return a batch beside itself."""
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
"""Laws of one forward and the next, by what happens to the input."""

OTHER_LAWS = (
    "unscaled",
    "additive",
    "joined",
    "centred",
    "two values",
    "contraction",
    "estimator",
)
"""Names of the laws that are no change from one input to the next."""


def of_two_values(x: Array) -> Array:
    """Return an array like ``x`` whose channels have two values each, as often: a power of two about a multiple."""
    n, c, h, w = x.shape
    places = np.arange(n * h * w).reshape(n, 1, h, w)
    half = 2.0 ** (np.arange(c) % 7 - 3).reshape(1, -1, 1, 1)
    centre = half * (np.arange(c) % 3 - 1).reshape(1, -1, 1, 1)
    return (centre + np.where(places % 2, -half, half)).astype(x.dtype)


def two_values(x: Array) -> tuple[Floats, Floats, Floats] | None:
    """Return c and a (C,) and the signs (N, C, H, W) where half the values of each channel are c + a, half c − a."""
    values = x.astype(np.float64)
    high, low = (extreme(axis=(0, 2, 3), keepdims=True) for extreme in (values.max, values.min))
    centre, half = (high + low) / 2, (high - low) / 2
    signs = np.sign(values - centre)
    if (
        not np.array_equal(centre + signs * half, values)
        or (signs == 0).any()
        or signs.sum(axis=(0, 2, 3)).any()
    ):
        return None
    return centre.ravel(), half.ravel(), signs


def is_exact(law: Law, x: Array, changed: Array) -> bool:
    """Whether nothing was rounded, to nothing or to infinity, when ``x`` was changed."""
    if law.image is not _same:
        return True
    before, after = x.astype(np.float64), changed.astype(np.float64)
    offset = after.flat[0] - before.flat[0] if law.eps_factor == 1 else 0.0
    return bool(
        np.isfinite(after).all() and ((after - offset) / law.eps_factor**0.5 == before).all()
    )
