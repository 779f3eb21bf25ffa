"""Replays a stored case: judges it again by the property of the violated requirement."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from bn_spec.backend.contract import Backend
from bn_spec.backend.floating_point import check_arithmetic
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.backend.needs import is_claimed
from bn_spec.backend.registry import load
from bn_spec.errors import CaseFileError
from bn_spec.judge.judging import SURVIVAL
from bn_spec.play import isolated as isolation
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.property import PROPERTIES
from bn_spec.tools.diagnosis import explain
from bn_spec.tools.stored_cases import Stored


@dataclass(frozen=True)
class Replay:
    """The outcome of a replay.

    Attributes:
        backend: The backend on which the case was played.
        violation: The violation, if the case still fails.
        known: The known failures that occurred.

    """

    backend: Backend
    violation: Violation | None
    known: tuple[KnownFailure, ...]

    @staticmethod
    def of(stored: Stored, name: str, *, isolate: bool = False) -> Replay:
        """Judge a stored case again.

        A case that has ended a process is always played in a process of its own.

        Args:
            stored: The case.
            name: The name by which the backend can be loaded.
            isolate: Run the backend in a process of its own.

        Raises:
            BackendError: The backend cannot be loaded.
            CaseFileError: The requirement is not in this specification, or the backend does not
                claim what the case needs.
            BnSpecError: The arithmetic of this process is not that of IEEE 754.

        """
        load_suite()
        if stored.requirement not in PROPERTIES:
            raise CaseFileError(
                f"cannot replay {stored.id}: there is no requirement {stored.requirement!r}"
            )
        if not isolation.AVAILABLE or not (isolate or stored.observable == SURVIVAL):
            return Replay._on(stored, load(name), name)
        isolation.check_loading(name, isolation.Limits())
        with closing(isolation.Isolated(load(name), name)) as isolated:
            return Replay._on(stored, isolated, name)

    @staticmethod
    def _on(stored: Stored, backend: Backend, name: str) -> Replay:
        case = stored.case
        cell = Cell(PROPERTIES[stored.requirement], backend, case.config.dtype, name)
        if reason := cell.not_claimed:
            raise CaseFileError(f"cannot replay {stored.id}: {reason}")
        if not is_claimed(case, backend.capabilities):
            raise CaseFileError(
                f"cannot replay {stored.id}: {backend.name} does not claim what the case asks for"
            )
        check_arithmetic(subnormals=cell.claims.subnormals)
        found = cell.violation(case)
        explained = found and explain(cell, found)
        return Replay(backend, explained, tuple(cell.tally.known))
