"""Creates a package that tests a kernel: a copy of the example kernel under another name.

The template is the example itself, a package that works and is tested. In a checkout it lies in
``examples``; once bn-spec is installed, it lies in the package.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path

from bn_spec.case.whole_files import folder_written_whole
from bn_spec.errors import ConfigError

EXAMPLE = "example-kernel"
"""Name of the example."""

_ALLOWED = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LEAVINGS = (
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".bn_spec",
    "build",
    "dist",
)
"""Folders that tools leave behind in a checkout."""


def template_folder() -> Path:
    """Return the folder of the example, as installed or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "templates" / "new_backend"
    return installed if installed.is_dir() else package.parent / "examples" / EXAMPLE


def rendered(name: str) -> Mapping[Path, str]:
    """Return the texts of the files of a new package, by their paths in it.

    Raises:
        ConfigError: A package cannot have that name.

    """
    module = _module_of(name)
    folder = template_folder()

    def renamed(text: str) -> str:
        return text.replace(EXAMPLE, name).replace(_module_of(EXAMPLE), module)

    texts: dict[Path, str] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and not any(_is_leaving(part) for part in place.parts):
            texts[Path(renamed(place.as_posix()))] = renamed(path.read_text("utf-8"))
    return texts


def _is_leaving(name: str) -> bool:
    return name in _LEAVINGS or name.endswith(".egg-info")


def write(name: str, folder: Path) -> Path:
    """Write a new package into ``folder / name``, whole or not at all, and return that folder.

    Raises:
        ConfigError: A package cannot have that name, or the folder exists.
        OSError: The folder cannot be written.

    """
    files, target = rendered(name), folder / name
    with folder_written_whole(target) as new:
        for place, text in files.items():
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            (new / place).write_text(text, "utf-8")
    return target


def _module_of(name: str) -> str:
    """Return the import name of a package; raise ConfigError if its name is not allowed."""
    module = name.replace("-", "_")
    if not _ALLOWED.fullmatch(name):
        nearest = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"; did you mean {nearest!r}?" if _ALLOWED.fullmatch(nearest) else ""
        raise ConfigError(
            f"a package cannot be called {name!r}; allowed: lower-case letters, digits, and '-' or"
            f" '_' between them, with a letter first, as in 'my-kernel'{hint}"
        )
    if iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise ConfigError(
            f"a package cannot be called {name!r}, since Python or bn-spec uses that name;"
            " choose another one"
        )
    return module


_TAKEN = ("bn_spec", "numpy", "tests")
"""Modules that a package of the same name would hide from itself."""
