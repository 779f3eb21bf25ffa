"""Arithmetics with the largest rounding errors that a format allows, and kernels in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array, Floats, Format
from bn_spec.oracle.bounds import LEAF

Rule: TypeAlias = Callable[[np.random.Generator, Array], Array]

RULES: dict[str, Rule] = {
    "up": lambda _, a: np.ones_like(a),
    "down": lambda _, a: -np.ones_like(a),
    "away from zero": lambda _, a: np.sign(a),
    "towards zero": lambda _, a: -np.sign(a),
    "at random": lambda rng, a: np.copysign(1.0, rng.random(a.shape) - 0.5),
}
"""Rules for the sign of each rounding error."""


@dataclass
class Arithmetic:
    """An arithmetic whose every error is as large as a format allows, with the sign of a rule.

    It is carried out in float64. Products and quotients underflow gradually. With ``flushes``,
    subnormal results and numbers read become zero instead, those of sums included.
    """

    format: Format
    rule: Rule
    rng: np.random.Generator
    flushes: bool = False

    def __call__(self, product: Array) -> Array:
        """Round a product, a quotient or a root."""
        rounded = self.add(product)
        if self.flushes:
            return rounded
        eta = self.format.smallest_subnormal
        lost: Array = product + eta * self.rule(self.rng, product)
        return np.where(np.abs(product) < self.format.smallest_normal, lost, rounded)

    def add(self, total: Array) -> Array:
        """Round a sum or a difference."""
        total = np.asarray(total, np.float64)
        rounded = total + self.format.u * np.abs(total) * self.rule(self.rng, total)
        return self.read(rounded)

    def read(self, a: Array) -> Array:
        """Read numbers; subnormal ones become zero if they are flushed."""
        flushed: Array = (
            np.where(np.abs(a) < self.format.smallest_normal, 0, a) if self.flushes else a
        )
        return flushed


Total: TypeAlias = Callable[[Array, Arithmetic], Array]
Kernel: TypeAlias = Callable[[Array, Total, Arithmetic], tuple[Array, Array]]


def one_by_one(rows: Array, fl: Arithmetic) -> Array:
    total = rows[:, 0]
    for x in rows.T[1:]:
        total = fl.add(total + x)
    return total


def in_pairs(rows: Array, fl: Arithmetic) -> Array:
    """Sum leaves of the largest allowed size one by one, then add their sums in pairs."""
    leaves = [one_by_one(rows[:, i : i + LEAF + 1], fl) for i in range(0, rows.shape[1], LEAF + 1)]
    while len(leaves) > 1:
        pairs = [fl.add(a + b) for a, b in zip(leaves[::2], leaves[1::2], strict=False)]
        leaves = pairs + leaves[2 * len(pairs) :]
    return leaves[0]


def twice_as_wide(rows: Array, fl: Arithmetic) -> Array:
    wide = replace(fl, format=replace(fl.format, u=fl.format.u**2))
    return fl.add(one_by_one(rows, wide))


TOTALS: dict[str, Total] = {"any order": one_by_one, "pairwise": in_pairs, "wide": twice_as_wide}


def two_pass(rows: Array, total: Total, fl: Arithmetic) -> tuple[Array, Array]:
    n = rows.shape[1]
    mean = fl(total(rows, fl) / n)
    deviations = fl.add(rows - mean[:, None])
    return mean, fl(total(fl(deviations * deviations), fl) / n)


def textbook(rows: Array, total: Total, fl: Arithmetic) -> tuple[Array, Array]:
    n = rows.shape[1]
    mean = fl(total(rows, fl) / n)
    return mean, fl.add(fl(total(fl(rows * rows), fl) / n) - fl(mean * mean))


def welford(rows: Array, _: Total, fl: Arithmetic) -> tuple[Array, Array]:
    mean, m2 = rows[:, 0], np.zeros(len(rows))
    for k, x in enumerate(rows.T[1:], 2):
        delta = fl.add(x - mean)
        mean = fl.add(mean + fl(delta / k))
        m2 = fl.add(m2 + fl(delta * fl.add(x - mean)))
    return mean, fl(m2 / rows.shape[1])


def chan(rows: Array, total: Total, fl: Arithmetic, smallest: int = 8) -> tuple[Array, Array]:
    """Merge in a balanced tree with leaves of at most ``smallest`` values (Chan et al.)."""
    mean, m2 = _merged(rows, fl, welford if total is one_by_one else two_pass, smallest)
    return mean, fl(m2 / rows.shape[1])


def _merged(rows: Array, fl: Arithmetic, leaf: Kernel, smallest: int) -> tuple[Array, Array]:
    n = rows.shape[1]
    if n == 1:
        return rows[:, 0], np.zeros(len(rows))
    if n <= smallest:
        mean, var = leaf(rows, one_by_one, fl)
        return mean, fl(var * n)
    n_a = n // 2
    mean_a, m2_a = _merged(rows[:, :n_a], fl, leaf, smallest)
    mean_b, m2_b = _merged(rows[:, n_a:], fl, leaf, smallest)
    delta, share = fl.add(mean_b - mean_a), fl(np.asarray((n - n_a) / n))
    between = fl(fl(delta * delta) * fl(share * n_a))
    return fl.add(mean_a + fl(delta * share)), fl.add(fl.add(m2_a + m2_b) + between)


def wholly_wide(kernel: Kernel, rows: Array, _: Total, fl: Arithmetic) -> tuple[Array, Array]:
    """Compute both moments with unit roundoff u², and round each once at the end."""
    wide = replace(fl, format=replace(fl.format, u=fl.format.u**2))
    mean, var = kernel(rows, one_by_one, wide)
    return fl.add(mean), fl.add(var)


def statistics(rows: Array) -> tuple[Floats, Floats, Floats]:
    mean = rows.mean(axis=1, keepdims=True)
    return mean, rows.var(axis=1, keepdims=True), np.abs(rows).mean(axis=1, keepdims=True)
