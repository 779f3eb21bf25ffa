"""Known failures of the BatchNorm layers of JAX's libraries: what was found, why, and where. Needs no JAX."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backend import KnownFailure
from ..case import Backward, Case, Forward, Set, training_after
from ..dtypes import Array

HALF = ("mixed_float16", "mixed_bfloat16")


def _differentiated(case: Case) -> Iterator[tuple[Array, float]]:
    """Yield the input and eps of each forward with statistics of the batch whose gradients are asked."""
    training, eps, forwards = True, case.config.eps, list[tuple[bool, Array, float]]()
    for step in case.steps:
        training = training_after(step, training)
        if isinstance(step, Set) and step.name == "eps" and step.value is not None:
            eps = step.value
        if isinstance(step, Forward):
            forwards.append((training or not case.config.track_running_stats, step.x, eps))
        elif isinstance(step, Backward) and forwards[step.of][0]:
            yield forwards[step.of][1:]


def _cubes(case: Case) -> bool:
    """Whether 1 / σ³ of a channel leaves the range of the accumulation."""
    held = case.config.arithmetic.accumulation

    def leaves(x: Array, eps: float) -> bool:
        cube = (x.astype(np.float64).var(axis=(0, 2, 3)) + eps) ** -1.5
        return bool(np.any((cube / 2 < held.smallest_normal) | (cube > held.largest)))

    return any(leaves(x, eps) for x, eps in _differentiated(case))


_CUBE = tuple(
    KnownFailure(
        requirement,
        observable,
        "the derivative of lax.rsqrt (jax/_src/lax/lax.py) forms rsqrt(v) / v, which in float32 is flushed to zero for v"
        " above 1.2e25, so that dx is without the part that goes through the variance, and infinite for v below 2e-26"
        " (measured on jax 0.10.2)",
        where=_cubes,
    )
    for requirement, observable in (("*", "grad_input"), ("GRD-*", "numbers"))
)

_SUM_OF_HALVES = tuple(
    KnownFailure(
        requirement,
        observable,
        "the layer converts half-precision data to float32 twice, for the statistics and for x − mean, so that its"
        " transpose rounds both parts of dx to half precision before it adds them: what they have in common is lost, and"
        " is NaN where both overflow (measured on flax 0.12.8 and jax 0.10.2)",
        dtypes=HALF,
        where=lambda case: any(True for _ in _differentiated(case)),
    )
    for requirement, observable in (
        ("*", "grad_input"),
        ("GRD-*", "numbers"),
        ("GRD-10", "gradient_linearity"),
        ("GRD-11", "gradient_sums"),
    )
)

LINEN = (*_CUBE, *_SUM_OF_HALVES)
"""Of Linen's."""
