"""Reading the files of runs, and writing reports as files."""

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
    """Return the file of a run, from its own path or from that of its folder."""
    return path / NAME if path.is_dir() else path


def read(path: Path) -> RunFile:
    """Return the run in a file, or in the file of a folder.

    Raises:
        RunFileError: The file does not exist or cannot be read.

    """
    try:
        return RunFile.load(located(path))
    except FileNotFoundError:
        what = f"this folder has no {NAME}" if path.is_dir() else "no such file"
        raise RunFileError(
            f"{path}: {what}; expected a {NAME} or a folder that has one;"
            " `bn-spec run --report-dir DIR` writes it"
        ) from None


def _html(merged: Merged) -> bytes:
    # Jinja takes time to import, and the other formats do not use it.
    from bn_spec.report.html import html

    return html(merged).encode()


def _markdown(merged: Merged) -> bytes:
    return markdown(merged).encode()


def _json(merged: Merged) -> bytes:
    return merged.run.encoded()


def _badge(merged: Merged) -> bytes:
    return json.dumps(badge(View(merged.run)), indent=1).encode() + b"\n"


WRITERS: Mapping[str, tuple[str, Callable[[Merged], bytes]]] = MappingProxyType(
    {
        "html": ("report.html", _html),
        "md": ("report.md", _markdown),
        "json": (NAME, _json),
        "badge": ("badge.json", _badge),
    }
)
"""File name of each format, and the function that returns the file's content."""


def write(merged: Merged, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write reports into a folder and return their paths; the folder is made if necessary.

    Each file is written as a whole or not at all.

    Raises:
        OSError: The folder or a file cannot be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    # All contents come first, so that a failure to make one leaves every old file in place.
    contents = {folder / name: make(merged) for name, make in (WRITERS[each] for each in formats)}
    for path, content in contents.items():
        with written_whole(path) as file:
            file.write(content)
    return list(contents)
