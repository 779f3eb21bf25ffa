"""The comparison of two runs: what got worse, what changed, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bn_spec.cli import main
from bn_spec.report.comparison import GONE, MOST_SHARES, Change, Comparison, ShareChange
from bn_spec.report.records import (
    BAD,
    CRASHED,
    FAIL,
    KNOWN,
    NOT_CLAIMED,
    PASS,
    UNEXPECTED_PASS,
    VACUOUS,
)
from bn_spec.report.run_file import NAME, RunFile
from tests.runs import HARM, SEVERAL, hostile, judged, record, run

STATUSES = (PASS, KNOWN, NOT_CLAIMED, *sorted(BAD), GONE)


def told(before: RunFile, after: RunFile) -> list[str]:
    return list(Comparison(before, after).lines())


def section(title: str, before: RunFile, after: RunFile) -> list[str]:
    lines = told(before, after)
    start = lines.index(title) + 1
    return [line.strip() for line in lines[start : lines.index("", start)]]


def test_of_equal_runs_nothing_is_told() -> None:
    assert told(run(*SEVERAL), run(*SEVERAL)) == ["no check got worse"]


@pytest.mark.parametrize("before", STATUSES)
@pytest.mark.parametrize("after", STATUSES)
def test_worse_is_what_held_and_fails_or_is_no_more(before: str, after: str) -> None:
    worse = {
        *(
            (held, bad)
            for held in (PASS, KNOWN)
            for bad in (FAIL, UNEXPECTED_PASS, CRASHED, VACUOUS)
        ),
        *((judged, gone) for judged in (PASS, KNOWN, *BAD) for gone in (NOT_CLAIMED, GONE)),
    }
    assert Change(("one", "RUN-03", "float32"), before, after).worse is ((before, after) in worse)


def test_changes_are_told_the_worse_ones_first_and_dtypes_together() -> None:
    before = run(
        record("RUN-03"),
        record("RUN-03", dtype="float64"),
        record("RUN-04", FAIL),
        record("TRN-01"),
    )
    after = run(record("RUN-03", FAIL), record("RUN-03", FAIL, dtype="float64"), record("RUN-04"))
    assert section("got worse", before, after) == [
        "RUN-03 one (float32, float64): pass → fail",
        "TRN-01 one (float32): pass → not judged",
    ]
    assert section("changed", before, after) == ["RUN-04 one (float32): fail → pass"]
    assert told(before, after)[-1] == "3 checks got worse"
    assert told(after, before)[-1] == "1 check got worse"


def test_cells_of_one_run_alone_are_counted() -> None:
    new = (
        record("RUN-03", backend="two"),
        record("TRN-01", backend="two"),
        record("GRD-01", NOT_CLAIMED, "two"),
    )
    assert section("new checks", run(*SEVERAL), run(*SEVERAL, *new)) == [
        "two: 3 checks of GRD, RUN, TRN"
    ]
    assert section(
        "dropped checks that were not claimed before", run(*SEVERAL), run(*SEVERAL[:-1])
    ) == ["other: 1 check of GRD"]


def test_a_finding_is_another_when_something_else_is_wrong() -> None:
    before = run(record("RUN-03", FAIL, observable="running_var"))
    after = run(record("RUN-03", FAIL, observable="running_mean"))
    sentence = "running_var is updated with the unbiased variance of the batch"
    assert section("new findings", before, after) == [
        f"RUN-03 one (float32): running_mean is wrong: {sentence}"
    ]
    assert section("findings that are gone", before, after) == [
        f"RUN-03 one (float32): running_var is wrong: {sentence}"
    ]
    assert told(before, after)[-1] == "no check got worse"


def test_shares_are_told_that_grew_or_shrank_by_half() -> None:
    before = {"a": 0.2, "b": 0.125, "c": 0.375, "d": 0.0, "e": 0.5, "f": 0.0, "only before": 1.0}
    after = {"a": 0.299, "b": 0.1875, "c": 0.25, "d": 0.4, "e": 0.0, "f": 0.0, "only after": 1.0}
    old, new = run(record("TRN-01", shares=before)), run(record("TRN-01", shares=after))
    assert section("err/bound grew", old, new) == [
        "TRN-01 one (float32) d: 0.00 → 0.40 (was zero)",
        "TRN-01 one (float32) b: 0.12 → 0.19 (1.5 times)",
    ]
    assert section("err/bound shrank", old, new) == [
        "TRN-01 one (float32) e: 0.50 → 0.00 (is zero now)",
        "TRN-01 one (float32) c: 0.38 → 0.25 (1.5 times)",
    ]
    assert ShareChange(("", "", ""), "", 0.0, 0.0).factor == 1


def test_small_shares_are_told_in_more_digits() -> None:
    old, new = (run(record("TRN-01", shares={"y": value})) for value in (1e-4, 3e-4))
    assert section("err/bound grew", old, new) == [
        "TRN-01 one (float32) y: 0.0001 → 0.0003 (3 times)"
    ]


def test_shares_of_failures_are_not_compared() -> None:
    old, new = (
        run(record("TRN-01", shares={"y": 0.1})),
        run(record("TRN-01", FAIL, shares={"y": 9e9})),
    )
    assert Comparison(old, new).shares == []


def test_versions_and_grades_that_differ_are_told() -> None:
    before = run(*SEVERAL, backends=(judged("one", "torch 2.12", float32="two-pass"),))
    after = run(
        *SEVERAL,
        backends=(judged("one", "torch 2.13", float32="welford"),),
        by={"profile": "smoke"},
    )
    after = replace(
        after, environment={**after.environment, "packages": {"numpy": "2.5", "jax": "1"}}
    )
    assert section("judged under different conditions", before, after) == [
        "profile: ci → smoke",
        "numpy: 2.4.6 → 2.5",
        "backend one: torch 2.12 → torch 2.13",
        "jax: none → 1",
    ]
    assert section("grades", before, after) == ["one (float32): two-pass → welford"]


def test_a_long_list_is_cut_and_its_length_is_told() -> None:
    before = run(*(record("TRN-01", dtype=f"d{number}", shares={"y": 0.1}) for number in range(50)))
    after = run(*(record("TRN-01", dtype=f"d{number}", shares={"y": 0.2}) for number in range(50)))
    assert section("err/bound grew", before, after)[MOST_SHARES:] == ["and 30 more"]


def test_what_others_wrote_moves_no_cursor() -> None:
    lines = told(hostile(), run(*SEVERAL))
    assert any("alert(1)" in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert "\x1b" in HARM


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("good", "good"), 0, "no check got worse"),
        (("good", "bad"), 1, "RUN-03 one (float32): pass → fail"),
        (("bad", "good"), 0, "RUN-03 one (float32): fail → pass"),
        (("good", "missing"), 2, "missing: no such file; expected a run.json"),
        (("damaged", "good"), 2, "not a record of a bn-spec run, or damaged"),
        (("good",), 2, "Missing argument 'AFTER'"),
    ],
)
def test_the_exit_code_tells_whether_something_got_worse(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("damaged").write_text("[]")
    for name, status in (("good", PASS), ("bad", FAIL)):
        run(record("RUN-03", status)).save(Path(name) / NAME)
    done = CliRunner().invoke(main, ["compare", *arguments])
    assert done.exit_code == code
    assert said in done.output
