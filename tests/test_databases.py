"""Example databases: a cell retries its failures first, and no stored entry fails a run."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis.database import InMemoryExampleDatabase, choices_to_bytes
from redis import Redis

from bn_spec import Backend, Case
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.errors import ConfigError
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.databases import ALLOWED, ARTIFACT, Databases, open_databases
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from tests.needs import missing
from tests.process import bn_spec, pytest_suite, python

load_suite()
RARE = SPECIMENS["channels-last-misread-in-eval"]
"""It takes many examples of EVL-01 to find what is wrong with it."""
PLAIN = SPECIMENS["runvar-bias"]
"""It takes few examples of RUN-03 to find what is wrong with it."""

FIRST = 2
"""Looks at a case that is known to fail: one to find it, one to show it."""


class Mended(Reference):
    """What is judged under the keys of ``PLAIN`` once it is right."""

    name = PLAIN.name


def opened(text: str, folder: Path) -> Databases:
    return open_databases(text, relative_to=folder, downloads=folder / "downloads")


def search_of(backend: Backend, databases: Databases | None, profile: str = "smoke") -> Search:
    prop = PROPERTIES["EVL-01" if backend is RARE else "RUN-03"]
    return Search(Cell(prop, backend, "float32"), PROFILES[profile].settings(), databases=databases)


def rare(databases: Databases | None) -> Search:
    return search_of(RARE, databases, "ci")


def looks(search: Search) -> int:
    """Return how often a cell looked at a case until it had shown the one that fails."""
    with pytest.raises(Violation):
        search.examine()
    return search.tally.examples


def keys_and_values(folder: Path) -> dict[str, set[bytes]]:
    return {key.name: {each.read_bytes() for each in key.iterdir()} for key in folder.iterdir()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``kept``, a database that knows what is wrong with ``RARE``."""
    folder = tmp_path_factory.mktemp("found")
    assert looks(rare(opened("kept", folder))) > 50
    return folder


# What a database is for ---------------------------------------------------------------


def test_what_took_many_examples_is_found_on_the_first_the_next_time(found: Path) -> None:
    again = rare(opened("kept", found))
    with pytest.raises(Violation) as shown:
        again.examine()
    assert again.tally.examples == FIRST
    with pytest.raises(Violation) as without:
        rare(None).examine()
    assert str(shown.value) == str(without.value)
    assert looks(replace(rare(opened("kept", found)), seed=7)) == FIRST


@pytest.mark.parametrize(
    "other",
    [
        ("EVL-02", RARE.name, "float32"),
        ("EVL-01", "other", "float32"),
        ("EVL-01", RARE.name, "float64"),
    ],
)
def test_other_cells_do_not_get_it(tmp_path: Path, other: tuple[str, str, str]) -> None:
    databases = opened("kept", tmp_path)
    databases.of_cell("EVL-01", RARE.name, "float32").save(b"key", b"value")
    assert list(databases.of_cell("EVL-01", RARE.name, "float32").fetch(b"key")) == [b"value"]
    assert list(databases.of_cell(*other).fetch(b"key")) == []


def test_what_is_kept_stands_under_the_names_of_its_cell() -> None:
    memory = InMemoryExampleDatabase()
    search = search_of(PLAIN, Databases((), memory))
    search.cell.dtype = "float64"
    looks(search)
    assert memory.data
    assert all(key.startswith(b"RUN-03 runvar-bias float64 ") for key in memory.data)


def test_an_empty_database_changes_nothing_that_is_drawn(tmp_path: Path) -> None:
    """Except for properties with a target: Hypothesis mutates their stored examples."""

    def drawn(databases: Databases | None) -> list[str]:
        drawn: list[str] = []
        search = search_of(Reference(), databases)
        body = search.cell.prop.body

        def watched(cell: Cell, case: Case) -> None:
            drawn.append(str(case))
            body(cell, case)

        search.cell.prop = replace(search.cell.prop, body=watched)
        search.examine()
        return drawn

    assert drawn(None) == drawn(opened("kept", tmp_path))


# What is in it fails no run -----------------------------------------------------------


