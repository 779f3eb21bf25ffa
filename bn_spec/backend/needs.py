"""The claims that a backend must make to be asked a case."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.script import Case
from bn_spec.case.steps import STEP_KINDS, Forward, Set


def is_claimed(case: Case, claims: Capabilities) -> bool:
    """Return whether a case needs no other claims than these."""
    if case.config.dtype not in claims.dtypes:
        return False
    if set(claims.layouts) != set(LAYOUTS) and not all(map(_is_plain, _arrays(case))):
        return False
    least, largest = claims.dialect.eps_range
    if not all(least <= eps <= largest for eps in _all_eps(case)):
        return False
    return all(claims.has(flag, case.config.dtype) for flag in _needed(case))


def _all_eps(case: Case) -> Iterator[float]:
    """Yield every eps that the layer has in the course of the case."""
    yield case.config.eps
    for step in case.steps:
        if isinstance(step, Set) and step.name == "eps" and step.value:
            yield step.value


def _needed(case: Case) -> Iterator[str]:
    """Yield the flags of the claims that the case needs."""
    config, state = case.config, case.state
    # Values of eps are among them, which do no harm: eps is neither None nor 0.
    momenta = [config.momentum, *(step.value for step in case.steps if isinstance(step, Set))]
    for flag, needed in (
        ("affine_off", not config.affine),
        ("tracking_off", not config.track_running_stats),
        ("cumulative_momentum", None in momenta),
        ("momentum_zero", 0 in momenta),
        ("strided_state", state is not None and not all(map(_is_plain, state.tensors().values()))),
        ("gradients", any(step.wrt for step in case.steps if isinstance(step, Forward))),
        ("empty_batch", not all(x.size for x in case.forwards())),
    ):
        if needed:
            yield flag
    yield from {STEP_KINDS[type(step)].claim for step in case.steps} - {""}


def _arrays(case: Case) -> Iterator[Array]:
    """Yield the arrays of all steps."""
    for step in case.steps:
        yield from (a for a in vars(step).values() if isinstance(a, np.ndarray))


def _is_plain(a: Array) -> bool:
    """Return whether a backend without any claim about layouts can take an array."""
    return bool(a.flags.c_contiguous)
