"""Keeps Hypothesis from drawing constants that it finds in the source of loaded modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis.internal.conjecture import providers


@contextmanager
def without_foreign_constants() -> Iterator[None]:
    """Make Hypothesis draw the same numbers in every process, whatever modules are loaded.

    Hypothesis takes one number in twenty from the source of loaded modules, unless they lie in
    site-packages. So it would draw from bn-spec in a checkout, but not once bn-spec is installed;
    from the specimens once a failure was explained; and from pytest where pytest-xdist has copied
    it to another machine. The draws of a worker would depend on its earlier work, and a specimen
    would be caught because its numbers stand in its source.

    Hypothesis has no setting for this, so the function replaces two private names of Hypothesis. If
    a version of Hypothesis moves them, a test fails, but no run does.
    """
    ours: dict[str, Any] = {}
    if _CACHE is not None:
        ours = {"_get_local_constants": lambda: _NONE, "CONSTANTS_CACHE": _CACHE}
    theirs = {name: getattr(providers, name) for name in ours}
    _set(ours)
    try:
        yield
    finally:
        _set(theirs)


def _set(values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(providers, name, value)


_NONE: Any = None
"""An empty set of constants."""

if hasattr(providers, "Constants"):
    _NONE = providers.Constants()

_CACHE: Any = None
"""A cache of constants of its own, since Hypothesis's may already hold foreign ones."""

if hasattr(providers, "_get_local_constants"):
    _CACHE = type(providers.CONSTANTS_CACHE)(1024)
