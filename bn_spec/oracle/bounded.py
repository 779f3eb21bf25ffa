"""Reference values with error bounds, and the demands on numbers that have no bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from bn_spec.case.dtypes import Array, Bools, Floats
from bn_spec.oracle.reference import Extended


class Demand(IntEnum):
    """The kind of number that an element must be, even outside the domain of the bounds."""

    NOTHING = 0
    """Any value, NaN included."""
    NUMBER = 1
    """Any value but NaN."""
    FINITE = 2
    """Neither NaN nor infinite."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """A reference value, and a bound on the distance of any correct kernel from it, per element.

    ``value`` and ``bound`` have the same shape. An infinite bound marks an element outside the
    domain of the theorem. ``demand`` has a ``Demand`` per element, for those outside the
    domain; None stands for ``Demand.NOTHING`` throughout.
    """

    value: Extended
    bound: Floats
    demand: Array | None = None

    @cached_property
    def inside(self) -> Bools:
        """Whether the bound of an element is a theorem."""
        return np.isfinite(self.bound)

    @property
    def demand_outside(self) -> Array:
        """The demand on each element outside the domain."""
        if self.demand is None:
            return np.full(self.bound.shape, Demand.NOTHING, np.int8)
        return self.demand

    @cached_property
    def demanded(self) -> Array:
        """The demand on each element; within a finite bound, it is ``Demand.FINITE``."""
        return np.where(self.inside, Demand.FINITE, self.demand_outside)

    def map(self, view: Callable[[Array], Array]) -> Bounded:
        """Return the values and bounds after a change of shape, without the demands."""
        low = np.broadcast_to(self.value.lo, self.bound.shape)
        return Bounded(Extended(view(self.value.hi), view(low)), view(self.bound))

    @np.errstate(all="ignore")
    def signed_share(self, got: Array) -> Floats:
        """Return err / bound with the sign of err = got − value; 0 outside the domain.

        It has no unit; the limit is ±1. The error of NaN is infinite.
        """
        error = (got.astype(np.float64) - self.value.hi) - self.value.lo
        share = np.where(np.isnan(error), np.inf, error) / self.bound
        # Without an error, the share is 0 even where the bound is 0, which allows no error.
        return np.where(self.inside & (error != 0), share, 0.0)

    def share(self, got: Array) -> Floats:
        """Return |err| / bound, the share of the bound that is used; 0 outside the domain."""
        return np.abs(self.signed_share(got))

    def unmet(self, got: Array) -> Bools:
        """Return whether each element of ``got`` fails the demand on it."""
        unmet: Bools = np.where(
            self.demanded == Demand.FINITE,
            ~np.isfinite(got),
            np.isnan(got) & (self.demanded == Demand.NUMBER),
        )
        return unmet


class Joined:
    """Blocks of channels, put together one after the other in arrays of a given shape.

    Only one block takes memory at a time beside the whole.

    Args:
        shape: the shape of the whole, (N, C, H, W) or (C,).

    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.whole: Bounded | None = None

    def add(self, channels: slice, part: Bounded) -> None:
        """Put a block in the place of its channels."""
        if part.bound.shape == self.shape:
            self.whole = part
            return
        if self.whole is None:
            self.whole = self._empty(type(part.value))
        whole = self.whole
        place = (slice(None), channels) if len(self.shape) > 1 else (channels,)
        whole.value.hi[place] = part.value.hi
        whole.bound[place] = part.bound
        whole.demand_outside[place] = part.demand_outside
        if whole.value.lo.ndim:  # the low part of Double is one zero for all elements
            whole.value.lo[place] = part.value.lo

    def _empty(self, number: type[Extended]) -> Bounded:
        """Return arrays of the whole shape, not yet filled."""
        value = number(np.empty(self.shape))
        return Bounded(value, np.empty(self.shape), np.empty(self.shape, np.int8))
