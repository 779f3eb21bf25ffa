"""Double-double arithmetic: numbers of 106 bits held as the unevaluated sum of two float64.

Every value is a pair ``hi + lo`` with ``|lo| <= ulp(hi) / 2``. With ``u = 2**-53`` the operations
below have relative errors of at most ``3 u²`` (+), ``5 u²`` (×), ``15 u²`` (÷) and ``25/8 u²`` (√),
to first order in u².

Sources: Dekker 1971 (splitting); Knuth, TAOCP vol. 2, 4.2.2 (two-sum); Joldes, Muller, Popescu,
"Tight and rigorous error bounds for basic building blocks of double-word arithmetic", ACM TOMS 44
(2017), algorithms 6, 10 and 17, with the bound of Muller & Rideau, ACM TOMS 48 (2022), for the
product; Lefèvre, Louvet, Muller, Picot, Rideau, "Accurate calculation of Euclidean norms using
double-word arithmetic", ACM TOMS 49 (2023), algorithm 8 (square root).

Range: exact products need ``|x| < 2**996`` and no underflow. Beyond that a result is the one of
float64, infinities included, and the judge treats such channels as outside the domain of the
bounds.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array, Floats

Pair: TypeAlias = tuple[Floats, Floats]
Operand: TypeAlias = "Extended | float"

_SPLITTER = float(2**27 + 1)


def _two_sum(a: Floats, b: Floats) -> Pair:
    s = a + b
    b_part = s - a
    return s, (a - (s - b_part)) + (b - b_part)


def _fast_two_sum(a: Floats, b: Floats) -> Pair:
    s = a + b
    return s, b - (s - a)


def _split(a: Floats) -> Pair:
    t = _SPLITTER * a
    hi = t - (t - a)
    return hi, a - hi


def _two_product(a: Floats, b: Floats) -> Pair:
    p = a * b
    a_hi, a_lo = _split(a)
    b_hi, b_lo = _split(b)
    return p, ((a_hi * b_hi - p) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


class Extended:
    """An array of double-double numbers, with the operators that the formulas need.

    Shapes broadcast as in NumPy; axes are reduced with their dimension kept.
    """

    __slots__ = ("hi", "lo")

    def __init__(self, hi: Array | float, lo: Array | float | None = None) -> None:
        self.hi: Floats = np.asarray(hi, np.float64)
        self.lo: Floats = np.zeros_like(self.hi) if lo is None else np.asarray(lo, np.float64)

    def __add__(self, other: Operand) -> Extended:
        y = _extended(other)
        s_hi, s_lo = _two_sum(self.hi, y.hi)
        t_hi, t_lo = _two_sum(self.lo, y.lo)
        v_hi, v_lo = _fast_two_sum(s_hi, s_lo + t_hi)
        return _within_range(*_fast_two_sum(v_hi, t_lo + v_lo), s_hi)

    def __mul__(self, other: Operand) -> Extended:
        y = _extended(other)
        p, e = _two_product(self.hi, y.hi)
        return _within_range(*_fast_two_sum(p, e + (self.hi * y.lo + self.lo * y.hi)), p)

    def __truediv__(self, other: Operand) -> Extended:
        y = _extended(other)
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
        """Return the square root; the number must be positive."""
        root = np.sqrt(self.hi)
        square, error = _two_product(root, root)
        return _within_range(
            *_fast_two_sum(root, ((self.hi - square) - error + self.lo) / (2 * root)), root
        )

    def total(self) -> Extended:
        """Return the sum along the last axis, added pairwise: log2(n) additions deep."""
        n = self.hi.shape[-1]
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
        """Return the nearest numbers of ``dtype`` (to within one double rounding)."""
        return (self.hi + self.lo).astype(dtype)


class Double(Extended):
    """An array of float64 numbers behind the same operators: a tenth of the cost, for formats of half the precision.

    The low part is zero throughout. Sums are NumPy's, pairwise over blocks.
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
        """Return the square root; the number must be positive."""
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


def _within_range(hi: Floats, lo: Floats, plain: Floats) -> Extended:
    """Return ``hi + lo``, or the plain float64 result where the error-free transformations have overflowed."""
    inside = np.isfinite(hi)
    if inside.all():
        return Extended(hi, lo)
    return Extended(np.where(inside, hi, plain), np.where(inside, lo, 0.0))


def _extended(value: Operand) -> Extended:
    return value if isinstance(value, Extended) else Extended(value)
