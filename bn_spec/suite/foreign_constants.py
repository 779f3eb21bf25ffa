"""Keeps Hypothesis from drawing constants that stand in whatever modules happen to be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis.internal.conjecture import providers


@contextmanager
def without_foreign_constants() -> Iterator[None]:
    """Draw, within it, the same numbers wherever and after whatever it is drawn.

    One number in twenty Hypothesis takes from the source of the modules that are loaded, unless
    they lie in site-packages: from bn-spec in a checkout and not once it is installed, from the
    specimens once a failure was explained, from pytest where pytest-xdist has copied it to another
    machine. What a worker drew would then depend on what it did before, and a specimen would be
    caught since its numbers stand in its source. There is no setting against it. A version of
    Hypothesis that does it elsewhere fails a test of ours, and no run.
    """
    ours = (
        {"_get_local_constants": lambda: _NONE, "CONSTANTS_CACHE": _CACHE}
        if _CACHE is not None
        else {}
    )
    theirs = {name: getattr(providers, name) for name in ours}
    _set(ours)
    try:
        yield
    finally:
        _set(theirs)


def _set(values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(providers, name, value)


_NONE: Any = providers.Constants() if hasattr(providers, "Constants") else None
_CACHE: Any = (
    type(providers.CONSTANTS_CACHE)(1024) if hasattr(providers, "_get_local_constants") else None
)
