"""Stored cases: a run stores them, and the next run and ``bn-spec replay`` play them again.

A stored case is removed once it passes.
"""

import re
import shlex
from pathlib import Path

import pytest

from bn_spec import Config
from bn_spec.case.npz import load_with_notes, save
from bn_spec.tools.stored_cases import Store
from tests.process import bn_spec, strange
from tests.unusual_cases import LARGE

MY_KERNEL = """
from bn_spec.specimens import SPECIMENS
from dataclasses import replace

faulty, sound = SPECIMENS["runvar-bias"], SPECIMENS["welford"]
backend = replace({which}, name="mine")
"""
OF_MINE = ("mine.py:backend", "--requirement", "RUN-03", "--", "-k", "float32 and not mixed")


def write_kernel(folder: Path, which: str) -> None:
    (folder / "mine.py").write_text(MY_KERNEL.format(which=which))


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """A folder with the record of a run that judged a faulty kernel."""
    write_kernel(tmp_path, "faulty")
    done = bn_spec("run", *OF_MINE, cwd=tmp_path)
    assert done.returncode == 1
    return tmp_path


def kept(folder: Path) -> list[str]:
    return [path.stem for path in (folder / ".bn_spec" / "cases").iterdir()]


def test_a_finding_is_kept_replayed_fixed_and_let_go(failed: Path) -> None:
    (name,) = kept(failed)
    still = bn_spec("replay", name, cwd=failed)
    assert still.returncode == 1
    assert "got       0.25" in still.stdout
    assert "fault     runvar-bias" in still.stdout
    assert "still failing: RUN-03 on mine" in still.stdout
    elsewhere = bn_spec("replay", name[:4], "--backend", "reference", cwd=failed)
    assert (elsewhere.returncode, elsewhere.stdout) == (
        0,
        "passes: RUN-03 holds for this case on reference\n",
    )
    assert kept(failed) == [name]
    write_kernel(failed, "sound")
    fixed = bn_spec("replay", name, cwd=failed)
    assert fixed.returncode == 0
    assert "fixed: RUN-03 holds on mine now" in fixed.stdout
    assert kept(failed) == []


def test_the_command_that_a_finding_prints_plays_its_case_wherever_it_is_kept(
    tmp_path: Path,
) -> None:
    backend, folder = "bn_spec.specimens:runvar_bias", tmp_path / "some where"
    found = bn_spec(
        "run", backend, "--requirement", "RUN-03", "--report-dir", str(folder), cwd=tmp_path
    )
    (printed,) = re.findall(r"^  replay +bn-spec (.*)$", found.stdout, re.MULTILINE)
    again = bn_spec(*shlex.split(printed), cwd=tmp_path)
    assert again.returncode == 1, again.stderr
    assert "still failing: RUN-03 on runvar-bias" in again.stdout


def test_the_next_run_plays_what_is_kept_first_and_lets_it_go_once_it_passes(failed: Path) -> None:
    (name,) = kept(failed)
    again = bn_spec("run", *OF_MINE, cwd=failed)
    assert again.returncode == 1
    assert f"replay    bn-spec replay {name}" in again.stdout
    assert "(1 checks, 0 examples" in again.stdout
    assert kept(failed) == [name]
    write_kernel(failed, "sound")
    assert bn_spec("run", *OF_MINE, cwd=failed).returncode == 0
    assert kept(failed) == []


def test_what_is_kept_says_of_whom_it_is(failed: Path) -> None:
    (name,) = kept(failed)
    case, about = load_with_notes(Store(failed / ".bn_spec" / "cases").path(name))
    assert case.config == Config(1, momentum=1.0)
    assert about["requirement"] == "RUN-03"
    assert about["backend"] == "mine"
    assert about["address"] == "mine.py:backend"
    assert about["expected"].startswith("running_var[0] = 0.5 ±")
    assert about["got"] == "0.25"


def test_a_file_from_elsewhere_loads_no_backend_that_nobody_named(failed: Path) -> None:
    (name,) = kept(failed)
    foreign = failed / "foreign.npz"
    Store(failed / ".bn_spec" / "cases").path(name).rename(foreign)
    done = bn_spec("replay", "foreign.npz", cwd=failed)
    assert done.returncode == 2
    assert "it was found on 'mine.py:backend'; name it with --backend to load it" in done.stderr
    assert (
        bn_spec("replay", "foreign.npz", "--backend", "mine.py:backend", cwd=failed).returncode == 1
    )


@pytest.mark.parametrize(
    ("about", "arguments", "sentence"),
    [
        ({}, (), "it names no requirement; allowed: a file that a run wrote"),
        ({"requirement": "XYZ-01"}, (), "there is no requirement 'XYZ-01'"),
        ({"requirement": "RUN-03"}, ("--backend", "nonesuch"), "backend 'nonesuch' is not known"),
        (
            {"requirement": "GRD-01"},
            ("--backend", strange("excused_in_vain")),
            "does not claim gradients",
        ),
    ],
)
def test_what_cannot_be_played_is_said_in_a_sentence(
    tmp_path: Path, about: dict[str, str], arguments: tuple[str, ...], sentence: str
) -> None:
    complete = about and {"backend": "reference", "address": "reference"} | about
    save(LARGE, tmp_path / "case.npz", complete)
    done = bn_spec("replay", "case.npz", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_id_that_nobody_keeps_is_answered_with_those_that_are(failed: Path) -> None:
    done = bn_spec("replay", "nonesuch", cwd=failed)
    assert done.returncode == 2
    assert f"kept there: {kept(failed)[0]}" in done.stderr