STALE = (
    choices_to_bytes((True, 3, 2.5, "text", b"bytes")),
    choices_to_bytes((2**100, -1) * 500),
    choices_to_bytes((float("nan"), float("inf"))),
)
DAMAGED = (b"\xff" * 40, b"\x48", b"\x20")


@pytest.mark.parametrize(
    "values", [(), STALE, DAMAGED], ids=["mended", "of another version", "damaged"]
)
def test_what_does_not_fail_any_more_or_cannot_be_read_is_let_go_of(
    values: tuple[bytes, ...],
) -> None:
    memory = InMemoryExampleDatabase()
    databases = Databases((), memory)
    assert looks(search_of(PLAIN, databases)) > FIRST
    assert looks(search_of(PLAIN, databases)) == FIRST
    (primary,) = (key for key in memory.data if not key.endswith(b".secondary"))
    assert memory.data[primary]
    memory.data[primary].update(values)
    mended = search_of(Mended(), databases)
    mended.examine()
    assert mended.tally.examples >= PROFILES["smoke"].examples
    assert not memory.data[primary]


def test_what_is_damaged_hides_no_failure() -> None:
    memory = InMemoryExampleDatabase()
    databases = Databases((), memory)
    looks(search_of(PLAIN, databases))
    for values in memory.data.values():
        values.clear()
        values.update(STALE, DAMAGED)
    assert looks(search_of(PLAIN, databases)) >= FIRST


def test_a_folder_that_is_gone_fails_nothing(tmp_path: Path) -> None:
    databases = opened("kept", tmp_path)
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("in the way")
    assert looks(search_of(PLAIN, databases)) > FIRST


# Where it may be ----------------------------------------------------------------------


def test_the_first_of_several_is_written_to_and_all_are_read(tmp_path: Path) -> None:
    looks(search_of(PLAIN, opened("theirs", tmp_path)))
    before = keys_and_values(tmp_path / "theirs")
    assert looks(search_of(PLAIN, opened("ours, theirs", tmp_path))) == FIRST
    search_of(Mended(), opened("new, theirs", tmp_path)).examine()
    assert keys_and_values(tmp_path / "theirs") == before
    assert looks(search_of(PLAIN, opened("ours", tmp_path))) == FIRST


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", f"a database is ''; allowed: {ALLOWED}"),
        ("kept,,more", f"a database is 'kept,,more'; allowed: {ALLOWED}"),
        ("postgres://host/1", f"a database is 'postgres://host/1'; allowed: {ALLOWED}"),
        ("redis:host", f"a database is 'redis:host'; allowed: {ALLOWED}"),
        (
            "github:owner",
            "a database is 'github:owner'; allowed: github:OWNER/REPO or "
            "github:OWNER/REPO/ARTIFACT",
        ),
        (
            "kept,missing",
            "missing', which cannot be used: it is not a folder that can be read; name another folder",
        ),
        ("file/in it", "file/in it', which cannot be used: [Errno 20] Not a directory"),
        (
            "redis://127.0.0.1:1/0",
            "a database is 'redis://127.0.0.1:1/0', which does not answer: Error 111",
        ),
        (
            "redis://host:port/0",
            "a database is 'redis://host:port/0', which does not answer: Port could not be cast",
        ),
    ],
)
def test_a_place_that_cannot_be_one_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        opened(text, tmp_path)
    assert sentence in str(refused.value)


def test_a_password_is_never_printed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        opened("redis://user:secret@127.0.0.1:1/0", tmp_path)
    assert "'redis://127.0.0.1:1/0'" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_without_the_package_for_redis_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "hypothesis.extra.redis", raising=False)
    with pytest.raises(
        ConfigError, match=r"for which redis is needed .*; pip install 'bn-spec\[redis\]'"
    ):
        opened("redis://127.0.0.1/0", tmp_path)


# Redis --------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis server of this test, which keeps nothing."""
    if (program := shutil.which("redis-server")) is None:
        missing("there is no redis-server")
    port = free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    pytest.fail(f"nobody listens on port {port}")


