"""The file of a run: written, read back, refused if damaged, the same for any number of workers."""

from __future__ import annotations

import json
import re
from math import inf
from pathlib import Path
from typing import Any

import pytest

from bn_spec import Capabilities, Dialect, kernel_backend
from bn_spec.backend.registry import registered
from bn_spec.case.whole_files import written_whole
from bn_spec.errors import RunFileError
from bn_spec.report.records import FAIL, KNOWN, NOT_CLAIMED, PASS, Record, Run
from bn_spec.report.run_file import NAME, Judged, RunFile
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.chapters import load_suite
from scripts.scoreboard import ENVIRONMENTS, TABLE, table
from tests.process import pytest_suite, table_of

BY = {"bn-spec": "0.1.0", "specification": "0.6", "profile": "ci", "examples": 100, "seed": 0}


def record(requirement: str, status: str, dtype: str = "float32", **more: Any) -> Record:
    return Record(requirement, "one", dtype, status, **more)


RECORDS = [
    record("TRN-01", PASS, shares={"output": 0.25}, judged=1000, grade="welford"),
    record("CFG-01", PASS),
    record(
        "RUN-03",
        KNOWN,
        text="two steps are rounded\nthe mean is too",
        shares={"running_var": 0.996},
    ),
    record("RUN-03", FAIL, "float64", text="RUN-03 is violated\n  case  x = [0, 1]"),
    record("GRD-01", NOT_CLAIMED, text="one does not claim gradients"),
]
TIMING = {"started": "2026-11-26T09:00:00+00:00", "seconds": 1.5, "workers": 2}
DEPARTURE = "running_var is updated with the biased variance of the batch"


WHOLE = record(
    "NUM-01",
    FAIL,
    examples=12,
    discarded=1,
    judged=30,
    outside=2,
    seconds=0.5,
    shares={"output": inf, "running_var": 1.5},
    worst_case="Case(Config(1))",
    text="NUM-01 is violated",
    observable="output",
    explanations=("eps-ignored: eps is not added.",),
    cases=("0123456789",),
    grade="textbook",
    claimed_grade="welford",
    conditioning={"mean/σ 1e3": {"welford": 2.5, "textbook": inf}},
    reached={"n = 2": 3},
)


def kept() -> RunFile:
    lost = Run(list(RECORDS), {"other": "it is not installed"}, {"a", "b"}, {"a"})
    biased = Capabilities(inference=False, dialect=Dialect(running_var="biased"))
    one = kernel_backend(
        "one", lambda *_, **__: (), capabilities=biased, description="framework 1.0"
    )
    return RunFile.of(lost, BY, {"mine.py:one": one}, TIMING)


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "run.json"
    kept().save(path)
    assert RunFile.load(path) == kept()
    assert kept().incomplete == ("b",)
    assert [r.requirement for r in kept().records] == [
        "CFG-01",
        "GRD-01",
        "RUN-03",
        "TRN-01",
        "RUN-03",
    ]


def test_a_record_is_plain_data_and_back() -> None:
    assert all(vars(WHOLE).values())
    assert Record.from_dict(json.loads(json.dumps(WHOLE.to_dict()))) == WHOLE
    assert WHOLE.worst == inf


def test_numbers_that_are_not_finite_survive_a_file_without_them(tmp_path: Path) -> None:
    RunFile.of(Run([WHOLE]), BY, {}, TIMING).save(tmp_path / NAME)
    assert "Infinity" not in (tmp_path / NAME).read_text("utf-8")
    assert RunFile.load(tmp_path / NAME).records == (WHOLE,)


def test_a_backend_is_kept_with_the_departures_of_its_dialect() -> None:
    judged = Judged.of(SPECIMENS["another-dialect"], RECORDS)
    assert judged.name == "another-dialect"
    assert "running_var is updated with the biased variance of the batch" in judged.departures
    assert Judged.of(SPECIMENS["two-pass-pairwise"], []).departures == ()
    assert [each.address for each in kept().backends] == ["mine.py:one"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a record of a bn-spec run, or damaged"),
        (b"\xff\x00", "not a record of a bn-spec run, or damaged"),
        (b"[]", "not a record of a bn-spec run, or damaged"),
        (
            b'{"format": "bn-spec case", "version": 1}',
            "format 'bn-spec case'; expected 'bn-spec run'",
        ),
        (b'{"format": "bn-spec run", "version": 9}', "version 9; this bn-spec reads 2"),
        (b'{"format": "bn-spec run", "version": 2}', "run.json: the file has no 'judged_by'"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=said):
        RunFile.load(path)


def test_a_record_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RunFile.load(tmp_path / "run.json")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), written_whole(path) as file:
        file.write("no bytes")  # type: ignore[call-overload]
    assert path.read_bytes() == b"old"
    with written_whole(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_record_and_summary_of_a_run_are_the_same_with_any_number_of_workers(
    tmp_path: Path,
) -> None:
    def judged(workers: str) -> tuple[dict[str, Any], list[str]]:
        folder = tmp_path / workers
        options = ("--bn-requirement=RUN-0[13]", f"-n{workers}", f"--bn-report-dir={folder}")
        backend = "--bn-backend=bn_spec.specimens:another_dialect"
        done = pytest_suite(backend, *options, cwd=tmp_path)
        assert done.returncode == 0
        content: dict[str, Any] = json.loads((folder / NAME).read_text("utf-8"))
        assert content.pop("timing")["workers"] == int(workers)
        for each in content["records"]:
            assert each.pop("seconds") >= 0
        return content, table_of(done.stdout)

    record, summary = judged("0")
    assert (record, summary) == judged("2")
    assert (record, summary) == judged("4")
    assert [each["requirement"] for each in record["records"]] == ["RUN-01", "RUN-03"] * 6
    assert any(re.match(r"another-dialect +float32 +0\.\d\d", line) for line in summary)


def test_the_scoreboard_says_what_the_records_say() -> None:
    load_suite()
    text = table([kept()], {"other": "it is not installed"})
    assert "| [one](#one) | framework 1.0 | 1 of 1 | 1 of 2 | not claimed | not claimed |" in text
    assert (
        "Not as in PyTorch: running_var is updated with the biased variance of the batch." in text
    )
    assert "| float32 | welford | 0.996 (running_var) | 1,000 |" in text
    assert "- understood (RUN-03): two steps are rounded" in text
    assert "- understood (RUN-03): the mean is too" in text
    assert "- open (RUN-03): RUN-03 is violated\n" in text
    assert "- other: it is not installed" in text


def test_every_backend_of_the_scoreboard_is_in_one_environment() -> None:
    names = [backend for environment in ENVIRONMENTS for backend in environment.backends]
    assert len(names) == len(set(names))
    own = {
        name
        for name, entry in registered().items()
        if entry.value.startswith("bn_spec.backend.adapters.")
    }
    assert own - set(names) == {"reference", "torch-cuda", "torch-compile"}
    assert TABLE.name == "scoreboard.md"
