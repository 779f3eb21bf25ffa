"""Files of known failures: what they excuse, which entries are refused, and what a run reports."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from bn_spec import Case, Config, ConfigError
from bn_spec.case.steps import Forward
from bn_spec.case.whole_files import written_whole
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.known_failures_file import KnownFailureEntry, append, load, superfluous
from tests.process import bn_spec

BIASED = "bn_spec.specimens:runvar_bias"
ONLY = ("--requirement", "RUN-0[13]", "--known-failures", "known.toml")
EXCUSE = """
[[failure]]
requirement = "RUN-03"
backend = "runvar-*"
observable = "running_var"
reason = "the biased variance is kept on purpose"
link = "https://tracker.example/7"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "known.toml"
    path.write_text(text, "utf-8")
    return path


# What an entry says -------------------------------------------------------------------


def test_an_entry_covers_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    text = EXCUSE + 'dtype = "mixed_*"\nwhere = ["n = 1 or n = 2", "C = 1"]\nexpires = 2027-01-31'
    (entry,) = load(written(tmp_path, text))
    assert entry.failure.dtypes == ("mixed_float16", "mixed_bfloat16")
    assert (
        entry.failure.reason == "the biased variance is kept on purpose (https://tracker.example/7)"
    )
    assert entry.concerns("runvar-bias", "RUN-03", "mixed_float16")
    assert not entry.concerns("reference", "RUN-03", "mixed_float16")
    assert not entry.concerns("runvar-bias", "RUN-01", "mixed_float16")
    assert not entry.concerns("runvar-bias", "RUN-03", "float32")
    assert [entry.expired(date(2027, 1, day)) for day in (30, 31)] == [False, True]
    cases = {shape: Case(Config(shape[1]), None, (Forward(np.ones(shape)),)) for shape in SHAPES}
    assert [
        shape for shape, case in cases.items() if entry.failure.covers("running_var", case)
    ] == SHAPES[:2]
    assert not entry.failure.covers("running_mean", cases[SHAPES[0]])


SHAPES = [(1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 1, 1), (2, 2, 1, 1)]

SENSELESS = {
    "no TOML": ("[[failure", "is not a TOML file"),
    "another table": (
        "[[failures]]\nrequirement = 'RUN-03'",
        "table 'failures' is not known; known: failure",
    ),
    "one table": ("[failure]\nrequirement = 'RUN-03'", "allowed: tables, each headed [[failure]]"),
    "another key": (f"{EXCUSE}because = 'x'", "entry 1: key 'because' is not known"),
    "no reason": ("[[failure]]\nrequirement = 'RUN-03'", "entry 1 (RUN-03): its reason is missing"),
    "a blank reason": (
        "[[failure]]\nrequirement = 'RUN-03'\nreason = ' '",
        "its reason is missing",
    ),
    "no requirement": ("[[failure]]\nreason = 'x'", "entry 1: requirement '' is not known"),
    "an unknown requirement": (
        "[[failure]]\nrequirement = 'RUM-03'\nreason = 'x'",
        "did you mean 'RUN-03'?",
    ),
    "an unknown dtype": (f"{EXCUSE}dtype = 'float23'", "dtype 'float23' is not known"),
    "an unknown region": (f"{EXCUSE}where = ['n = 7']", "region 'n = 7' is not known"),
    "a number for a reason": (
        "[[failure]]\nrequirement = 'RUN-03'\nreason = 3",
        "reason is 3; allowed: text",
    ),
    "a date in quotes": (f"{EXCUSE}expires = '2027-01-31'", "allowed: a date, as in 2027-01-31"),
    "no region at all": (f"{EXCUSE}where = 3", "where is 3; allowed: a list of regions"),
}


