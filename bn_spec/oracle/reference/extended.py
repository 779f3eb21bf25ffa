"""Double-double arithmetic: 106-bit numbers, each the unevaluated sum of two float64 numbers.

A value is a pair ``hi + lo`` with ``|lo| <= ulp(hi) / 2``. Let ``u = 2**-53``. The relative error
of an operation, to first order in u², is at most ``3 u²`` for a sum, ``5 u²`` for a product,
``15 u²`` for a quotient and ``25/8 u²`` for a square root.

Sources:

- Dekker 1971: splitting.
- Knuth, TAOCP vol. 2, 4.2.2: two-sum.
- Joldes, Muller, Popescu, "Tight and rigorous error bounds for basic building blocks of
  double-word arithmetic", ACM TOMS 44 (2017): algorithms 6, 10 and 17.
- Muller & Rideau, ACM TOMS 48 (2022): the bound of the product.
- Lefèvre, Louvet, Muller, Picot, Rideau, "Accurate calculation of Euclidean norms using
  double-word arithmetic", ACM TOMS 49 (2023): algorithm 8, the square root.

Range: an exact product needs ``|x| < 2**996`` and no underflow. Outside this range, a result is
that of float64, infinities included. The judge treats such channels as outside the domain of the
bounds.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array, Floats

HighLow: TypeAlias = tuple[Floats, Floats]
"""The high and the low part of an unevaluated sum."""

Operand: TypeAlias = "Extended | float"
"""The right operand of an operator: double-double numbers, or one float."""

_SPLITTER = float(2**27 + 1)
"""Factor that splits a 53-bit significand into two halves (Dekker 1971)."""


def _two_sum(a: Floats, b: Floats) -> HighLow:
    """Return a + b rounded, and its exact error (Knuth)."""
    s = a + b
    b_part = s - a
    return s, (a - (s - b_part)) + (b - b_part)


def _fast_two_sum(a: Floats, b: Floats) -> HighLow:
    """Return a + b rounded, and its exact error; |a| >= |b| is required (Dekker)."""
    s = a + b
    return s, b - (s - a)


def _split(a: Floats) -> HighLow:
    """Return two halves of at most 26 bits each, whose sum is ``a`` (Dekker)."""
    t = _SPLITTER * a
    hi = t - (t - a)
    return hi, a - hi


def _two_product(a: Floats, b: Floats) -> HighLow:
    """Return a · b rounded, and its exact error (Dekker)."""
    p = a * b
    a_hi, a_lo = _split(a)
    b_hi, b_lo = _split(b)
    return p, ((a_hi * b_hi - p) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


class Extended:
    """An array of double-double numbers, with the operators that the formulas need.

    ``hi`` and ``lo`` are float64 arrays. Shapes broadcast as in NumPy. A reduction keeps the
    reduced axis, with length 1.
    """

    __slots__ = ("hi", "lo")

    def __init__(self, hi: Array | float, lo: Array | float | None = None) -> None:
        self.hi: Floats = np.asarray(hi, np.float64)
        self.lo: Floats = np.zeros_like(self.hi) if lo is None else np.asarray(lo, np.float64)

    def __add__(self, other: Operand) -> Extended:
        y = _extended(other)  # Joldes, Muller, Popescu, algorithm 6
        s_hi, s_lo = _two_sum(self.hi, y.hi)
        t_hi, t_lo = _two_sum(self.lo, y.lo)
        v_hi, v_lo = _fast_two_sum(s_hi, s_lo + t_hi)
        return _within_range(*_fast_two_sum(v_hi, t_lo + v_lo), s_hi)

    def __mul__(self, other: Operand) -> Extended:
        y = _extended(other)  # algorithm 10
        p, e = _two_product(self.hi, y.hi)
        low = e + (self.hi * y.lo + self.lo * y.hi)
        return _within_range(*_fast_two_sum(p, low), p)

    def __truediv__(self, other: Operand) -> Extended:
        y = _extended(other)  # algorithm 17
        q = self.hi / y.hi
        product = y * Extended(q)
        remainder = (self.hi - product.hi) + (self.lo - product.lo)
        return _within_range(*_fast_two_sum(q, remainder / y.hi), q)

    def __neg__(self) -> Extended:
        return Extended(-self.hi, -self.lo)

    def __sub__(self, other: Operand) -> Extended:
        return self + -_extended(other)

    def __rsub__(self, other: float) -> Extended:
        return type(self)(other) - self

    def __rtruediv__(self, other: float) -> Extended:
        return type(self)(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def sqrt(self) -> Extended:
        """Return the square root; every number must be positive."""
        root = np.sqrt(self.hi)  # Lefèvre et al., algorithm 8
        square, error = _two_product(root, root)
        remainder = (self.hi - square) - error + self.lo
        return _within_range(*_fast_two_sum(root, remainder / (2 * root)), root)

    def total(self) -> Extended:
        """Return the sum along the last axis: pairwise, log2(n) additions deep."""
        n = self.hi.shape[-1]
        # Zeros fill the axis up to a power of two; they change no sum.
        width = 1 << max(n - 1, 0).bit_length()
        hi = np.zeros((*self.hi.shape[:-1], width))
        lo = np.zeros_like(hi)
        hi[..., :n], lo[..., :n] = self.hi, self.lo
        level = Extended(hi, lo)
        while width > 1:
            width //= 2
            level = level[..., :width] + level[..., width:]
        return level

    def reshape(self, *shape: int) -> Extended:
        """Return the same numbers in another shape."""
        return Extended(self.hi.reshape(shape), self.lo.reshape(shape))

    def transpose(self, *axes: int) -> Extended:
        """Return the same numbers with their axes permuted."""
        return Extended(self.hi.transpose(axes), self.lo.transpose(axes))

    def __getitem__(self, index: Any) -> Extended:
        return Extended(self.hi[index], self.lo[index])

    def rounded(self, dtype: np.dtype[np.generic]) -> Array:
        """Return the nearest numbers of ``dtype``, up to a double rounding by way of float64."""
        return (self.hi + self.lo).astype(dtype)


class Double(Extended):
    """An array of float64 numbers with the same operators, at a tenth of the cost.

    float64 has more than twice the precision of float32 and of the half-precision formats, for
    which it is used. The low part is zero throughout. Sums are NumPy's, pairwise over blocks.
    """

    __slots__ = ()

    def __init__(self, hi: Array | float) -> None:
        self.hi = np.asarray(hi, np.float64)
        self.lo = _ZERO

    def __add__(self, other: Operand) -> Double:
        return Double(self.hi + _extended(other).hi)

    def __mul__(self, other: Operand) -> Double:
        return Double(self.hi * _extended(other).hi)

    def __truediv__(self, other: Operand) -> Double:
        return Double(self.hi / _extended(other).hi)

    def __neg__(self) -> Double:
        return Double(-self.hi)

    def __sub__(self, other: Operand) -> Double:
        return Double(self.hi - _extended(other).hi)

    __radd__ = __add__
    __rmul__ = __mul__

    def sqrt(self) -> Double:
        """Return the square root; every number must be positive."""
        return Double(np.sqrt(self.hi))

    def total(self) -> Double:
        """Return the sum along the last axis."""
        return Double(self.hi.sum(axis=-1, keepdims=True))

    def reshape(self, *shape: int) -> Double:
        """Return the same numbers in another shape."""
        return Double(self.hi.reshape(shape))

    def transpose(self, *axes: int) -> Double:
        """Return the same numbers with their axes permuted."""
        return Double(self.hi.transpose(axes))

    def __getitem__(self, index: Any) -> Double:
        return Double(self.hi[index])


_ZERO = np.zeros(())
"""Low part of every ``Double``."""


def _within_range(hi: Floats, lo: Floats, plain: Floats) -> Extended:
    """Return ``hi + lo``, or ``plain`` where the error-free transformations overflowed.

    ``plain`` is the result of float64 arithmetic.
    """
    inside = np.isfinite(hi)
    if inside.all():
        return Extended(hi, lo)
    return Extended(np.where(inside, hi, plain), np.where(inside, lo, 0.0))


def _extended(value: Operand) -> Extended:
    """Return an operand as double-double numbers."""
    return value if isinstance(value, Extended) else Extended(value)
