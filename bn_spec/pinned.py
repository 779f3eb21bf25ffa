"""Pinned cases: the smallest that shows each fault of the catalogue, played in every run, large ones last.

So a backend that brings a known fault back is told so at once, and by whom it was made before. They were found by the
suite itself (``docs/faults.py`` finds them anew), and are kept as the Python that a finding prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .backend import LAYOUTS, Capabilities
from .case import Backward, Case, DoubleBackward, Eval, Fold, Forward, Load, Restore, Save, Set, Step
from .dtypes import Array

PATH = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Pinned:
    """The smallest known case on which a requirement catches a faulty specimen.

    ``code`` is the case as Python; ``corrupts`` names all that the specimen gets wrong on it.
    """

    specimen: str
    requirement: str
    code: str
    corrupts: tuple[str, ...]

    @cached_property
    def case(self) -> Case:
        """The case."""
        names = vars(import_module("bn_spec.case"))
        case: Case = eval(self.code, dict(names))
        return case


@cache
def pinned() -> Mapping[str, Pinned]:
    """Return the pinned cases by the name of the specimen that they show."""
    entries = json.loads(PATH.read_text("utf-8"))
    found = (Pinned(e["specimen"], e["requirement"], e["code"], tuple(e["corrupts"])) for e in entries)
    return MappingProxyType({each.specimen: each for each in found})


@cache
def of_requirement(requirement: str) -> tuple[Pinned, ...]:
    """Return the pinned cases that a requirement has caught, the smallest first."""
    own = [each for each in pinned().values() if each.requirement == requirement]
    return tuple(sorted(own, key=lambda each: each.case.size))


_NEEDS: Mapping[type[Step], str] = MappingProxyType(
    {
        Eval: "inference",
        Backward: "gradients",
        DoubleBackward: "double_backward",
        Save: "checkpoints",
        Restore: "checkpoints",
        Load: "checkpoints",
        Set: "live_attributes",
        Fold: "folding",
    }
)
"""What a backend claims that has such a step."""


def is_claimed(case: Case, claims: Capabilities) -> bool:
    """Whether a case asks for nothing but what is claimed."""
    if case.config.dtype not in claims.dtypes:
        return False
    if set(claims.layouts) != set(LAYOUTS) and not all(map(_is_plain, _arrays(case))):
        return False
    least, largest = claims.dialect.eps_range
    if not all(least <= eps <= largest for eps in _all_eps(case)):
        return False
    return all(claims.has(flag, case.config.dtype) for flag in _needed(case))


def _all_eps(case: Case) -> Iterator[float]:
    """Yield every eps of the layer."""
    yield case.config.eps
    yield from (step.value for step in case.steps if isinstance(step, Set) and step.name == "eps" and step.value)


def _needed(case: Case) -> Iterator[str]:
    """Yield the flags without which a backend does not claim the case."""
    config, state = case.config, case.state
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
    yield from {_NEEDS[type(step)] for step in case.steps if type(step) in _NEEDS}


def _arrays(case: Case) -> Iterator[Array]:
    """Yield all inputs and gradients."""
    for step in case.steps:
        yield from (a for a in vars(step).values() if isinstance(a, np.ndarray))


def _is_plain(a: Array) -> bool:
    return bool(a.flags.c_contiguous)
