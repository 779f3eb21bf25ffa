"""The audit: what it judges, what it prints, and its exit code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bn_spec.cli import main
from bn_spec.specimens import SPECIMENS
from bn_spec.specimens.sound import Pairwise
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.property import PROPERTIES
from bn_spec.tools import audit

SOUND = SPECIMENS["two-pass-pairwise"]


def run(tmp_path: Path, *arguments: str) -> Result:
    output = str(tmp_path / "deep" / "audit.json")
    return CliRunner().invoke(main, ["audit", "--profile", "smoke", "--output", output, *arguments])


def written(tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(
        (tmp_path / "deep" / "audit.json").read_text("utf-8")
    )
    return found


@pytest.fixture
def one_chapter(monkeypatch: pytest.MonkeyPatch) -> None:
    load_suite()
    for requirement in list(PROPERTIES):
        if not requirement.startswith("RUN"):
            monkeypatch.delitem(PROPERTIES, requirement)


def test_a_faulty_specimen_is_looked_at_up_to_the_first_finding(tmp_path: Path) -> None:
    done = run(tmp_path, "--specimen", "eps-outside-*")
    assert done.exit_code == 0, done.output
    assert re.search(
        r"^eps-outside-root +\d+ examples +[\d.]+ s  [A-Z]{3}-\d\d$", done.stdout, re.M
    )
    assert "1 of 1 faulty specimens killed, 0 of 0 sound ones flagged" in done.stdout
    assert re.search(r"median to the first finding: \d+ examples, [\d.]+ s", done.stdout)
    assert "[  1 of 1] eps-outside-root: as it should be" in done.stderr
    (entry,) = written(tmp_path)["audited"]
    assert entry["looked"] == [kill["requirement"] for kill in entry["kills"]]  # type: ignore[attr-defined]


def test_workers_find_the_same() -> None:
    alone, together = (
        {
            (each.specimen, tuple(k.requirement for k in each.kills))
            for each in audit.audit(names, "smoke", workers=n)
        }
        for names in [["eps-outside-root", "runvar-bias"]]
        for n in (1, 2)
    )
    assert alone == together


@pytest.mark.usefixtures("one_chapter")
def test_in_full_every_requirement_looks(tmp_path: Path) -> None:
    done = run(tmp_path, "--specimen", "runvar-bias", "--full")
    (entry,) = written(tmp_path)["audited"]
    kills = [kill["requirement"] for kill in entry["kills"]]  # type: ignore[attr-defined]
    assert len(kills) > 1
    assert set(kills) < set(entry["looked"])  # type: ignore[call-overload]
    assert "requirements that kill nothing: RUN-01" in done.stdout


@pytest.mark.usefixtures("one_chapter")
def test_a_survivor_fails_the_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    harmless = replace(SPECIMENS["runvar-bias"], kernel=Pairwise, name="harmless")
    monkeypatch.setitem(SPECIMENS, "harmless", harmless)
    done = run(tmp_path, "--specimen", "harmless")
    assert done.exit_code == 1
    assert re.search(r"^harmless +SURVIVES$", done.stdout, re.M)
    assert "survivors: harmless" in done.stdout
    (entry,) = written(tmp_path)["audited"]
    assert len(entry["looked"]) > 5  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_chapter")
def test_a_sound_one_that_is_flagged_fails_the_audit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = replace(SOUND, kernel=SPECIMENS["runvar-bias"].kernel, name="said-to-be-sound")
    monkeypatch.setitem(SPECIMENS, "said-to-be-sound", wrong)
    done = run(tmp_path, "--specimen", "said-to-be-sound")
    assert done.exit_code == 1
    assert re.search(r"said-to-be-sound +sound, but FLAGGED by RUN-\d\d", done.stdout)
    assert "1 of 1 sound ones flagged" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--specimen", "nonesuch"), "matches none of"),
        (("-n", "none"), "allowed: a number of workers, or auto"),
        (("-n", "0"), "allowed: a number of workers, or auto"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert not (tmp_path / "deep").exists()


def test_what_stands_in_for_gigabytes_is_set_back() -> None:
    kernel = SPECIMENS["elements-counted-in-32-bits"].kernel
    limit = kernel.limit  # type: ignore[attr-defined]
    with audit.scaled_down():
        assert kernel.limit < 2**24 < limit  # type: ignore[attr-defined]
    assert kernel.limit == limit == 2**31  # type: ignore[attr-defined]
