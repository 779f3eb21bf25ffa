"""A new adopter package: the example kernel under another name.

The example is its own template, a package that works and is tested, so that there is one copy of
it: in a checkout in ``examples``, and in the package once it is installed.
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
"""What tools leave behind in a checkout."""


def template_folder() -> Path:
    """Return the folder of the example, as installed or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "templates" / "new_backend"
    return installed if installed.is_dir() else package.parent / "examples" / EXAMPLE


def rendered(name: str) -> Mapping[Path, str]:
    """Return the files of a new package, by their place in it.

    Raises:
        ConfigError: no package can have that name.

    """
    module = _module_of(name)
    folder = template_folder()

    def renamed(text: str) -> str:
        return text.replace(EXAMPLE, name).replace(_module_of(EXAMPLE), module)

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    places = {path: path.relative_to(folder) for path in paths}
    return {
        Path(renamed(place.as_posix())): renamed(path.read_text("utf-8"))
        for path, place in places.items()
        if not any(part in _LEAVINGS or part.endswith(".egg-info") for part in place.parts)
    }


def write(name: str, folder: Path) -> Path:
    """Write a new package into a folder of its own in ``folder``, whole or not at all, and return where it is.

    Raises:
        ConfigError: no package can have that name, or there is such a folder.
        OSError: the folder cannot be written.

    """
    files, target = rendered(name), folder / name
    with folder_written_whole(target) as new:
        for place, text in files.items():
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            (new / place).write_text(text, "utf-8")
    return target


def _module_of(name: str) -> str:
    """Return the name under which a package is imported."""
    module = name.replace("-", "_")
    if not _ALLOWED.fullmatch(name):
        nearest = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"; did you mean {nearest!r}?" if _ALLOWED.fullmatch(nearest) else ""
        raise ConfigError(
            f"a package cannot be called {name!r}; allowed: lower-case letters, digits, '-' and '_' between them,"
            f" a letter first, as in 'my-kernel'{hint}"
        )
    if iskeyword(module) or module in sys.stdlib_module_names or module in _OURS:
        raise ConfigError(
            f"a package cannot be called {name!r}, which Python or bn-spec uses; allowed: another name"
        )
    return module


_OURS = ("bn_spec", "numpy", "tests")
"""Modules that a new package would hide from itself."""