@pytest.mark.parametrize(("text", "sentence"), SENSELESS.values(), ids=SENSELESS)
def test_what_makes_no_sense_is_named_with_its_place(
    text: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(written(tmp_path, text))
    assert "known.toml" in str(refused.value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (KnownFailureEntry("RUN-03", "x", backend="welford"), ""),
        (KnownFailureEntry("RUN-03", "x", backend="torch-*"), ""),
        (
            KnownFailureEntry("RUN-03", "x", backend="welfrod"),
            "matches nothing: backend 'welfrod' is not known",
        ),
        (
            KnownFailureEntry("RUN-03", "x", backend="float-only", dtype="float16"),
            "claim no such dtype; remove it",
        ),
    ],
)
def test_an_entry_that_can_cover_nothing_is_said_to(
    entry: KnownFailureEntry, sentence: str
) -> None:
    class FloatOnly:
        name = "float-only"
        capabilities = type("", (), {"dtypes": ("float32",)})

    found = superfluous([entry], [SPECIMENS["welford"], FloatOnly()])  # type: ignore[list-item]
    assert bool(found) == bool(sentence)
    assert sentence in "".join(found)


def test_entries_are_added_below_what_stands_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, f"# mine\n{EXCUSE}")
    assert append(path, [("RUN-01", "mine", "*", "running_mean")]) == 1
    assert path.read_text("utf-8").startswith(f"# mine\n{EXCUSE}")
    with pytest.raises(
        ConfigError, match=r"entry 2 \(RUN-01, backend mine, observable running_mean\): its reason"
    ):
        load(path)
    with written_whole(path) as file:
        file.write(path.read_bytes().replace(b'reason = ""', b'reason = "y"'))
    assert [entry.requirement for entry in load(path)] == ["RUN-03", "RUN-01"]


# What a run makes of them -------------------------------------------------------------


def test_a_known_failure_is_told_with_its_reason_and_fails_nothing(tmp_path: Path) -> None:
    written(tmp_path, EXCUSE)
    done = bn_spec("run", BIASED, *ONLY, "-n", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "the biased variance is kept on purpose (https://tracker.example/7)" in " ".join(
        done.stdout.split()
    )
    assert not list((tmp_path / ".bn_spec").glob("cases/*"))


UNTRUE = {
    EXCUSE.replace(
        "runvar-*", "runvar-bais"
    ): "entry 2 (RUN-03, backend runvar-bais, observable running_var)"
    " matches nothing: backend 'runvar-bais' is not known",
    f"{EXCUSE}expires = 2026-01-01": "entry 3 (RUN-03, backend runvar-*, observable running_var)"
    " expired on 2026-01-01: the biased variance is kept on purpose; fix the failure",
    EXCUSE.replace(
        "RUN-03", "RUN-01"
    ): "entry 4 (RUN-01, backend runvar-*, observable running_var)",
    f"{EXCUSE}where = ['n = 1']": (
        "entry 5 (RUN-03, backend runvar-*, observable running_var, n = 1)"
        " matches nothing: no case is in its regions"
    ),
}
"""Entries that follow a true one in the file, with the sentence that a run prints about each."""


@pytest.mark.parametrize(
    ("texts", "code", "sentences"),
    [
        (UNTRUE, 1, UNTRUE.values()),
        (["[[failure]]"], 2, ["entry 2: requirement '' is not known"]),
        ([EXCUSE.replace("RUN-03", "GRD-01")], 0, ["known failure of RUN-03"]),
    ],
    ids=["untrue", "senseless", "not run"],
)
def test_an_entry_that_says_nothing_true_fails_the_run(
    tmp_path: Path, texts: Iterable[str], code: int, sentences: Iterable[str]
) -> None:
    written(tmp_path, "".join([EXCUSE, *texts]))
    done = bn_spec("run", BIASED, *ONLY, cwd=tmp_path)
    assert done.returncode == code, done.stdout
    for sentence in sentences:
        assert sentence in " ".join((done.stdout + done.stderr).split())


def test_a_run_writes_its_failures_down_for_who_gives_the_reasons(tmp_path: Path) -> None:
    done = bn_spec("run", BIASED, *ONLY, "--known-failures-update", cwd=tmp_path)
    assert done.returncode == 1
    assert "known.toml: entries added: 1; fill in their reasons" in " ".join(done.stdout.split())
    again = bn_spec("run", BIASED, *ONLY, cwd=tmp_path)
    assert again.returncode == 2
    assert "its reason is missing" in again.stderr + again.stdout
    path = tmp_path / "known.toml"
    path.write_text(
        path.read_text("utf-8").replace('reason = ""', 'reason = "on purpose"'), "utf-8"
    )
    assert bn_spec("run", BIASED, *ONLY, cwd=tmp_path).returncode == 0
