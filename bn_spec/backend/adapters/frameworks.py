"""The import of a framework by its adapter. Needs none of the frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bn_spec.errors import UnavailableBackend


@contextmanager
def framework(extra: str, *modules: str) -> Iterator[None]:
    """Import a framework within this context.

    If one of ``modules`` is not installed, the backend is unavailable. The absence of any other
    module is a fault of the installation, and its ModuleNotFoundError passes unchanged.

    Raises:
        UnavailableBackend: one of ``modules`` is missing; the message names the extra of this
            package that installs it.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in modules:
            raise
        sentence = f"{error.name} is not installed; install it with: pip install 'bn-spec[{extra}]'"
        raise UnavailableBackend(sentence) from error
