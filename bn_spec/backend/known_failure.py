"""Known failures: violations that are understood and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bn_spec.backend.contract import Backend
from bn_spec.case.script import Case


@dataclass(frozen=True)
class KnownFailure:
    """A violation that is understood and recorded: it is reported, but does not fail a run.

    A run does fail if a known failure of a single requirement no longer occurs, although enough
    cases were drawn on which it could.

    Attributes:
        requirement: Id of the requirement; a glob such as ``GRD-*`` for several.
        observable: Name of the observable; a glob such as ``grad_*`` for several.
        reason: Why it fails: an issue, or the condition and the formula.
        dtypes: Dtypes in which it occurs; in all if there are none.
        where: Function from a case to whether the failure can occur on it; by default, on any.

    """

    requirement: str
    observable: str
    reason: str
    dtypes: tuple[str, ...] = ()
    where: Callable[[Case], bool] = lambda _: True

    def concerns(self, requirement: str, dtype: str) -> bool:
        """Return whether the failure can occur in the cell of a requirement and a dtype."""
        if self.dtypes and dtype not in self.dtypes:
            return False
        return fnmatchcase(requirement, self.requirement)

    def covers(self, observable: str, case: Case) -> bool:
        """Return whether a discrepancy of an observable on a case is this failure.

        Ask this only in a cell that the failure concerns.
        """
        return fnmatchcase(observable, self.observable) and self.where(case)


def known_failures(backend: Backend) -> tuple[KnownFailure, ...]:
    """Return the known failures of a backend: its optional attribute ``known_failures``."""
    return tuple(getattr(backend, "known_failures", ()))
