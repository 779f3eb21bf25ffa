"""How adapters import their frameworks. Needs none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bn_spec.errors import UnavailableBackend


@contextmanager
def framework(extra: str, *modules: str) -> Iterator[None]:
    """Import in this context; one of the modules that is not there makes the backend unavailable, others are faults.

    Raises:
        UnavailableBackend: it names the extra of this package by which the module can be had.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in modules:
            raise
        sentence = f"{error.name} is not installed; install it with: pip install 'bn-spec[{extra}]'"
        raise UnavailableBackend(sentence) from error
