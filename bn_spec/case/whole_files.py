"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bn_spec.errors import ConfigError


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and move it to ``path`` at the end.

    An existing file at ``path`` is replaced. After an error, the temporary file is removed, and
    ``path`` is as it was.

    Raises:
        OSError: The file cannot be written.

    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def folder_written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a temporary folder, and move it to ``path`` at the end.

    After an error, the temporary folder is removed.

    Raises:
        ConfigError: There is something at ``path``, which stays as it is.
        OSError: The folder cannot be written.

    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} exists, and is not overwritten; name a new folder")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
