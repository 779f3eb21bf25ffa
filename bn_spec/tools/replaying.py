"""A stored case, judged once more by the properties of the requirement that was violated."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from bn_spec.backend.contract import Backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.backend.needs import is_claimed
from bn_spec.backend.registry import load
from bn_spec.errors import CaseFileError
from bn_spec.judge.judging import SURVIVAL
from bn_spec.play import isolated as isolation
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.cell import PROPERTIES, Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.tools.stored_cases import Stored


@dataclass(frozen=True)
class Replay:
    """What came of playing a case again on a backend: the violation, if there is one still, or known failures."""

    backend: Backend
    violation: Violation | None
    known: tuple[KnownFailure, ...]

    @staticmethod
    def of(stored: Stored, name: str, *, isolate: bool = False) -> Replay:
        """Judge a case on the backend called ``name``; one that has killed a process, in a process of its own.

        Raises:
            BackendError: it cannot be loaded. CaseFileError: the requirement is not in this
            specification, or the backend does not claim what the case
                needs.
            BnSpecError: the arithmetic of this process is not that of IEEE 754.

        """
        if stored.requirement not in REQUIREMENTS:
            raise CaseFileError(
                f"cannot replay {stored.id}: there is no requirement {stored.requirement!r}"
            )
        load_suite()
        if not isolation.AVAILABLE or not (isolate or stored.observable == SURVIVAL):
            return Replay._on(stored, load(name), name)
        isolation.check_loading(name, isolation.Limits())
        with closing(isolation.Isolated(load(name), name)) as isolated:
            return Replay._on(stored, isolated, name)

    @staticmethod
    def _on(stored: Stored, backend: Backend, name: str) -> Replay:
        dtype = stored.case.config.dtype
        cells = [
            Cell(prop, backend, dtype, address=name) for prop in PROPERTIES[stored.requirement]
        ]
        if reason := next(filter(None, (cell.not_claimed for cell in cells)), ""):
            raise CaseFileError(f"cannot replay {stored.id}: {reason}")
        if not is_claimed(stored.case, backend.capabilities):
            raise CaseFileError(
                f"cannot replay {stored.id}: {backend.name} does not claim what the case asks for"
            )
        found = next(filter(None, (cell.explained_violation(stored.case) for cell in cells)), None)
        return Replay(backend, found, tuple(known for cell in cells for known in cell.known))
