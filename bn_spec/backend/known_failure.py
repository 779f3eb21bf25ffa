"""Violations that are understood and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bn_spec.backend.contract import Backend
from bn_spec.case.script import Case


@dataclass(frozen=True)
class KnownFailure:
    """A violation that is understood and recorded: it is reported, but does not fail a run.

    It covers an observable of a requirement (or several, as in ``GRD-*`` and ``grad_*``), in all
    dtypes or in those given, on the cases that ``where`` accepts (all by default); ``reason`` says
    why. A known failure of a single requirement that no longer fails, on any of many such cases,
    does fail the run.
    """

    requirement: str
    observable: str
    reason: str
    dtypes: tuple[str, ...] = ()
    where: Callable[[Case], bool] = lambda _: True

    def concerns(self, requirement: str, dtype: str) -> bool:
        """Whether the failure is expected of a requirement in a dtype."""
        return fnmatchcase(requirement, self.requirement) and (
            not self.dtypes or dtype in self.dtypes
        )

    def covers(self, observable: str, case: Case) -> bool:
        """Whether a discrepancy of an observable on a case of such a requirement and dtype is this failure."""
        return fnmatchcase(observable, self.observable) and self.where(case)


def known_failures(backend: Backend) -> tuple[KnownFailure, ...]:
    """Return the known failures that a backend declares in its optional attribute ``known_failures``."""
    return tuple(getattr(backend, "known_failures", ()))
