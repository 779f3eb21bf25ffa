"""Backends that kill, starve or confuse their process: each is a finding of its own case."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bn_spec import Case, Config, KnownFailure, check
from bn_spec.backend.registry import load
from bn_spec.case.source import array
from bn_spec.case.steps import Forward, Train
from bn_spec.errors import BrokenBackend
from bn_spec.judge.judging import SURVIVAL
from bn_spec.play.isolated import Isolated, Limits, check_loading
from bn_spec.play.observation import LOOKS
from bn_spec.play.player import play, play_together
from bn_spec.report.records import CRASHED, FAIL, PASS
from bn_spec.report.run_file import RunFile
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.pinned import pinned
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from bn_spec.tools.diagnosis import agree
from tests.process import bn_spec, pytest_suite, python, strange
from tests.strange_backends import HOSTILE

WIDE = Case(Config(2), steps=(Train(), Forward(array([0, 1, 2, 3], (2, 2, 1, 1)))))
NARROW = Case(Config(1), steps=(Forward(array([0, 1, 2, 3], (2, 1, 2, 1))),))

AT = r" in step 2 \(forward\)"
DEATHS = {
    "segfaults": rf"killed by SIGSEGV{AT}, at strange_backends.py:\d+ in <lambda>$",
    "aborts": rf"killed by SIGABRT{AT}, at strange_backends.py:\d+ in forward$",
    "exits": rf"exited with code 3{AT}$",
    "kills": rf"killed by SIGKILL{AT}$",
    "hangs": rf"gave no answer within 1 s{AT}, at strange_backends.py:\d+ in <lambda>$",
    "spins": rf"gave no answer within 1 s{AT}, at strange_backends.py:\d+ in _spin$",
    "hogs-in-c": rf"killed by SIGSEGV{AT}, at .* in _hog_in_c( \(\d+ MiB of memory were taken\))?$",
    "interrupts": "raised KeyboardInterrupt, which ends a process$",
    "writes-everywhere": "wrote something that is not an answer into the answer channel",
    "closes-everything": "(closed the answer channel|exited with code 1)",
}
ERRORS = {
    "hogs": r"raised (_Array)?MemoryError: .*\(256 MiB are allowed\)$",
    "leaves": "raised SystemExit: done$",
    "cancels": "raised CancelledError$",
    "stops": "raised GeneratorExit$",
    "mute": "raised Mute$",
    "unprintable": r"raised RuntimeError: \\udcff",
    "verbose": "raised RuntimeError: words words",
}
ANSWERS = {
    "gives-nothing": "forward returned None",
    "gives-text": "forward returned str",
    "gives-objects": "forward returned ndarray; expected a tensor that becomes a numeric",
    "gives-a-generator": "forward returned generator",
    "gives-another-shape": r"shape \(2, 2, 1, 1, 1\)",
    "wavers": ".",
}
HARMLESS = ("gives-a-liar", "floods", "meddles", "forks")
"""Backends whose effects are undone and cause no finding; an array subclass is an array."""

TABLE = [
    *((name, SURVIVAL, said) for name, said in DEATHS.items()),
    *((name, "error", said) for name, said in ERRORS.items()),
    *((name, "output", said) for name, said in ANSWERS.items()),
    ("gives-the-world", "error", r"raised (_Array)?MemoryError"),
    *((name, "", "") for name in HARMLESS),
]
LIMITS = Limits(seconds=1.0, mebibytes=256)
PATIENT = Limits(seconds=60.0, mebibytes=256)
"""For those that end by themselves, however busy the machine is."""


@pytest.fixture
def isolated(request: pytest.FixtureRequest) -> Iterator[Isolated]:
    """Return a hostile backend in a process of its own."""
    name = getattr(request, "param", "segfaults")
    limits = LIMITS if "gave no answer" in DEATHS.get(name, "") else PATIENT
    with closing(Isolated(HOSTILE[name], strange(name.replace("-", "_")), limits)) as stand_in:
        yield stand_in


@pytest.mark.parametrize(
    ("isolated", "observable", "said"), TABLE, ids=[t[0] for t in TABLE], indirect=["isolated"]
)
def test_whatever_a_backend_does_is_a_discrepancy_and_the_next_case_is_played(
    isolated: Isolated, observable: str, said: str
) -> None:
    found = check(WIDE, isolated)
    assert bool(found) == bool(observable), found
    if observable:
        assert found[0].observable == observable
        assert re.match(said, found[0].got), found[0].got
    assert check(NARROW, isolated) == []


def test_every_hostile_backend_is_in_the_table() -> None:
    assert sorted(HOSTILE) == sorted(name for name, *_ in TABLE)


@pytest.mark.parametrize("name", [*ERRORS, *ANSWERS, *HARMLESS])
def test_what_kills_nobody_is_seen_in_this_process_too(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("hogs", "meddles"):
        pytest.skip("it would harm this process")
    monkeypatch.setattr("os.write", lambda *_: 0)
    assert bool(check(WIDE, HOSTILE[name])) == (name not in HARMLESS)


def test_isolated_and_here_a_backend_answers_alike() -> None:
    claims = SPECIMENS["runvar-bias"].capabilities
    with closing(Isolated(SPECIMENS["runvar-bias"], "bn_spec.specimens:runvar_bias")) as stand_in:
        for each in list(pinned().values())[::2]:
            here = play(each.case, SPECIMENS["runvar-bias"])
            assert agree(each.case, here, play(each.case, stand_in, LOOKS), claims)
        together = play_together([NARROW, NARROW], stand_in)
    assert [len(observation.answers) for observation in together] == [1, 1]


def test_a_death_among_threads_is_one(isolated: Isolated) -> None:
    (found, _) = (check.initial for check in play_together([WIDE, WIDE], isolated))
    assert str(found).startswith("killed by SIGSEGV while layers were driven by several threads")


def test_a_death_that_is_declared_is_a_known_failure(isolated: Isolated) -> None:
    search = search_of(isolated)
    search.cell.excused = (KnownFailure("RUN-05", SURVIVAL, "it dies of several channels"),)
    assert search.cell.violation(WIDE) is None
    assert [known.reason for known in search.tally.known] == ["it dies of several channels"]


def search_of(backend: Any, requirement: str = "RUN-05") -> Search:
    load_suite()
    return Search(Cell(PROPERTIES[requirement], backend, "float32"), PROFILES["smoke"].settings())


def test_a_death_shrinks_and_the_search_ends_after_so_many(
    isolated: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bn_spec.suite.search.MOST_DEATHS", 6)
    search = search_of(isolated)
    with pytest.raises(Violation, match="killed by SIGSEGV") as raised:
        search.run()
    found = raised.value.finding
    assert found.discrepancy.observable == SURVIVAL
    assert found.faults is None
    assert all(x.shape[1] == 2 and x.size <= 64 for x in raised.value.drawn.forwards())


@pytest.mark.parametrize("isolated", ["hangs"], indirect=True)
def test_after_the_first_hang_nobody_waits_as_long_again(isolated: Isolated) -> None:
    isolated.limits = Limits(seconds=3.0)
    play(NARROW, isolated)
    assert "no answer within 3 s" in str(play(WIDE, isolated).initial)
    start = time.monotonic()
    assert "no answer within 1 s" in str(play(WIDE, isolated).initial)
    assert time.monotonic() - start < 3
    assert check(NARROW, isolated) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "import os; os.abort()",
            "does not load in a process of its own: killed by SIGABRT, at bad.py:1 in <module>",
        ),
        (
            "print('no licence'); import os; os._exit(1)",
            "exited with code 1; last output: no licence",
        ),
        (
            "raise OSError('no device')",
            "failed to load: OSError: no device (in a process of its own)",
        ),
    ],
)
def test_a_backend_that_kills_who_loads_it_is_broken(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "bad.py").write_text(body)
    with pytest.raises(BrokenBackend, match=re.escape(said)):
        check_loading(f"{tmp_path}/bad.py:backend", LIMITS)


# Runs ---------------------------------------------------------------------------------------------

ISOLATED = ("--bn-isolate=process", "--bn-timeout=1", "--bn-memory=256")
QUICK = ("--bn-profile=smoke", "--bn-requirement=TRN-04")

SOME = (
    "segfaults",
    "hangs",
    "hogs",
    "interrupts",
    "unprintable",
    "gives-objects",
    "writes-everywhere",
    "closes-everything",
    "floods",
    "meddles",
    "forks",
)


def backends(*names: str) -> list[str]:
    return [f"--bn-backend={strange(name.replace('-', '_'))}" for name in names]


def statuses(folder: Path) -> dict[str, str]:
    return {
        record.backend: record.status
        for record in RunFile.load(folder / ".bn_spec" / "run.json").records
    }


def test_an_isolated_run_is_complete_whatever_its_backends_do(tmp_path: Path) -> None:
    done = pytest_suite(*backends(*SOME), "--bn-backend=reference", *ISOLATED, *QUICK, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "isolated: 1 s for a call, 256 MiB of memory for a backend" in done.stdout
    run = RunFile.load(tmp_path / ".bn_spec" / "run.json")
    assert run.incomplete == ()
    expected = {name: FAIL if observable else PASS for name, observable, _ in TABLE if name in SOME}
    expected["reference"] = PASS
    assert statuses(tmp_path) == expected
    kept = {path.stem for path in (tmp_path / ".bn_spec" / "cases").iterdir()}
    assert kept == {name for record in run.records for name in record.cases}
    assert len(kept) == list(expected.values()).count(FAIL)


def test_the_death_of_a_worker_is_a_record_with_a_case_that_can_be_replayed(tmp_path: Path) -> None:
    names = ("segfaults", "spins", "exits")
    addresses = [strange(name) for name in names]
    options = ("--profile", "smoke", "--requirement", "TRN-04", "--timeout", "1")
    command = ("-m", "bn_spec.cli", "run")  # nobody says how many workers there are to be
    done = python(*command, *addresses, "bn_spec.specimens:welford", *options, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    found = statuses(tmp_path)
    assert found.pop("welford") == PASS
    assert sorted(found) == sorted(names)
    assert set(found.values()) == {CRASHED, FAIL}  # one kills the worker; the next one isolates
    assert (
        "a worker died: killed by SIGSEGV in step 1 (forward), at strange_backends.py:"
        in done.stdout
    )
    assert "INCOMPLETE: a worker was lost: it crashed in" in done.stdout
    (replay,) = set(
        re.findall(r"got +killed by SIGSEGV.*\n +replay +bn-spec replay (\w+)", done.stdout)
    )
    again = bn_spec("replay", replay, cwd=tmp_path)
    assert again.returncode == 1, again.stderr
    assert "got       killed by SIGSEGV in step 1 (forward)" in again.stdout
    assert not any((tmp_path / ".bn_spec" / "flight").iterdir())


def test_after_a_crash_of_the_only_process_the_next_run_says_in_which_case(tmp_path: Path) -> None:
    call = (*backends("exits"), *QUICK)
    assert pytest_suite(*call, cwd=tmp_path).returncode == 3
    again = pytest_suite(*call, cwd=tmp_path)
    assert again.returncode == 1, again.stdout
    assert "an earlier run died in" in again.stdout
    assert re.search(r"got +exited with code 3 in step 1 \(forward\)", again.stdout)
    assert statuses(tmp_path) == {"exits": FAIL}
    assert "an earlier run died in" not in pytest_suite(*call, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("ini", "sentence"),
    [
        ("bn_isolate = thread", "bn_isolate is 'thread'; allowed: no, process"),
        ("bn_timeout = soon", "bn_timeout is 'soon'; allowed: a positive number of seconds"),
        ("bn_memory = much", "bn_memory is 'much'; allowed: a whole number"),
    ],
)
def test_a_wrong_limit_is_named(tmp_path: Path, ini: str, sentence: str) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    done = pytest_suite("-c", "pytest.ini", cwd=tmp_path)
    assert done.returncode == 4
    assert sentence in done.stderr


def test_a_stand_in_is_what_it_stands_for() -> None:
    subject = load("torch-cpu")
    stand_in = Isolated(subject, "torch-cpu")
    for name in ("name", "description", "capabilities", "known_failures"):
        assert getattr(stand_in, name) == getattr(subject, name)
    assert json.dumps(stand_in.name) == '"torch-cpu"'
