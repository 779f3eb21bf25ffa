"""Loading backends by name.

The name of a backend is one of

- a name that a package registers in the entry-point group ``bn_spec.backends``;
- ``package.module:attribute``;
- ``path/to/file.py:attribute``.

The attribute is a backend, or a function without arguments that returns one.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bn_spec.backend import floating_point
from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.errors import BackendError, BrokenBackend, UnavailableBackend, UnknownBackend, allowed

GROUP = "bn_spec.backends"
"""Entry-point group of backends."""

BY_DEFAULT = ("reference", "torch-cpu", "torch-cuda")
"""Names of the backends of a run that names none; such a run imports no other framework."""

_PROTOCOL = ("name", "description", "capabilities", "layer", "to_native", "to_numpy")
"""Names of the members of :class:`bn_spec.backend.contract.Backend`."""


@dataclass(frozen=True)
class Selection:
    """The backends of a run.

    Attributes:
        backends: The backends, by the name under which each was loaded.
        unavailable: Why other backends of the run could not be loaded, by name.

    """

    backends: dict[str, Backend]
    unavailable: dict[str, str]


def registered() -> dict[str, EntryPoint]:
    """Return the registered entry points by name, in alphabetical order."""
    entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry for entry in entries}


def select(names: Iterable[str] = ()) -> Selection:
    """Load the backends of a run.

    Args:
        names: Names of backends, each of which must load. ``all`` stands for every registered
            backend whose framework and device are present, except those with expensive signatures.
            Without names, the backends are those of :data:`BY_DEFAULT` whose framework and device
            are present.

    Raises:
        BackendError: A backend in ``names`` is unknown, broken or unavailable; a registered one is
            broken; or two backends have the same name.

    """
    wanted = tuple(dict.fromkeys(names))
    entries = registered()
    offered = [name for name in entries if "all" in wanted or (not wanted and name in BY_DEFAULT)]
    chosen: dict[str, Backend] = {}
    unavailable: dict[str, str] = {}
    for name in offered:
        try:
            backend = load(name)
        except UnavailableBackend as error:
            if name in wanted:
                raise
            unavailable[name] = str(error)
            continue
        if backend.capabilities.expensive_signatures and name not in wanted:
            unavailable[name] = (
                "it compiles for every signature, which takes minutes; name it to run it"
            )
        else:
            chosen[name] = backend
    chosen |= {name: load(name) for name in wanted if name != "all" and name not in offered}
    _check_names(backend.name for backend in chosen.values())
    return Selection(chosen, unavailable)


def _check_names(names: Iterable[str]) -> None:
    """Raise BrokenBackend if two of these names of backends are the same."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise BrokenBackend(
            f"two backends are called {', '.join(twice)}; give each backend a name of its own"
        )


def load(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises:
        UnknownBackend: Nothing is registered or importable under this name.
        BrokenBackend: Importing it failed; or changed the floating-point mode of the process, which
            is then restored; or the object does not keep the backend contract.
        UnavailableBackend: This machine lacks a framework or a device that the backend needs.

    """
    mode = floating_point.departures()
    try:
        found = _locate(name)
        # A class of backends has all members of the protocol too, but must be called.
        ready = isinstance(found, Backend) and not isinstance(found, type)
        if callable(found) and not ready:
            found = found()
        backend = _checked(name, found)
        if left := floating_point.set_back(mode):
            raise BrokenBackend(
                f"backend {name!r}: since it was loaded, this process {' and '.join(left)};"
                " a library built with -ffast-math does that. Build the library without this option"
            )
        return backend
    except BackendError:
        raise
    except (Exception, SystemExit) as error:
        raise BrokenBackend(
            f"backend {name!r} failed to load: {type(error).__name__}: {error}"
        ) from error


def _locate(name: str) -> Any:
    """Return the object that a name refers to."""
    entries = registered()
    if name in entries:
        return entries[name].load()
    module_name, colon, attribute = name.rpartition(":")
    if not colon:
        raise UnknownBackend(
            allowed("backend", name, entries)
            + " (others are named package.module:attribute or path/to/file.py:attribute)"
        )
    if module_name.endswith(".py"):
        module = _module_from_file(name, Path(module_name))
    else:
        module = _module(name, module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [a for a in dir(module) if a.isidentifier() and not a.startswith("_")]
        raise UnknownBackend(f"{module_name}: {allowed('attribute', attribute, public)}") from None


def _module(name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and one that it imports does not
        raise UnknownBackend(
            f"backend {name!r}: there is no module {error.name!r};"
            f" it must be importable from {Path.cwd()}"
        ) from None


def _module_from_file(name: str, path: Path) -> Any:
    if not path.is_file():
        raise UnknownBackend(
            f"backend {name!r}: there is no file {path}; a relative path starts from {Path.cwd()}"
        )
    alias = f"bn_spec_file_{re.sub(r'[^0-9A-Za-z]', '_', str(path.resolve()))}"
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, path)
    if spec is None or spec.loader is None:
        raise UnknownBackend(f"backend {name!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module


def _checked(name: str, backend: Any) -> Backend:
    """Return an object as a backend; raise BrokenBackend unless it keeps the contract."""
    missing = [member for member in _PROTOCOL if not hasattr(backend, member)]
    if missing:
        raise BrokenBackend(
            f"backend {name!r} is {type(backend).__name__} without {', '.join(missing)};"
            f" a backend has {', '.join(_PROTOCOL)}"
        )
    if not isinstance(backend.capabilities, Capabilities):
        raise BrokenBackend(
            f"backend {name!r} has capabilities of type {type(backend.capabilities).__name__};"
            " expected bn_spec.Capabilities"
        )
    if not isinstance(backend.name, str) or not re.fullmatch(r"[\w.-]+", backend.name):
        raise BrokenBackend(
            f"backend {name!r} has the name {backend.name!r};"
            " allowed: letters, digits, '-', '_' and '.'"
        )
    checked: Backend = backend
    return checked
