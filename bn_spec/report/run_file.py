"""The record of a run as a file: where it ran, on what, and one record per cell."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from bn_spec.backend.contract import Backend
from bn_spec.case.whole_files import written_whole
from bn_spec.errors import RunFileError
from bn_spec.report.records import Record, Run
from bn_spec.report.schema import first_error

FORMAT = "bn-spec run"
VERSION = 2

NAME = "run.json"
"""What the file is called in the folder of a report."""

PACKAGES = ("numpy", "ml_dtypes", "hypothesis", "pytest", "pytest-xdist")
"""Their versions decide what is drawn and how it is computed."""


@dataclass(frozen=True)
class Judged:
    """A backend that was judged: its name and version, its claims, and the grade that was measured by dtype.

    ``departures`` say in a sentence each where its conventions are not PyTorch's; ``address`` is
    what loads it.
    """

    name: str
    description: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    measured: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @staticmethod
    def of(backend: Backend, records: Sequence[Record], address: str = "") -> Judged:
        """Return what is to be kept of a backend, given the records of a run."""
        claims = backend.capabilities
        measured = {r.dtype: r.grade for r in records if r.backend == backend.name and r.grade}
        return Judged(
            backend.name,
            backend.description,
            _plain(asdict(claims)),
            tuple(claims.dialect.departures()),
            dict(sorted(measured.items())),
            address or backend.name,
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: lists for tuples, objects for dataclasses, text for what is not finite."""
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def packages() -> dict[str, str]:
    """Return the versions of :data:`PACKAGES`."""

    def of_package(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {name: of_package(name) for name in PACKAGES}


def _environment() -> dict[str, Any]:
    """Return where a run took place: Python, machine, cores, and the versions of what a run stands on."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "packages": packages(),
    }


@dataclass(frozen=True)
class RunFile:
    """What is kept of a run: who judged whom, where, what came of it, and one record per cell.

    ``judged_by`` has versions, profile, examples and seed; ``timing`` the start (UTC), the seconds
    it took and the number of workers, the only parts, with the ``seconds`` of records, that differ
    from one run to the next.
    """

    judged_by: Mapping[str, Any]
    environment: Mapping[str, Any]
    backends: tuple[Judged, ...]
    records: tuple[Record, ...]
    unavailable: Mapping[str, str]
    faults: tuple[str, ...]
    incomplete: tuple[str, ...]
    exit_code: int
    timing: Mapping[str, Any]

    @staticmethod
    def of(
        run: Run,
        judged_by: Mapping[str, Any],
        backends: Mapping[str, Backend],
        timing: Mapping[str, Any],
    ) -> RunFile:
        """Return what is to be kept of a run of backends, by what they were loaded as.

        The records are in an order that does not depend on who made them.
        """
        return RunFile(
            judged_by,
            _environment(),
            tuple(
                Judged.of(backend, run.records, address) for address, backend in backends.items()
            ),
            tuple(sorted(run.records, key=lambda r: (r.backend, r.dtype, r.requirement))),
            run.unavailable,
            tuple(run.faults),
            (*run.lost, *run.missing),
            run.exit_code,
            timing,
        )

    def encoded(self) -> bytes:
        """Return the content of the file."""
        content = _plain({"format": FORMAT, "version": VERSION, **vars(self)})
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair, which UTF-8 has no bytes for, becomes what JSON writes for it.
        return text.encode(errors="backslashreplace") + b"\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, and the folder that it is to lie in: whole or not at all."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(self.encoded())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RunFile:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            RunFileError: it is damaged, of another version, or no record of a run.

        """
        try:
            content = json.loads(Path(path).read_bytes())
            if content["format"] != FORMAT:
                raise RunFileError(f"{path}: format {content['format']!r}; expected {FORMAT!r}")
            if content["version"] != VERSION:
                raise RunFileError(
                    f"{path}: version {content['version']!r}; this bn-spec reads {VERSION}"
                )
            if wrong := first_error(content):
                raise RunFileError(f"{path}: {wrong}")
            return RunFile(
                content["judged_by"],
                content["environment"],
                tuple(
                    Judged(**each | {"departures": tuple(each["departures"])})
                    for each in content["backends"]
                ),
                tuple(map(Record.from_dict, content["records"])),
                content["unavailable"],
                tuple(content["faults"]),
                tuple(content["incomplete"]),
                content["exit_code"],
                content["timing"],
            )
        except (FileNotFoundError, RunFileError):
            raise
        except Exception as e:
            raise RunFileError(
                f"{path}: no record of a run, or a damaged one ({type(e).__name__}: {e})"
            ) from e
