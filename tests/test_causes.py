"""Causes: several failures that one fault explains are reported once."""

from collections.abc import Callable
from math import inf
from pathlib import Path

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.case.steps import Forward
from bn_spec.judge.finding import Finding
from bn_spec.judge.verdict import Discrepancy
from bn_spec.report.causes import causes, enumerated
from bn_spec.report.html import html
from bn_spec.report.markdown import markdown
from bn_spec.report.merge import Merged, merged
from bn_spec.report.records import FAIL, KNOWN, Record, Run
from bn_spec.report.table import summary
from bn_spec.suite.chapters import load_suite, requirement_named
from tests.process import bn_spec, pytest_suite
from tests.runs import run

EPS, BIAS, OTHER = (
    "eps-ignored: eps is not added.",
    "runvar-bias: it is biased. (a/b#1)",
    "third: it is odd.",
)


def failing(
    requirement: str,
    *explanations: str,
    dtype: str = "float32",
    backend: str = "one",
    text: str = "",
) -> Record:
    return Record(
        requirement, backend, dtype, FAIL, text=text or requirement, explanations=explanations
    )


RECORDS = [
    failing(
        "RUN-03",
        BIAS,
        text="RUN-03\n  got       0.25\n  replay    bn-spec replay 0123456789\n  python    x",
    ),
    failing("RUN-03", BIAS, dtype="float16", text="RUN-03, which is longer by far" * 9),
    failing("STA-09", OTHER, BIAS, text="STA-09, which is longer by far" * 9),
    failing("TRN-03", EPS),
    failing("TRN-01", EPS),
    failing("NUM-01", OTHER),
    failing("NUM-02"),
    failing("RUN-01", BIAS, backend="two"),
    Record("GRD-01", "one", "float32", KNOWN, text="on purpose", explanations=(BIAS,)),
]


def test_a_fault_that_is_named_among_others_explains_too_and_each_failure_counts_once() -> None:
    found = causes(RECORDS)
    assert [(each.backend, each.what, len(each.records)) for each in found] == [
        ("one", f"match one catalogued fault, {BIAS}", 3),
        ("one", "match one catalogued fault, eps-ignored: eps is not added", 2),
    ]
    assert found[0].where == "RUN-03, STA-09 (float16, float32)"
    assert str(found[0]) == (
        "one: 3 of 7 failures match one catalogued fault, runvar-bias: it is biased. (a/b#1);"
        " simplest example: RUN-03, float32: bn-spec replay 0123456789"
    )


def test_an_error_and_the_command_to_replay_are_read_off_a_finding_as_it_is_printed() -> None:
    load_suite()
    case = Case(Config(1), None, (Forward(np.ones((2, 1, 1, 1), np.float32)),))
    found = Discrepancy("error", 0, "no error", "raised TypeError: no such argument", inf)
    requirement = requirement_named("TRN-01")
    replay = "bn-spec replay 0123456789"
    text = str(Finding(requirement, "one", "one", case, found, replay=replay))
    (cause,) = causes([failing("TRN-01", text=text), failing("TRN-02", text=text)])
    assert str(cause).startswith(
        "one: 2 of 2 failures end with one error: raised TypeError: no such argument; "
    )
    assert str(cause).endswith(": bn-spec replay 0123456789")


def test_deaths_in_one_place_are_one_cause_in_whatever_step() -> None:
    text = (
        "TRN-01\n  expected  an answer\n"
        "  got       killed by SIGABRT in step {} (forward), at kernel.py:5"
    )
    found = causes([failing("TRN-01", text=text.format(1)), failing("TRN-02", text=text.format(3))])
    assert [each.what for each in found] == [
        "end with one error: killed by SIGABRT, at kernel.py:5"
    ]


def test_the_order_in_which_workers_report_makes_no_difference() -> None:
    one, other = causes(RECORDS), causes(RECORDS[::-1])
    assert [(each.what, each.plainest) for each in one] == [
        (each.what, each.plainest) for each in other
    ]


def test_an_error_that_all_raise_is_one_cause_unless_a_fault_says_more() -> None:
    text = "TRN-01\n  expected  no error\n  got       raised TypeError: no such argument"
    records = [failing(f"TRN-0{number}", text=text) for number in (1, 2, 3)]
    assert [str(each) for each in causes(records)] == [
        "one: 3 of 3 failures end with one error: raised TypeError: no such argument;"
        " simplest example: TRN-01, float32"
    ]
    explained = causes([failing(each.requirement, EPS, text=text) for each in records])
    assert explained[0].what.startswith("match one catalogued fault")


def test_requirements_are_enumerated_by_the_dtypes_that_they_share() -> None:
    assert enumerated(
        [failing("GRD-01"), failing("GRD-02", dtype="float16"), failing("GRD-02")]
    ) == [
        "GRD-01 02 (float32)",
        "GRD-02 (float16)",
    ]


def test_the_summary_has_a_line_for_a_cause_and_one_for_each_requirement_that_has_none() -> None:
    told = "\n".join(summary(Run(records=[*RECORDS])))
    assert "one: 3 of 7 failures match one catalogued fault, runvar-bias" in told
    assert "failing requirements: RUN-03, STA-09 (float16, float32)" in told
    assert "NUM-01 one (float32): fail" in told
    assert "RUN-01 two (float32): fail" in told
    assert "STA-09 one" not in told


@pytest.mark.parametrize("write", [markdown, html])
def test_reports_say_it_before_the_findings(write: Callable[[Merged], str]) -> None:
    told = write(merged({"run.json": run(*RECORDS)}))
    assert "one: 3 of 7 failures match one catalogued fault" in told
    assert told.index("match one catalogued fault") < told.index("STA-09, which is longer by far")


def test_only_the_simplest_finding_of_a_cause_is_printed_unless_more_is_asked_for(
    tmp_path: Path,
) -> None:
    backend = "bn_spec.specimens:runvar_bias"
    few = bn_spec("run", backend, "--requirement", "RUN-0[34]", "-n", "2", cwd=tmp_path)
    assert few.stdout.count("  expected  ") == 1
    printed = " ".join(few.stdout.split())
    assert "runvar-bias: 12 of 12 failures match one catalogued fault, runvar-bias: " in printed
    assert "12 failed" in few.stdout
    all_of_them = pytest_suite(
        f"--bn-backend={backend}", "--bn-requirement=RUN-0[34]", "-v", cwd=tmp_path
    )
    assert all_of_them.stdout.count("  expected  ") == 12
