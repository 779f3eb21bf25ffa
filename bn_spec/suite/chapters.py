"""Finds the suite, imports its chapters, and looks requirements up.

Once installed, the suite is a subpackage; in a checkout, it is a folder beside the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from bn_spec.errors import ConfigError, allowed
from bn_spec.specification.requirement import CHAPTERS, REQUIREMENTS, Requirement

SUITE = "bn_spec.conformance"
"""Import name of the installed suite. In a checkout, it is the folder ``conformance``."""


def suite_folder() -> Path:
    """Return the folder of the suite, as installed or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conformance"
    return installed if installed.is_dir() else package.parent / "conformance"


@cache
def load_suite() -> tuple[ModuleType, ...]:
    """Import and return the chapters of the suite; importing a chapter declares its properties."""
    package = SUITE if find_spec(SUITE) else suite_folder().name
    if package != SUITE and not find_spec(package):
        sys.path.append(str(suite_folder().parent))
    return tuple(import_module(f"{package}.test_{chapter.lower()}") for chapter in CHAPTERS)


def requirements_matching(pattern: str) -> list[Requirement]:
    """Return the requirements whose id matches a glob.

    Raises:
        ConfigError: No id matches; the message names the chapters.

    """
    load_suite()
    found = [each for name, each in REQUIREMENTS.items() if fnmatchcase(name, pattern)]
    if not found:
        chapters = ", ".join(f"{chapter}-*" for chapter in CHAPTERS)
        raise ConfigError(f"{pattern!r} matches no requirement; chapters: {chapters}")
    return found


def requirement_named(id: str) -> Requirement:
    """Return the requirement with this id.

    Raises:
        ConfigError: No requirement has this id; the message names the nearest one.

    """
    load_suite()
    try:
        return REQUIREMENTS[id]
    except KeyError:
        raise ConfigError(allowed("requirement", id, REQUIREMENTS)) from None


def suite_tests() -> dict[str, Callable[..., None]]:
    """Return the tests of the suite by name.

    A test module that consists of ``globals().update(suite_tests())`` runs the whole suite.
    """
    tests: dict[str, Callable[..., None]] = {}
    for chapter in load_suite():
        for member in vars(chapter).values():
            if hasattr(member, "bn_property"):
                tests[member.__name__] = member
    return tests
