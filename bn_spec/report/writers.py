"""Reports as files: runs are read from where they lie, and each report is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bn_spec.case.whole_files import written_whole
from bn_spec.errors import RunFileError
from bn_spec.report.badge import badge
from bn_spec.report.markdown import markdown
from bn_spec.report.merge import Merged
from bn_spec.report.run_file import NAME, RunFile
from bn_spec.report.view import View


def located(path: Path) -> Path:
    """Return the record of a run that a path names: a file, or the folder that holds it."""
    return path / NAME if path.is_dir() else path


def read(path: Path) -> RunFile:
    """Return the run that a path names.

    Raises:
        RunFileError: there is none, or it cannot be read.

    """
    try:
        return RunFile.load(located(path))
    except FileNotFoundError:
        where = "this folder holds none" if path.is_dir() else "there is no such file"
        raise RunFileError(
            f"{path}: {where}; allowed: a {NAME}, or a folder with one, as bn-spec run --report-dir leaves it"
        ) from None


def _html(merged: Merged) -> bytes:
    from bn_spec.report.html import html  # only who asks for a page needs Jinja

    return html(merged).encode()


WRITERS: Mapping[str, tuple[str, Callable[[Merged], bytes]]] = MappingProxyType(
    {
        "html": ("report.html", _html),
        "md": ("report.md", lambda merged: markdown(merged).encode()),
        "json": (NAME, lambda merged: merged.run.encoded()),
        "badge": (
            "badge.json",
            lambda merged: json.dumps(badge(View(merged.run)), indent=1).encode() + b"\n",
        ),
    }
)
"""For each format the name of its file, and what makes its content."""


def write(merged: Merged, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write reports into a folder, which is made if need be, and return their paths.

    Raises:
        OSError: the folder or a file cannot be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {folder / name: make(merged) for name, make in (WRITERS[each] for each in formats)}
    for path, content in contents.items():
        with written_whole(path) as file:
            file.write(content)
    return list(contents)
