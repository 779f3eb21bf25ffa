"""Finding backends: by entry point, by import string, by file; with errors that say what to do.

A name is one of

- a name registered under the entry-point group ``bn_spec.backends``;
- ``package.module:attribute``;
- ``path/to/file.py:attribute``.

The attribute is a backend, or a function without arguments that returns one.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
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

BY_DEFAULT = ("reference", "torch-cpu", "torch-cuda")
"""The backends of a run without names. All others are asked for, so that nothing else is imported for such a run."""

_PROTOCOL = ("name", "description", "capabilities", "layer", "to_native", "to_numpy")


@dataclass(frozen=True)
class Selection:
    """The backends of a run by the name they were asked for, and why others that could have been in it are not."""

    backends: dict[str, Backend]
    unavailable: dict[str, str]


def registered() -> dict[str, EntryPoint]:
    """Return the registered entry points by name, in order of name."""
    return {
        entry.name: entry
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    }


def select(names: Iterable[str] = ()) -> Selection:
    """Load the backends called ``names``.

    Without names: those of :data:`BY_DEFAULT` whose framework and device are present. ``all``:
    every registered one, likewise, but for those of expensive signatures. A backend that was asked
    for by name must load.

    Raises:
        BackendError: a backend that was asked for is unknown, broken or unavailable, or two have
        one name.

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
                "it takes minutes, since it compiles for every signature; ask for it by name"
            )
        else:
            chosen[name] = backend
    chosen |= {name: load(name) for name in wanted if name != "all" and name not in offered}
    names_chosen = [backend.name for backend in chosen.values()]
    if twice := {name for name in names_chosen if names_chosen.count(name) > 1}:
        raise BrokenBackend(
            f"two backends are called {', '.join(sorted(twice))}; names must differ"
        )
    return Selection(chosen, unavailable)


def load(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises:
        UnknownBackend: nothing is registered or importable under that name. BrokenBackend:
        importing it failed or changed the floating-point mode of the process (which is then set
            back), or it does not keep the backend contract.
        UnavailableBackend: it says that this machine lacks what it needs.

    """
    mode = floating_point.departures()
    try:
        found = _locate(name)
        ready = isinstance(found, Backend) and not isinstance(found, type)
        backend = _checked(name, found() if callable(found) and not ready else found)
        if left := floating_point.set_back(mode):
            raise BrokenBackend(
                f"backend {name!r}: since it was loaded, this process {' and '.join(left)}; a library built with"
                " -ffast-math does that. Build it without, so that loading it leaves the floating-point mode alone"
            )
        return backend
    except BackendError:
        raise
    except (Exception, SystemExit) as error:
        raise BrokenBackend(
            f"backend {name!r} failed to load: {type(error).__name__}: {error}"
        ) from error


def _locate(name: str) -> Any:
    entries = registered()
    if name in entries:
        return entries[name].load()
    module_name, colon, attribute = name.rpartition(":")
    if not colon:
        raise UnknownBackend(
            allowed("backend", name, entries)
            + " (others are named package.module:attribute or path/to/file.py:attribute)"
        )
    module = (
        _module_from_file(name, Path(module_name))
        if module_name.endswith(".py")
        else _module(name, module_name)
    )
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
            raise
        raise UnknownBackend(
            f"backend {name!r}: there is no module {error.name!r}; it must be importable from here ({Path.cwd()})"
        ) from None


def _module_from_file(name: str, path: Path) -> Any:
    if not path.is_file():
        raise UnknownBackend(f"backend {name!r}: there is no file {path} (looked in {Path.cwd()})")
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
    if missing := [member for member in _PROTOCOL if not hasattr(backend, member)]:
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
            f"backend {name!r} is called {backend.name!r}; allowed: letters, digits, '-', '_' and '.'"
        )
    checked: Backend = backend
    return checked
