"""Where the suite is: a subpackage once it is installed, and a folder beside the package in a checkout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from bn_spec.specification.requirement import CHAPTERS

SUITE = "bn_spec.conformance"
"""The suite's import name once it is installed; in a checkout it is the folder ``conformance`` beside the package."""


def suite_folder() -> Path:
    """Return the folder of the suite, as installed or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conformance"
    return installed if installed.is_dir() else package.parent / "conformance"


@cache
def load_suite() -> tuple[ModuleType, ...]:
    """Import and return the chapters of the suite, which declares their properties, as installed or in a checkout."""
    package = SUITE if find_spec(SUITE) else suite_folder().name
    if package != SUITE and not find_spec(package):
        sys.path.append(str(suite_folder().parent))
    return tuple(import_module(f"{package}.test_{chapter.lower()}") for chapter in CHAPTERS)


def suite_tests() -> dict[str, Callable[..., None]]:
    """Return the tests of the suite by name, so that a module of tests can have them all: its own run is the suite's.

    ``globals().update(suite_tests())`` is such a module.
    """
    functions = (function for chapter in load_suite() for function in vars(chapter).values())
    return {
        function.__name__: function for function in functions if hasattr(function, "bn_property")
    }
