"""The file ``run.json``: where a run took place, what it judged, and one record per cell."""

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
"""Name of the format, stored in the file."""

VERSION = 2
"""Version of the format, stored in the file."""

NAME = "run.json"
"""Name of the file in the folder of a run or a report."""

PACKAGES = ("numpy", "ml_dtypes", "hypothesis", "pytest", "pytest-xdist")
"""Packages whose versions decide which cases are drawn and how they are computed."""


@dataclass(frozen=True)
class Judged:
    """A backend that was judged.

    Attributes:
        name: Name of the backend, as in the records.
        description: Its version and device.
        claims: Its claims, as plain data.
        departures: Where its conventions differ from PyTorch's, a sentence each.
        measured: Measured grade by dtype.
        address: Name or address that ``bn-spec run`` loads it by.

    """

    name: str
    description: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    measured: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @staticmethod
    def of(backend: Backend, records: Sequence[Record], address: str = "") -> Judged:
        """Return the entry of a backend in the file; the grades come from the records."""
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
    """Return a value as JSON can store it.

    Tuples become lists, dataclasses become objects, and NaN and infinity become text.
    """
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value


def packages() -> dict[str, str]:
    """Return the versions of :data:`PACKAGES`."""

    def of_package(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {name: of_package(name) for name in PACKAGES}


def _environment() -> dict[str, Any]:
    """Return Python's version, the machine, its cores, and the versions of :data:`PACKAGES`."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "packages": packages(),
    }


@dataclass(frozen=True)
class RunFile:
    """The content of ``run.json``.

    Two runs with the same seed and versions differ in ``timing`` and in the ``seconds`` of their
    records only.

    Attributes:
        judged_by: Versions, profile, number of examples, and seed.
        environment: Python, machine, cores, and package versions.
        backends: The backends that were judged.
        records: One record per cell.
        unavailable: Reasons why backends could not run, by backend.
        faults: Faults of the run as a whole, a sentence each.
        incomplete: Workers that were lost, and tests that never reported.
        exit_code: Exit code of the run.
        timing: Start (UTC), duration in seconds, and number of workers.

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
        """Return the content of the file for a run.

        The records are sorted, so that their order does not depend on the workers.

        Args:
            run: The run, once it has ended.
            judged_by: Versions, profile, number of examples, and seed.
            backends: The judged backends, by the name or address that they were loaded by.
            timing: Start (UTC), duration in seconds, and number of workers.

        """
        judged = [Judged.of(backend, run.records, address) for address, backend in backends.items()]
        return RunFile(
            judged_by=judged_by,
            environment=_environment(),
            backends=tuple(judged),
            records=tuple(sorted(run.records, key=lambda r: (r.backend, r.dtype, r.requirement))),
            unavailable=run.unavailable,
            faults=tuple(run.faults),
            incomplete=(*run.lost, *run.missing),
            exit_code=run.exit_code,
            timing=timing,
        )

    def encoded(self) -> bytes:
        """Return the file as bytes."""
        content = _plain({"format": FORMAT, "version": VERSION, **vars(self)})
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        # UTF-8 cannot encode half a surrogate pair; it becomes an escape, as JSON writes it.
        return text.encode(errors="backslashreplace") + b"\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file as a whole or not at all; its folder is made if it does not exist."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(self.encoded())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RunFile:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: The file does not exist.
            RunFileError: The file is damaged, has another version, or is no record of a run.

        """
        try:
            return _decoded(json.loads(Path(path).read_bytes()), path)
        except (FileNotFoundError, RunFileError):
            raise
        except Exception as e:
            # Damaged JSON fails in many ways; the reader needs the path and one kind of error.
            raise RunFileError(
                f"{path}: not a record of a bn-spec run, or damaged ({type(e).__name__}: {e})"
            ) from e


def _decoded(content: Any, path: str | os.PathLike[str]) -> RunFile:
    """Return the run in the content of a file, once it is checked against the schema."""
    if content["format"] != FORMAT:
        raise RunFileError(f"{path}: format {content['format']!r}; expected {FORMAT!r}")
    if content["version"] != VERSION:
        raise RunFileError(f"{path}: version {content['version']!r}; this bn-spec reads {VERSION}")
    if wrong := first_error(content):
        raise RunFileError(f"{path}: {wrong}")
    backends = [
        Judged(**each | {"departures": tuple(each["departures"])}) for each in content["backends"]
    ]
    return RunFile(
        judged_by=content["judged_by"],
        environment=content["environment"],
        backends=tuple(backends),
        records=tuple(map(Record.from_dict, content["records"])),
        unavailable=content["unavailable"],
        faults=tuple(content["faults"]),
        incomplete=tuple(content["incomplete"]),
        exit_code=content["exit_code"],
        timing=content["timing"],
    )
