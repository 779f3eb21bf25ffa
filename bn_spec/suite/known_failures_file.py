"""Files of known failures: violations that you have understood, in TOML, each with its reason.

::

    [[failure]]
    requirement = "GRD-*"            # an id or a glob
    backend = "mykernel"             # a glob; all backends by default
    dtype = "*float16"               # a glob; all dtypes by default
    observable = "grad_input"        # a glob; all observables by default
    where = ["n = 1 or n = 2"]       # regions, all of which a case must reach; any case by default
    reason = "sums of dy are kept in half precision"
    link = "https://tracker/123"     # optional
    expires = 2027-01-31             # optional: from this day on, the entry fails the run
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
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.regions import REGIONS, reached


@dataclass(frozen=True)
class KnownFailureEntry:
    """An entry of a file of known failures.

    Attributes:
        requirement: Glob of requirements.
        reason: Why the failure is known.
        backend: Glob of backends.
        dtype: Glob of dtypes.
        observable: Glob of observables.
        where: Regions, all of which a case must reach. Each may name alternatives: ``A or B``.
        link: Address of an issue.
        expires: Day from which the entry no longer excuses the failure.
        origin: The file and the number of the entry in it, for messages.

    """

    requirement: str
    reason: str
    backend: str = "*"
    dtype: str = "*"
    observable: str = "*"
    where: tuple[str, ...] = ()
    link: str = ""
    expires: date | None = None
    origin: str = ""

    def __str__(self) -> str:
        words = [self.requirement]
        for name in _GLOBS:
            glob = getattr(self, name)
            if glob != "*":
                words.append(f"{name} {glob}")
        words += self.where
        return f"{self.origin} ({', '.join(words)})"

    @cached_property
    def failure(self) -> KnownFailure:
        """The known failure of any backend that the entry matches."""
        dtypes = tuple(dtype for dtype in DTYPES if fnmatchcase(dtype, self.dtype))
        reason = f"{self.reason} ({self.link})" if self.link else self.reason
        return KnownFailure(self.requirement, self.observable, reason, dtypes, self._reaches)

    def _reaches(self, case: Case) -> bool:
        if not self.where:
            return True
        regions = reached(case)
        return all(not regions.isdisjoint(_alternatives(wanted)) for wanted in self.where)

    def concerns(self, backend: str, requirement: str, dtype: str) -> bool:
        """Whether the entry can cover failures of a cell."""
        return fnmatchcase(backend, self.backend) and self.failure.concerns(requirement, dtype)

    def expired(self, today: date) -> bool:
        """Whether the entry has expired."""
        return self.expires is not None and self.expires <= today


_GLOBS = ("backend", "dtype", "observable")
_KEYS = {field.name for field in fields(KnownFailureEntry)} - {"origin"}


def _alternatives(regions: str) -> frozenset[str]:
    return frozenset(regions.split(" or "))


def load(path: Path) -> tuple[KnownFailureEntry, ...]:
    """Read a file of known failures.

    Raises:
        ConfigError: The file cannot be read, or an entry has no reason or an unknown key, name or
            region.

    """
    load_suite()  # it declares the requirements that entries may name
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}; --bn-known-failures-update writes one"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    strange = content.keys() - {"failure"}
    if strange:
        raise ConfigError(f"{path}: {allowed('table', min(strange), ['failure'])}")
    entries = content.get("failure", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(
            f"{path}: failure is {type(entries).__name__}; allowed: tables, each headed [[failure]]"
        )
    return tuple(
        _entry(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1)
    )


def _entry(origin: str, table: Mapping[str, Any]) -> KnownFailureEntry:
    """Return the entry of a TOML table; raise ConfigError if it makes no sense."""
    strange = table.keys() - _KEYS
    if strange:
        raise ConfigError(f"{origin}: {allowed('key', min(strange), _KEYS)}")
    values = {"requirement": "", "reason": "", **table}
    values["where"] = _regions_of(values.get("where", ()))
    for name, value in values.items():
        wanted: type = {"where": tuple, "expires": date}.get(name, str)
        # A subclass will not do: a time of day is a date to isinstance, and has no place here.
        if type(value) is not wanted:
            raise ConfigError(f"{origin}: {name} is {value!r}; allowed: {_SORTS[wanted]}")
    entry = KnownFailureEntry(**values, origin=origin)
    _check(entry)
    return entry


def _regions_of(where: object) -> object:
    """Return a tuple of regions, if the value is a list of them or a single one."""
    if isinstance(where, list):
        return tuple(where)
    if isinstance(where, str):
        return (where,)
    return where


def _check(entry: KnownFailureEntry) -> None:
    """Raise :class:`ConfigError` if the entry has no reason or a name that nothing matches."""
    origin = entry.origin
    if not any(fnmatchcase(name, entry.requirement) for name in REQUIREMENTS):
        raise ConfigError(f"{origin}: {allowed('requirement', entry.requirement, REQUIREMENTS)}")
    if not entry.reason.strip():
        raise ConfigError(f"{entry}: its reason is missing; say why this is known to fail")
    if not entry.failure.dtypes:
        raise ConfigError(f"{origin}: {allowed('dtype', entry.dtype, DTYPES)}")
    for wanted in entry.where:
        for region in _alternatives(str(wanted)):
            if region not in REGIONS:
                raise ConfigError(f"{origin}: {allowed('region', region, REGIONS)}")


_SORTS = {str: "text", tuple: "a list of regions", date: "a date, as in 2027-01-31"}


def superfluous(entries: Iterable[KnownFailureEntry], backends: Iterable[Backend]) -> list[str]:
    """Return a sentence for each entry that cannot match any backend or dtype.

    An entry may match a registered backend that is not part of the run.
    """
    run = list(backends)
    sentences = [_superfluous(entry, run) for entry in entries]
    return [sentence for sentence in sentences if sentence]


def _superfluous(entry: KnownFailureEntry, backends: list[Backend]) -> str:
    """Return why an entry cannot match anything, or an empty string."""
    named = [backend for backend in backends if fnmatchcase(backend.name, entry.backend)]
    if not named:
        if any(fnmatchcase(name, entry.backend) for name in registered()):
            return ""
        known = {*registered(), *(backend.name for backend in backends)}
        return f"{entry} matches nothing: {allowed('backend', entry.backend, known)}"
    for backend in named:
        if not set(entry.failure.dtypes).isdisjoint(backend.capabilities.dtypes):
            return ""
    names = " and ".join(backend.name for backend in named)
    return f"{entry} matches nothing: {names} claim no such dtype; remove it"


_TEMPLATE = """
[[failure]]
requirement = "{requirement}"
backend = "{backend}"
dtype = "{dtype}"
observable = "{observable}"
reason = ""
"""


def append(path: Path, failures: Iterable[tuple[str, str, str, str]]) -> int:
    """Append an entry with an empty reason for each failure; the rest of the file stays as it is.

    Args:
        path: The file; it is created if it does not exist.
        failures: Tuples of requirement, backend, dtype and observable.

    Returns:
        The number of entries that were appended.

    """
    names = ("requirement", "backend", "dtype", "observable")
    blocks = [_TEMPLATE.format(**dict(zip(names, failure, strict=True))) for failure in failures]
    before = "# Known failures: give each its reason.\n"
    if path.exists():
        before = path.read_text("utf-8")
    if blocks:
        with written_whole(path) as file:
            file.write((before.rstrip("\n") + "\n" + "".join(blocks)).encode())
    return len(blocks)
