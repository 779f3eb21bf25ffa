"""The record of a run as a file: where it ran, on what, and one record per cell."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..backend import Backend
from ..errors import RunFileError
from ..files import written_whole
from .records import Record, Run

FORMAT = "bn-spec run"
VERSION = 1


@dataclass(frozen=True)
class Judged:
    """A backend that was judged: its name and version, and how its conventions depart from PyTorch's."""

    name: str
    description: str
    grade: str
    departures: tuple[str, ...] = ()

    @staticmethod
    def of(backend: Backend) -> Judged:
        """Return what is to be kept of a backend."""
        claims = backend.capabilities
        return Judged(backend.name, backend.description, claims.grade, tuple(claims.dialect.departures()))


@dataclass(frozen=True)
class RunFile:
    """What is kept of a run: versions of what judged, machine and Python, the backends, and one record per cell."""

    judged_by: Mapping[str, Any]
    backends: tuple[Judged, ...]
    records: tuple[Record, ...]
    unavailable: Mapping[str, str]
    incomplete: tuple[str, ...]

    @staticmethod
    def of(run: Run, judged_by: Mapping[str, Any], backends: tuple[Judged, ...]) -> RunFile:
        """Return what is to be kept of a run; its records in an order that does not depend on who made them."""
        machine = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
        records = sorted(run.records, key=lambda r: (r.backend, r.dtype, r.requirement))
        return RunFile({**judged_by, **machine}, backends, tuple(records), run.unavailable, (*run.lost, *run.missing))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, and the folder that it is to lie in: whole or not at all."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        with written_whole(path) as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")

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
                raise RunFileError(f"{path}: version {content['version']!r}; this bn-spec reads {VERSION}")
            return RunFile(
                content["judged_by"],
                tuple(Judged(**each | {"departures": tuple(each["departures"])}) for each in content["backends"]),
                tuple(Record(**each) for each in content["records"]),
                content["unavailable"],
                tuple(content["incomplete"]),
            )
        except (FileNotFoundError, RunFileError):
            raise
        except Exception as e:
            raise RunFileError(f"{path}: no record of a run, or a damaged one ({type(e).__name__}: {e})") from e
