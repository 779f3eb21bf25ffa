"""A run shared by several machines; the tests use two addresses of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bn_spec.backend.registry import Selection
from bn_spec.report.records import Run
from bn_spec.report.run_file import NAME
from bn_spec.session import setup
from bn_spec.session.ledger import Ledger
from tests.process import REPOSITORY, pytest_suite, python

ADDRESSES = ("127.0.0.2", "127.0.0.3")
BOTH = ("bn_spec.specimens:runvar_bias", "reference")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import the package from, with the suite inside it as in an installation."""
    package = tmp_path_factory.mktemp("site") / "bn_spec"
    package.mkdir()
    for each in (*(REPOSITORY / "bn_spec").iterdir(), REPOSITORY / "conformance"):
        if each.name != "__pycache__":
            (package / each.name).symlink_to(each)
    return package.parent


@pytest.fixture(scope="module")
def hosts(installed: Path) -> Iterator[dict[str, Path]]:
    """Two servers with different addresses and folders: each folder by its text for ``--tx``."""
    started: list[subprocess.Popen[str]] = []
    places: dict[str, Path] = {}
    try:
        for address in ADDRESSES:
            folder = installed / address
            folder.mkdir()
            place = f"{address}:{free_port(address)}"
            started.append(serve(place, folder, installed))
            places[f"socket={place}//chdir=."] = folder
        yield places
    finally:
        for server in started:
            server.kill()
            server.wait()
            if server.stdout:
                server.stdout.close()


def free_port(address: str) -> int:
    with socket.socket() as taken:
        taken.bind((address, 0))
        return int(taken.getsockname()[1])


def serve(place: str, folder: Path, site: Path) -> subprocess.Popen[str]:
    """Start a server that runs the code it receives, and wait until it listens."""
    foreign = ("PYTEST", "BN_SPEC")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "execnet.script.socketserver", place],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    assert "Accept loop" in server.stdout.readline()
    return server


def run(*arguments: str, site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    call = ("-m", "bn_spec.cli", "run", *arguments)
    return python(*call, cwd=folder, PYTHONPATH=str(site))


def record_in(folder: Path) -> dict[str, Any]:
    """Return the record of a run without what depends on the clock."""
    content: dict[str, Any] = json.loads((folder / ".bn_spec" / NAME).read_text("utf-8"))
    del content["timing"]["started"], content["timing"]["seconds"]
    for record in content["records"]:
        del record["seconds"]
    return content


def cases_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / ".bn_spec" / "cases").iterdir()}


def test_two_machines_find_what_two_workers_of_one_find(
    installed: Path, hosts: dict[str, Path], tmp_path: Path
) -> None:
    what = (*BOTH, "--profile", "smoke", "--requirement", "RUN-03")
    options = [option for place in hosts for option in ("--tx", place)]
    here, there = tmp_path / "here", tmp_path / "there"
    alone = run(*what, "-n", "2", site=installed, folder=here)
    shared = run(*what, "--", *options, site=installed, folder=there)
    assert (alone.returncode, shared.returncode) == (1, 1), shared.stdout + shared.stderr
    assert "1 thread per worker" in shared.stdout
    assert record_in(there) == record_in(here)
    assert record_in(there)["timing"] == {"workers": 2}
    assert len(record_in(there)["records"]) == 12
    assert cases_in(there) == cases_in(here) != {}
    assert not [
        left for folder in hosts.values() for left in folder.iterdir() if left.name == ".bn_spec"
    ]


def test_a_machine_that_lacks_the_file_of_a_backend_says_so_and_nothing_hangs(
    installed: Path, hosts: dict[str, Path], tmp_path: Path
) -> None:
    place, folder = next(iter(hosts.items()))
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine.py").write_text("from bn_spec.specimens import welford\n")
    call = ("-m", "bn_spec.cli", "run", "mine.py:welford", "--requirement", "RUN-03")
    done = python(*call, "--", "--tx", place, cwd=there, PYTHONPATH=str(installed))
    assert done.returncode == 3
    said = " ".join(done.stdout.partition("INCOMPLETE: a worker was lost: ")[2].split())
    assert (
        f"({place}) ended: pytest.UsageError: bn-spec:"
        " backend 'mine.py:welford': there is no file mine.py" in said
    )
    assert str(folder) in said


def test_a_machine_that_cannot_be_reached_is_named(installed: Path, tmp_path: Path) -> None:
    place = f"socket=127.0.0.2:{free_port('127.0.0.2')}"
    done = run("reference", "--", "--tx", place, site=installed, folder=tmp_path / "there")
    assert done.returncode == 2
    assert (
        f"ERROR: --tx: one of {place} cannot be reached"
        " ([Errno 111] Connection refused); start the server" in done.stderr
    )


def test_the_suite_of_a_checkout_cannot_be_handed_to_other_machines(tmp_path: Path) -> None:
    done = pytest_suite("--tx", "popen//chdir=elsewhere", "--dist", "load", cwd=tmp_path)
    assert done.returncode == 4
    assert (
        "--tx popen//chdir=elsewhere: workers elsewhere cannot run the suite of a checkout"
        in done.stderr
    )
    assert "--pyargs bn_spec.conformance" in done.stderr


# Versions -----------------------------------------------------------------------------

HERE = {"numpy": "2.4", "hypothesis": "6.1", "torch-cpu": "(torch 2.13)"}


@pytest.mark.parametrize(
    ("there", "faults"),
    [
        (HERE, []),
        (
            {"numpy": "1.0", "hypothesis": "6.1", "torch-cpu": "(torch 2.0)"},
            [
                "gw1 (ssh=far) judged with numpy 1.0, not 2.4;"
                " torch-cpu (torch 2.0), not (torch 2.13):"
                " install there what is installed here"
            ],
        ),
    ],
    ids=["the same", "others"],
)
def test_a_machine_with_other_versions_fails_the_run(
    there: dict[str, str], faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "installed", lambda _: HERE)
    config: Any = SimpleNamespace(stash=pytest.Stash())
    config.stash[setup.SELECTION] = Selection({}, {})
    run, gateway = Run(), SimpleNamespace(id="gw1", spec="execmodel=main_thread_only//ssh=far")
    node = SimpleNamespace(gateway=gateway, workeroutput={"bn_spec": there})
    Ledger(run, config).pytest_testnodedown(node, None)
    assert run.faults == faults
    assert run.exit_code == (1 if faults else 5)
