"""Files of known failures: violations that somebody has understood, in TOML, with the reason of each.

::

    [[failure]]
    requirement = "GRD-*"            # a requirement, or several
    backend = "mykernel"             # all by default, as for dtype and observable
    dtype = "*float16"
    observable = "grad_input"
    where = ["n = 1 or n = 2"]       # regions, all of which a case must reach; any case by default
    reason = "sums of dy are kept in half precision"
    link = "https://tracker/123"     # optional
    expires = 2027-01-31             # optional: from then on it fails the run
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from bn_spec.backend.contract import Backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.backend.registry import registered
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.script import Case
from bn_spec.case.whole_files import written_whole
from bn_spec.errors import ConfigError, allowed
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.regions import REGIONS, reached


@dataclass(frozen=True)
class Entry:
    """An entry of a file: the failures that it covers, and why they are known."""

    requirement: str
    reason: str
    backend: str = "*"
    dtype: str = "*"
    observable: str = "*"
    where: tuple[str, ...] = ()
    link: str = ""
    expires: date | None = None
    origin: str = ""
    """The file and the place in it, for people."""

    def __str__(self) -> str:
        narrow = (f"{name} {value}" for name in _GLOBS if (value := getattr(self, name)) != "*")
        return f"{self.origin} ({', '.join([self.requirement, *narrow, *self.where])})"

    @cached_property
    def failure(self) -> KnownFailure:
        """What the entry says of a backend that it names."""
        dtypes = tuple(dtype for dtype in DTYPES if fnmatchcase(dtype, self.dtype))
        reason = f"{self.reason} ({self.link})" if self.link else self.reason
        return KnownFailure(self.requirement, self.observable, reason, dtypes, self._reaches)

    def _reaches(self, case: Case) -> bool:
        return not self.where or all(
            not there.isdisjoint(reached(case)) for there in map(_alternatives, self.where)
        )

    def concerns(self, backend: str, requirement: str, dtype: str) -> bool:
        """Whether it covers failures of a cell."""
        return fnmatchcase(backend, self.backend) and self.failure.concerns(requirement, dtype)

    def expired(self, today: date) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= today


_GLOBS = ("backend", "dtype", "observable")
_KEYS = {field.name for field in fields(Entry)} - {"origin"}


def _alternatives(regions: str) -> frozenset[str]:
    return frozenset(regions.split(" or "))


def load(path: Path) -> tuple[Entry, ...]:
    """Read a file of known failures.

    Raises:
        ConfigError: it cannot be read, or an entry lacks a reason or says what nobody understands.

    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}; --bn-known-failures-update writes one"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None
    if strange := content.keys() - {"failure"}:
        raise ConfigError(f"{path}: {allowed('table', sorted(strange)[0], ['failure'])}")
    entries = content.get("failure", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(
            f"{path}: failure is {type(entries).__name__}; allowed: tables, each headed [[failure]]"
        )
    return tuple(
        _entry(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1)
    )


def _entry(origin: str, content: Mapping[str, Any]) -> Entry:
    """Return an entry; raise :class:`ConfigError` where it makes no sense."""
    if strange := content.keys() - _KEYS:
        raise ConfigError(f"{origin}: {allowed('key', sorted(strange)[0], _KEYS)}")
    given = {"requirement": "", "reason": "", **content}
    where = given.get("where", ())
    given["where"] = (
        tuple(where) if isinstance(where, list) else (where,) if isinstance(where, str) else where
    )
    for name, value in given.items():
        wanted: type = {"where": tuple, "expires": date}.get(name, str)
        if type(value) is not wanted:
            raise ConfigError(f"{origin}: {name} is {value!r}; allowed: {_SORTS[wanted]}")
    entry = Entry(**given, origin=origin)
    if not any(fnmatchcase(name, entry.requirement) for name in REQUIREMENTS):
        raise ConfigError(f"{origin}: {allowed('requirement', entry.requirement, REQUIREMENTS)}")
    if not entry.reason.strip():
        raise ConfigError(f"{entry}: its reason is missing; say why this is known to fail")
    if not entry.failure.dtypes:
        raise ConfigError(f"{origin}: {allowed('dtype', entry.dtype, DTYPES)}")
    for region in {one for regions in entry.where for one in _alternatives(str(regions))} - REGIONS:
        raise ConfigError(f"{origin}: {allowed('region', region, REGIONS)}")
    return entry


_SORTS = {str: "text", tuple: "a list of regions", date: "a date, as in 2027-01-31"}


def superfluous(entries: Iterable[Entry], backends: Iterable[Backend]) -> list[str]:
    """Return a sentence for each entry that can cover nothing, of these backends or of others that are registered."""
    run = list(backends)
    return [sentence for entry in entries if (sentence := _superfluous(entry, run))]


def _superfluous(entry: Entry, backends: list[Backend]) -> str:
    named = [backend for backend in backends if fnmatchcase(backend.name, entry.backend)]
    if not named:
        elsewhere = any(fnmatchcase(name, entry.backend) for name in registered())
        known = {*registered(), *(backend.name for backend in backends)}
        return (
            ""
            if elsewhere
            else f"{entry} matches nothing: {allowed('backend', entry.backend, known)}"
        )
    if not any(
        dtype in entry.failure.dtypes for backend in named for dtype in backend.capabilities.dtypes
    ):
        return f"{entry} matches nothing: {' and '.join(b.name for b in named)} claim no such dtype; remove it"
    return ""


TEMPLATE = """
[[failure]]
requirement = "{requirement}"
backend = "{backend}"
dtype = "{dtype}"
observable = "{observable}"
reason = ""
"""


def append(path: Path, failures: Iterable[tuple[str, str, str, str]]) -> int:
    """Add an entry, its reason left to be filled in, for each (requirement, backend, dtype, observable).

    What stands in the file stays as it is. Returns the number of entries.
    """
    names = ("requirement", "backend", "dtype", "observable")
    blocks = [TEMPLATE.format(**dict(zip(names, failure, strict=True))) for failure in failures]
    before = (
        path.read_text("utf-8") if path.exists() else "# Known failures: give each its reason.\n"
    )
    if blocks:
        with written_whole(path) as file:
            file.write((before.rstrip("\n") + "\n" + "".join(blocks)).encode())
    return len(blocks)
