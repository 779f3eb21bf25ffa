"""One case against one backend, without drawing and without pytest."""

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
    """Play ``case`` on a backend (or on the one of that name) and return everything that is not as expected.

    Raises:
        BackendError: the backend cannot be loaded.

    """
    subject = load(backend) if isinstance(backend, str) else backend
    observation = play(case, subject)
    read = isinstance(observation.initial, State)  # otherwise, judge says why not
    built = judge_construction(case, observation, STATE_FIELDS).discrepancies if read else []
    claims = subject.capabilities
    observables = checked_observables(claims)
    return built + judge(case, observation, observables, claims).discrepancies
