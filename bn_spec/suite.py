"""Where the suite is: a subpackage once it is installed, and a folder beside the package in a checkout."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from .requirements import CHAPTERS

SUITE = "bn_spec.conformance"
"""The suite's import name once it is installed; in a checkout it is the folder ``conformance`` beside the package."""


def suite_folder() -> Path:
    """Return the folder of the suite, as installed or in a checkout."""
    package = Path(__file__).parent
    installed = package / "conformance"
    return installed if installed.is_dir() else package.parent / "conformance"


@cache
def load_suite() -> None:
    """Import the chapters of the suite, which declares their properties, as installed or in a checkout."""
    package = SUITE if find_spec(SUITE) else suite_folder().name
    if package != SUITE and not find_spec(package):
        sys.path.append(str(suite_folder().parent))
    for chapter in CHAPTERS:
        import_module(f"{package}.test_{chapter.lower()}")
