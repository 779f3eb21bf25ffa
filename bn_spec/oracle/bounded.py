"""Values with bounds: what any correct kernel must come close to, and what is asked where no bound holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from bn_spec.case.dtypes import Array, Bools, Floats
from bn_spec.oracle.reference import Extended


class Demand(IntEnum):
    """What is asked of an element as a number, outside the domain of the bounds too."""

    NOTHING = 0
    NUMBER = 1
    """It is not NaN."""
    FINITE = 2


@dataclass(frozen=True, eq=False)
class Bounded:
    """A reference value and a bound on any correct kernel's distance from it, element by element.

    An infinite bound marks elements outside the domain of the theorem. Of those, ``demand`` (of the
    shape of the bound; nothing by default) says what is asked all the same.
    """

    value: Extended
    bound: Floats
    demand: Array | None = None

    @cached_property
    def inside(self) -> Bools:
        """Where the bound is a theorem."""
        return np.isfinite(self.bound)

    @property
    def asked(self) -> Array:
        """The demand on every element."""
        return (
            np.full(self.bound.shape, Demand.NOTHING, np.int8)
            if self.demand is None
            else self.demand
        )

    @cached_property
    def demanded(self) -> Array:
        """What is asked of each element as a number; a finite bound leaves room for finite ones alone."""
        return np.where(self.inside, Demand.FINITE, self.asked)

    def map(self, view: Callable[[Array], Array]) -> Bounded:
        """Return the same values and bounds in another shape."""
        low = np.broadcast_to(self.value.lo, self.bound.shape)
        return Bounded(Extended(view(self.value.hi), view(low)), view(self.bound))

    @np.errstate(all="ignore")
    def signed_share(self, got: Array) -> Floats:
        """Return the signed err / bound: positive where too large, 0 outside the domain."""
        error = (got.astype(np.float64) - self.value.hi) - self.value.lo
        share = np.where(np.isnan(error), np.inf, error) / self.bound
        return np.where(
            self.inside & (error != 0), share, 0.0
        )  # a bound of zero allows no error at all

    def share(self, got: Array) -> Floats:
        """Return err / bound: the share of the error budget used, 0 outside the domain."""
        return np.abs(self.signed_share(got))

    def unmet(self, got: Array) -> Bools:
        """Where ``got`` is not the number that it is asked to be."""
        unmet: Bools = np.where(
            self.demanded == Demand.FINITE,
            ~np.isfinite(got),
            np.isnan(got) & (self.demanded == Demand.NUMBER),
        )
        return unmet


class Joined:
    """Blocks of channels put side by side, one after the other, so that only one of them takes memory at a time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.whole: Bounded | None = None

    def add(self, channels: slice, part: Bounded) -> None:
        """Put a block beside those before it."""
        if part.bound.shape == self.shape:
            self.whole = part
            return
        whole = self.whole = self.whole or self._empty(type(part.value))
        place = (slice(None), channels) if len(self.shape) > 1 else (channels,)
        whole.value.hi[place], whole.bound[place], whole.asked[place] = (
            part.value.hi,
            part.bound,
            part.asked,
        )
        if whole.value.lo.ndim:
            whole.value.lo[place] = part.value.lo

    def _empty(self, number: type[Extended]) -> Bounded:
        value = number(np.empty(self.shape))
        return Bounded(value, np.empty(self.shape), np.empty(self.shape, np.int8))
