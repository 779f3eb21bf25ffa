"""BatchNorm2d by its definition, in rational numbers and in balls of real numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from bn_spec import Case, Config
from bn_spec.case.config import State, initial_state
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.oracle.bounds import OWN_ERROR, Accuracy
from bn_spec.oracle.reference import Extended
from bn_spec.strategies import (
    ABSENT,
    EPS,
    RUNNING_STYLES,
    SCALES,
    cases,
    shapes,
    values,
)

Exact = npt.NDArray[Any]
"""An array of fractions; NumPy applies Python's exact operators to each element."""

OWN = Fraction(OWN_ERROR) - 1
"""Share of every bound that pays for the reference's own error."""

TWO_PASS = Accuracy("two-pass")

PRECISION = 400
"""Precision of flint's square roots in bits; no input cancels more than half of them."""

FAR = {"float32": (60, -60, -140), "float64": (300, -300)}
"""Binary exponents of extreme scales, by the format of the accumulation.

Their squares overflow or underflow float32, or come close to the limits of float64.
"""

TINY_EPS = {"float32": (1e-30,), "float64": (1e-30, 1e-280)}
"""Values of eps below the usual ones, by the format of the accumulation."""

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def drawn(dtype: str, **choices: Any) -> st.SearchStrategy[Case]:
    """Cases at least as ill-conditioned as those of the suite, and small enough for fractions."""
    accumulation = DTYPES[dtype].accumulation.name
    arguments: dict[str, Any] = {
        "shape": shapes("tiny", "different", "small"),
        "value": values(scales=(*SCALES, *FAR[accumulation])),
        "eps": (*EPS, *TINY_EPS[accumulation]),
        "running": (*RUNNING_STYLES, ABSENT),
    }
    return cases(dtype=dtype, **arguments | choices)


def fractions(numbers: Array) -> Exact:
    exact: Exact = np.vectorize(Fraction, otypes=[object])(numbers.astype(np.float64))
    return exact


def exact(number: Extended) -> Exact:
    total: Exact = fractions(number.hi) + fractions(number.lo)
    return total


def channel_rows(x: Array) -> Exact:
    """Return an array (N, C, H, W) as fractions of shape (C, n), index by index."""
    n, c, h, w = x.shape
    return fractions(
        np.array([[x[i, k, p, q] for i, p, q in np.ndindex(n, h, w)] for k in range(c)])
    )


def batch_statistics(rows: Exact) -> tuple[Exact, Exact, Exact]:
    """Return mean, biased and unbiased variance of each row, by their definitions."""
    n = rows.shape[1]
    mean = rows.sum(axis=1, keepdims=True) / n
    squares = ((rows - mean) ** 2).sum(axis=1, keepdims=True)
    return mean, squares / n, squares / max(n - 1, 1)


def column(tensor: Array | None, default: int, like: Exact) -> Exact:
    return like * 0 + default if tensor is None else fractions(tensor)[:, np.newaxis]


def arb(number: Fraction) -> Any:
    return flint.arb(flint.fmpq(number.numerator, number.denominator))


def normalised(state: State, x: Array, statistics: tuple[Exact, Exact], eps: float) -> list[Any]:
    """Return the exact output (x − mean) / √(var + eps) · weight + bias, in the order of ``x``.

    Each element is a ball of real numbers.
    """
    mean, var = statistics
    weight, bias = column(state.weight, 1, mean), column(state.bias, 0, mean)
    roots = [arb(v + Fraction(eps)).sqrt() for v in var[:, 0]]
    centred = fractions(x) - mean.reshape(1, -1, 1, 1)
    return [
        arb(weight[index[1], 0] * centred[index]) / roots[index[1]] + arb(bias[index[1], 0])
        for index in np.ndindex(x.shape)
    ]


def statistics_used(state: State, x: Array, training: bool) -> tuple[Exact, Exact]:
    """Return mean and variance that normalise ``x``: those of the batch, or the running ones."""
    mean, var, _ = batch_statistics(channel_rows(x))
    if training or state.running_mean is None:
        return mean, var
    return column(state.running_mean, 0, mean), column(state.running_var, 1, mean)


def tracked(config: Config, state: State, x: Array) -> dict[str, Exact]:
    """Return the exact running statistics after one more batch, by name."""
    mean, _, unbiased = batch_statistics(channel_rows(x))
    assert state.num_batches_tracked is not None
    count = int(state.num_batches_tracked) + 1
    m = Fraction(1, count) if config.momentum is None else Fraction(config.momentum)
    return {
        "running_mean": ((1 - m) * column(state.running_mean, 0, mean) + m * mean)[:, 0],
        "running_var": ((1 - m) * column(state.running_var, 1, mean) + m * unbiased)[:, 0],
    }


def first(case: Case) -> tuple[State, Array]:
    """Return the initial state of a case, and its first input."""
    return case.state or initial_state(case.config), next(case.forwards())
