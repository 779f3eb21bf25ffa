"""Example databases: they keep failing examples, share them between runs, and replay them first.

A database stores the choices that Hypothesis made, not the resulting cases. Stored choices mean the
same only under the same versions of Hypothesis and bn-spec. Hypothesis deletes choices that it
cannot read or that no longer fail.

The databases are Hypothesis's own. This module opens them from one option, keeps the cells apart,
and makes sure that a broken database never fails a run.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    GitHubArtifactDatabase,
    MultiplexedDatabase,
    ReadOnlyDatabase,
)

from bn_spec.errors import ConfigError

ALLOWED = (
    "a folder, redis://HOST:PORT/NUMBER, github:OWNER/REPO or github:OWNER/REPO/ARTIFACT;"
    " or several of them with commas between, where only the first is written to"
)
"""Places of databases, in the words of messages."""

ARTIFACT = "hypothesis-example-db"
"""Default name of a GitHub artifact that holds a database, as Hypothesis proposes it."""

PATIENCE = 5.0
"""Timeout for an answer of a database server, in seconds."""

# A single letter before a colon is a drive of Windows, not a scheme.
_SCHEME = re.compile(r"[a-z]{2,}:(?://)?")


@dataclass
class Databases:
    """The databases of a run, combined into one.

    Attributes:
        names: What was opened, without passwords.
        database: The combined database.
        notes: Problems with the databases; they never fail a run.

    """

    names: tuple[str, ...]
    database: ExampleDatabase
    notes: list[str] = field(default_factory=list)

    def of_cell(self, requirement: str, backend: str, dtype: str) -> ExampleDatabase:
        """Return the part of the database that only one cell reads and writes."""
        return _Part(self.database, f"{requirement} {backend} {dtype} ".encode())

    def look(self) -> None:
        """Download artifacts now, once, before each worker would do so by itself."""
        # Any fetch triggers the download. Nothing is stored under the empty key.
        for _ in self.database.fetch(b""):
            pass

    def __str__(self) -> str:
        return ", ".join(self.names)


def open_databases(text: str, *, relative_to: Path, downloads: Path) -> Databases:
    """Open the databases that an option names.

    A GitHub repository that cannot be read is not an error: it has no artifact before its first
    nightly run.

    Args:
        text: One place or several, with commas between; see :data:`ALLOWED`.
        relative_to: The folder that relative folders are relative to.
        downloads: The folder in which downloaded artifacts are kept.

    Raises:
        ConfigError: A place is malformed, a folder or server cannot be used, or a package is
            missing.

    """
    notes: list[str] = []
    members: list[ExampleDatabase] = []
    places = [place.strip() for place in text.split(",")]
    for number, place in enumerate(places):
        if not place:
            raise ConfigError(f"a database is {text!r}; allowed: {ALLOWED}")
        written = number == 0
        opened = _opened(place, relative_to, downloads, written=written)
        member: ExampleDatabase = _Steady(opened, _public(place), notes)
        if not written or place.startswith("github:"):
            member = ReadOnlyDatabase(member)
        members.append(member)
    names = tuple(_public(place) for place in places)
    return Databases(names, MultiplexedDatabase(*members), notes)


def _opened(place: str, relative_to: Path, downloads: Path, *, written: bool) -> ExampleDatabase:
    scheme = _SCHEME.match(place)
    if scheme is None:
        return _folder(relative_to / place, written=written)
    if scheme[0] in ("redis://", "rediss://"):
        return _redis(place)
    if scheme[0] == "github:":
        return _github(place, downloads)
    raise ConfigError(f"a database is {_public(place)!r}; allowed: {ALLOWED}")


def _folder(path: Path, *, written: bool) -> ExampleDatabase:
    needed = os.R_OK | os.X_OK
    if written:
        needed |= os.W_OK
    try:
        if written:
            path.mkdir(parents=True, exist_ok=True)
        usable = path.is_dir() and os.access(path, needed)
        why = f"it is not a folder that can be {'written' if written else 'read'}"
    except OSError as error:
        usable, why = False, str(error)
    if not usable:
        raise ConfigError(
            f"a database is '{path}', which cannot be used: {why}; name another folder"
        )
    return DirectoryBasedExampleDatabase(path)


def _redis(place: str) -> ExampleDatabase:
    try:
        from hypothesis.extra.redis import RedisExampleDatabase
        from redis import Redis, RedisError
    except ImportError as error:
        raise ConfigError(
            f"a database is {_public(place)!r}, for which redis is needed ({error});"
            " pip install 'bn-spec[redis]'"
        ) from None
    try:
        server = Redis.from_url(place, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        server.ping()
    except (RedisError, OSError, ValueError) as error:
        raise ConfigError(
            f"a database is {_public(place)!r}, which does not answer: {error};"
            " start it, name another one, or leave it out"
        ) from None
    return RedisExampleDatabase(server)


def _github(place: str, downloads: Path) -> ExampleDatabase:
    named = re.fullmatch(r"github:([\w.-]+)/([\w.-]+)(?:/([\w.-]+))?", place)
    if named is None:
        raise ConfigError(
            f"a database is {place!r}; allowed: github:OWNER/REPO or github:OWNER/REPO/ARTIFACT"
        )
    owner, repository, artifact = named[1], named[2], named[3] or ARTIFACT
    # Hypothesis's default folder for downloads is the same for all repositories.
    return GitHubArtifactDatabase(
        owner, repository, artifact, path=downloads / owner / repository / artifact
    )


def _public(place: str) -> str:
    """Return a place without the user name and password that its address may contain."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    host = parts.netloc.rpartition("@")[2]
    if host == parts.netloc:
        return place
    return parts._replace(netloc=host).geturl()


class _Part(ExampleDatabase):
    """The part of a database under keys that begin with a prefix."""

    def __init__(self, database: ExampleDatabase, prefix: bytes) -> None:
        super().__init__()
        self._database, self._prefix = database, prefix

    def fetch(self, key: bytes) -> Iterable[bytes]:
        return self._database.fetch(self._prefix + key)

    def save(self, key: bytes, value: bytes) -> None:
        self._database.save(self._prefix + key, value)

    def delete(self, key: bytes, value: bytes) -> None:
        self._database.delete(self._prefix + key, value)

    def move(self, src: bytes, dest: bytes, value: bytes) -> None:
        self._database.move(self._prefix + src, self._prefix + dest, value)


class _Steady(ExampleDatabase):
    """A database that is no longer used once it has failed.

    So a server that goes away costs one wait and a note, and not one wait for each example.
    """

    def __init__(self, database: ExampleDatabase, name: str, notes: list[str]) -> None:
        super().__init__()
        self._database, self._name, self._notes = database, name, notes
        self._failed = False

    def fetch(self, key: bytes) -> Iterable[bytes]:
        found: list[bytes] = []
        self._tried(lambda: found.extend(self._database.fetch(key)))
        return found

    def save(self, key: bytes, value: bytes) -> None:
        self._tried(lambda: self._database.save(key, value))

    def delete(self, key: bytes, value: bytes) -> None:
        self._tried(lambda: self._database.delete(key, value))

    def move(self, src: bytes, dest: bytes, value: bytes) -> None:
        self._tried(lambda: self._database.move(src, dest, value))

    def _tried(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                action()
            except Exception as error:  # noqa: BLE001 - no error of a database may fail a run
                self._failed = True
                self._note(f"{type(error).__name__}: {error}; the run went on without it")
        for warning in warned:
            self._note(str(warning.message).strip())

    def _note(self, sentence: str) -> None:
        note = f"database {self._name}: {sentence}"
        if note not in self._notes:
            self._notes.append(note)
