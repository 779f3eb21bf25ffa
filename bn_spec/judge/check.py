"""Checking one case on one backend, without Hypothesis and pytest."""

from __future__ import annotations

from bn_spec.backend.contract import Backend
from bn_spec.backend.registry import load
from bn_spec.case.config import STATE_FIELDS, State
from bn_spec.case.script import Case
from bn_spec.judge.judging import judge, judge_construction
from bn_spec.judge.observables import checked_observables
from bn_spec.judge.verdict import Discrepancy
from bn_spec.play.player import play


def check(case: Case, backend: Backend | str) -> list[Discrepancy]:
    """Play a case on a backend, and return all discrepancies.

    Args:
        case: The case.
        backend: The backend, or its name (:func:`bn_spec.backend.registry.load`).

    Returns:
        What differs from the expectation, in the order of the steps. An empty list means that the
        backend conforms on this case.

    Raises:
        BackendError: The backend cannot be loaded.

    """
    if isinstance(backend, str):
        backend = load(backend)
    claims = backend.capabilities
    observation = play(case, backend)
    found: list[Discrepancy] = []
    if isinstance(observation.initial, State):
        found += judge_construction(case, observation, STATE_FIELDS).discrepancies
    # Otherwise the layer could not be built, and ``judge`` says why.
    found += judge(case, observation, checked_observables(claims), claims).discrepancies
    return found