def test_a_redis_server_shares_what_failed(tmp_path: Path, server: str) -> None:
    assert looks(search_of(PLAIN, opened(server, tmp_path))) > FIRST
    assert looks(search_of(PLAIN, opened(server, tmp_path))) == FIRST
    with Redis.from_url(server) as client:
        keys = client.keys()
        assert keys
        assert all(
            key.startswith(b"hypothesis-example:RUN-03 runvar-bias float32 ") for key in keys
        )
        lifetimes = [timedelta(seconds=client.ttl(key)) for key in keys]
        assert all(timedelta(days=7) < each <= timedelta(days=8) for each in lifetimes)


def test_a_redis_server_that_goes_away_fails_nothing_and_is_noted(
    tmp_path: Path, server: str
) -> None:
    databases = opened(server, tmp_path)
    with Redis.from_url(server) as client:
        client.shutdown(nosave=True)
    sound = search_of(Reference(), databases)
    sound.examine()
    assert sound.tally.examples == PROFILES["smoke"].examples
    (note,) = databases.notes
    assert note.startswith(f"database {server}: ConnectionError: ")
    assert note.endswith("; the run went on without it")


# GitHub -------------------------------------------------------------------------------


def artifact(folder: Path, content: Path | None, name: str = ARTIFACT) -> None:
    """Store a fresh download of an artifact where it is cached: no test uses the network."""
    downloads = folder / "owner" / "repo" / name
    downloads.mkdir(parents=True)
    path = downloads / f"{datetime.now(UTC).isoformat().replace(':', '_')}.zip"
    if content is None:
        path.write_bytes(b"no archive")
        return
    with zipfile.ZipFile(path, "w") as archive:
        for each in content.rglob("*"):
            archive.write(each, each.relative_to(content))


@pytest.mark.parametrize(
    ("text", "name"), [("github:owner/repo", ARTIFACT), ("github:owner/repo/mine", "mine")]
)
def test_the_artifact_of_a_workflow_is_read(tmp_path: Path, text: str, name: str) -> None:
    looks(search_of(PLAIN, opened("kept", tmp_path)))
    artifact(tmp_path / "downloads", tmp_path / "kept", name)
    databases = opened(text, tmp_path)
    assert looks(search_of(PLAIN, databases)) == FIRST
    search_of(Mended(), databases).examine()  # would let go of what it holds, if it could
    assert looks(search_of(PLAIN, databases)) == FIRST
    assert databases.notes == []


def test_an_artifact_that_is_no_archive_fails_nothing_and_is_noted(tmp_path: Path) -> None:
    artifact(tmp_path / "downloads", None)
    databases = opened("kept,github:owner/repo", tmp_path)
    assert looks(search_of(PLAIN, databases)) > FIRST
    (note,) = databases.notes
    assert note.startswith(
        "database github:owner/repo: The downloaded artifact from GitHub is invalid"
    )


# In a run -----------------------------------------------------------------------------


def test_the_workers_of_a_run_share_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nbn_database = kept, github:owner/repo\n")
    folder = tmp_path / "sub"
    artifact(folder / ".bn_spec" / "artifacts", None)
    steered = ("--bn-profile=smoke", "--bn-requirement=NUM-01", "-k", "float32 or float64")
    done = pytest_suite(*steered, "-n", "2", "-c", "../pytest.ini", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  failing examples are stored in and read from kept, github:owner/repo" in done.stdout
    assert re.findall(r"(?m)^database github:owner/repo: (.{10})", done.stdout) == ["The downlo"]
    assert any(
        b"NUM-01 reference float64 " in key
        for keys in keys_and_values(tmp_path / "kept").values()
        for key in keys
    )


def test_a_run_that_cannot_use_it_ends_before_it_starts(tmp_path: Path) -> None:
    done = bn_spec(
        "run", "reference", "--database", "redis://127.0.0.1:1/0", "-n", "2", cwd=tmp_path
    )
    assert done.returncode == 2
    assert (
        "bn_database: a database is 'redis://127.0.0.1:1/0', which does not answer" in done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_who_runs_no_suite_needs_no_database(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nbn_database = redis://127.0.0.1:1/0\n")
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    done = python("-m", "pytest", "-n", "2", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
