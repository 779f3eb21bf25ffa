"""Example databases: what made a property fail is kept, shared by runs and machines, and tried first the next time.

What is kept are the choices that Hypothesis made, not the cases that came of them: they mean the
same under the same versions of Hypothesis and bn-spec only. Hypothesis lets go of what it cannot
read and of what does not fail any more. The databases are its own; here they are opened from one
option, told apart by cell, and kept from failing a run.
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
    "a folder, redis://HOST:PORT/NUMBER, github:OWNER/REPO or github:OWNER/REPO/ARTIFACT; several of them joined by"
    " commas, of which the first is written to"
)

ARTIFACT = "hypothesis-example-db"
"""The artifact that is read of a repository on GitHub, unless another is named: the name that Hypothesis proposes."""

PATIENCE = 5.0
"""So many seconds a server may take to answer."""

_SCHEME = re.compile(r"[a-z]{2,}:(?://)?")  # a single letter is a drive


@dataclass
class Databases:
    """The databases of a run, as one.

    ``names`` say which, without passwords; ``notes`` what went wrong with them, which never fails a
    run.
    """

    names: tuple[str, ...]
    database: ExampleDatabase
    notes: list[str] = field(default_factory=list)

    def of_cell(self, requirement: str, backend: str, dtype: str) -> ExampleDatabase:
        """Return the part that belongs to one cell, in which no other looks."""
        return _Part(self.database, f"{requirement} {backend} {dtype} ".encode())

    def look(self) -> None:
        """Ask for nothing, so that an artifact is downloaded once, before there are workers that would all do so."""
        for _ in self.database.fetch(b""):
            pass

    def __str__(self) -> str:
        return ", ".join(self.names)


def open_databases(text: str, *, relative_to: Path, downloads: Path) -> Databases:
    """Open what ``text`` names; folders are relative to one, and what is downloaded is kept in another.

    A repository on GitHub that cannot be read is no error: before its first nightly run it has no
    artifact.

    Raises:
        ConfigError: it names none, or a folder or server that cannot be used, or a package is
        missing.

    """
    notes: list[str] = []
    members: list[ExampleDatabase] = []
    places = [place.strip() for place in text.split(",")]
    for number, place in enumerate(places):
        if not place:
            raise ConfigError(f"a database is {text!r}; allowed: {ALLOWED}")
        member = _Steady(
            _opened(place, relative_to, downloads, written=not number), _public(place), notes
        )
        members.append(
            ReadOnlyDatabase(member) if number or place.startswith("github:") else member
        )
    return Databases(tuple(map(_public, places)), MultiplexedDatabase(*members), notes)


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
    try:
        if written:
            path.mkdir(parents=True, exist_ok=True)
        usable = path.is_dir() and os.access(path, os.R_OK | os.X_OK | (os.W_OK if written else 0))
        why = f"it is no folder that can be {'written' if written else 'read'}"
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
            f"a database is {_public(place)!r}, for which redis is needed ({error}); pip install 'bn-spec[redis]'"
        ) from None
    try:
        server = Redis.from_url(place, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        server.ping()
    except (RedisError, OSError, ValueError) as error:
        raise ConfigError(
            f"a database is {_public(place)!r}, which does not answer: {error};"
            " start it, name one that runs, or leave it out"
        ) from None
    return RedisExampleDatabase(server)


def _github(place: str, downloads: Path) -> ExampleDatabase:
    named = re.fullmatch(r"github:([\w.-]+)/([\w.-]+)(?:/([\w.-]+))?", place)
    if named is None:
        raise ConfigError(
            f"a database is {place!r}; allowed: github:OWNER/REPO or github:OWNER/REPO/ARTIFACT"
        )
    owner, repository, artifact = named[1], named[2], named[3] or ARTIFACT
    # Hypothesis's own place for the download is the same for all repositories.
    return GitHubArtifactDatabase(
        owner, repository, artifact, path=downloads / owner / repository / artifact
    )


def _public(place: str) -> str:
    """Return a place as it may be printed: without a user's name and password, which may be in an address."""
    parts = urlsplit(place) if "://" in place else None
    if parts is None or "@" not in parts.netloc:
        return place
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class _Part(ExampleDatabase):
    """What a database holds under keys that begin with a prefix."""

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
    """A database that is left alone once it has failed, so that a server that goes away costs one wait and a note."""

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
            except Exception as error:  # noqa: BLE001 - whatever ends a run otherwise fails it too
                self._failed = True
                self._note(f"{type(error).__name__}: {error}; the run went on without it")
        for warning in warned:
            self._note(str(warning.message).strip())

    def _note(self, sentence: str) -> None:
        note = f"database {self._name}: {sentence}"
        if note not in self._notes:
            self._notes.append(note)
