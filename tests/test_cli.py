"""The ``bn-spec`` command: exit codes and what it prints."""

import os
import pty
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.process import bn_spec, strange

QUICK = ("--profile", "smoke", "--requirement", "TRN-01")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("reference", *QUICK), 0, "reference: conforms"),
        (("bn_spec.specimens:eps_ignored", *QUICK), 1, "DOES NOT CONFORM: "),
        ((strange("excused_in_vain"), "--requirement", "RUN-03"), 1, "unexpected pass"),
        (("nonesuch", *QUICK), 2, "backend 'nonesuch' is not known; known: "),
        (("reference", "--profle", "smoke"), 2, "No such option"),
        ((strange("crashing"), "-n", "2", *QUICK), 3, "INCOMPLETE: a worker was lost"),
        (
            ("reference", "--requirement", "XYZ-*"),
            2,
            "bn_requirement: 'XYZ-*' matches no requirement; chapters: ",
        ),
        (("reference", *QUICK, "--", "-k", "no_such_test"), 5, "deselected"),
        (("bn_spec.specimens:eps_ignored", *QUICK, "--", "-x"), 1, "1 failed"),
    ],
)
def test_the_exit_code_tells_how_a_run_ended(
    tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    done = bn_spec("run", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert sentence in done.stdout + done.stderr


def test_a_run_reports_every_backend_that_was_named(tmp_path: Path) -> None:
    done = bn_spec("run", "reference", "bn_spec.specimens:welford", *QUICK, "-n", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "reference: conforms" in done.stdout
    assert "welford: conforms" in done.stdout


def test_where_output_is_no_terminal_a_run_tells_what_fails_and_each_tenth_in_a_line(
    tmp_path: Path,
) -> None:
    done = bn_spec(
        "run",
        "bn_spec.specimens:eps_ignored",
        "--profile",
        "smoke",
        "--requirement",
        "EVL-0[14]",
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    failing = [line for line in lines if " fail: " in line and line.startswith("  ")]
    assert failing == ["  EVL-01 fail: eps-ignored, float32"]
    tenths = [
        line
        for line in lines
        if re.fullmatch(r" *\d+ %  \d+ of 12 checks, (none|\d+) failed, \d+ s", line)
    ]
    assert len(tenths) == 10
    assert tenths[-1].startswith("100 %  12 of 12 checks, 6 failed")
    assert "\r" not in done.stdout


def test_on_a_terminal_one_line_moves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bn_spec.cli", "run", "reference", *QUICK]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": "90"}
    ):
        os.close(theirs)
        shown = b"".join(iter(partial(_read, ours), b""))
    assert re.search(
        rb"\r +\d+ %  \d+ of 6 checks, none failed, \d+ s, \d+ s left: TRN-01 reference", shown
    )
    assert b"reference: conforms" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # nobody writes any more
        return b""


def test_who_asks_pytest_for_more_gets_that(tmp_path: Path) -> None:
    done = bn_spec("run", "reference", *QUICK, "--", "-v", cwd=tmp_path)
    assert "[TRN-01-reference-float32] PASSED" in done.stdout
    assert " of 6 checks" not in done.stdout.partition(" bn-spec ===")[0]


def test_backends_lists_versions_claims_and_what_is_missing(tmp_path: Path) -> None:
    done = bn_spec("backends", cwd=tmp_path)
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "double-double arithmetic" in rows["reference"]
    assert "float32, float64, mixed_float16," in rows["reference"]
    assert "statistics parameters" in done.stdout
    assert "torch-cpu" in rows
    assert "torch-cuda" in rows
    assert done.returncode == 0


def test_backends_shows_why_one_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bn_spec.backends]\nbroken = no_such_module:backend\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = bn_spec("backends", cwd=tmp_path)
    assert done.returncode == 2
    assert "BROKEN" in done.stdout
    assert "no_such_module" in done.stdout
