"""The measured grade of a kernel is the best one whose bounds every example satisfied."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from bn_spec.case.dtypes import Array
from bn_spec.oracle.bounds import GRADES
from bn_spec.report.records import FAIL, PASS, Record, Run
from bn_spec.report.table import summary
from bn_spec.specimens import SPECIMENS
from bn_spec.specimens.kernel import Kernel
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from bn_spec.suite.tally import WORSE
from tests.process import pytest_suite, strange

import_module("conformance.test_num")  # declares its properties
import_module("conformance.test_run")


def search_of(
    specimen: str, dtype: str = "float32", requirement: str = "NUM-01", grade: str = ""
) -> Search:
    """A cell for a specimen that claims its own grade, or another."""
    prop = PROPERTIES[requirement]
    known = SPECIMENS[specimen]
    claims = replace(known.capabilities, grade=grade or known.capabilities.grade)
    return Search(Cell(prop, replace(known, capabilities=claims), dtype), PROFILES["ci"].settings())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("specimen", "grade"),
    [
        ("two-pass-sequential", "two-pass"),
        ("folded-affine", "two-pass"),
        ("welford", "welford"),
        ("chan-merge", "welford"),
        ("textbook", "textbook"),
    ],
)
def test_a_kernel_is_measured_as_what_it_is(specimen: str, grade: str, dtype: str) -> None:
    search = search_of(specimen, dtype)
    search.examine()
    assert search.tally.measured_grade == grade
    assert list(search.tally.grades) == list(GRADES)
    ascending = [search.tally.grades[name] for name in reversed(GRADES)]
    assert ascending == sorted(ascending)  # who satisfies a grade satisfies all that admit it


@pytest.mark.parametrize("specimen", ["two-pass-sequential", "welford"])
def test_a_kernel_that_claims_too_little_passes_and_is_measured_all_the_same(
    specimen: str,
) -> None:
    search = search_of(specimen, grade="textbook")
    search.examine()
    assert search.tally.measured_grade == SPECIMENS[specimen].capabilities.grade


@pytest.mark.parametrize(("specimen", "claim"), [("textbook", "welford"), ("welford", "two-pass")])
def test_a_kernel_that_claims_too_much_fails_with_its_measured_grade(
    specimen: str, claim: str
) -> None:
    search = search_of(specimen, grade=claim)
    with pytest.raises(Violation) as found:
        search.examine()
    is_instead = SPECIMENS[specimen].capabilities.grade
    assert found.value.finding.note == f"claimed grade: {claim}; measured grade: {is_instead}"
    assert f"  note      claimed grade: {claim}; measured grade: {is_instead}" in str(found.value)
    assert search.tally.measured_grade == is_instead


def test_a_kernel_can_be_worse_than_the_textbook() -> None:
    search = search_of("sums-in-half-precision", grade="textbook")
    with pytest.raises(Violation) as found:
        search.examine()
    assert found.value.finding.note == f"claimed grade: textbook; measured grade: {WORSE}"
    assert min(search.tally.grades.values()) > 1
    assert search.tally.measured_grade == WORSE


class DropsAnAxis(Kernel):
    """A kernel whose output lacks the last axis."""

    def forward(self, x: Array) -> Array:
        return super().forward(x)[..., 0]


def test_a_kernel_whose_answers_have_no_error_to_measure_is_of_no_grade() -> None:
    search = search_of("two-pass-sequential")
    search.cell.backend = replace(SPECIMENS["two-pass-sequential"], kernel=DropsAnAxis)
    with pytest.raises(Violation):
        search.examine()
    assert search.tally.measured_grade == WORSE


def test_where_nothing_is_measured_there_is_no_grade() -> None:
    search = search_of("two-pass-sequential", requirement="RUN-01")
    assert search.tally.measured_grade == ""
    search.examine()
    assert search.tally.measured_grade == ""


# The table


def record(
    requirement: str = "NUM-01", status: str = PASS, grade: str = "", claimed: str = "two-pass"
) -> Record:
    return Record(
        requirement,
        "mine",
        "float32",
        status,
        shares={"output": 0.5},
        grade=grade,
        claimed_grade=claimed,
    )


@pytest.mark.parametrize(
    ("records", "ending"),
    [
        ([record(grade="two-pass")], "0.50  two-pass"),
        ([record(grade="two-pass", claimed="welford")], "0.50  two-pass (claims welford)"),
        ([record(status=FAIL, grade=WORSE)], "1 FAILED  worse than textbook (claims two-pass)"),
        ([record("RUN-01"), record(grade="welford", claimed="welford")], "0.50  welford"),
        ([record("RUN-01")], "0.50"),
    ],
)
def test_the_table_shows_the_measured_grade_and_the_claimed_one_where_they_differ(
    records: list[Record], ending: str
) -> None:
    header, line, *others = summary(Run(list(records)))
    chapters = dict.fromkeys(
        one.chapter for one in sorted(records, key=lambda one: one.requirement, reverse=True)
    )
    assert re.split(" {2,}", header)[2:] == [*chapters, "grade"]
    assert re.fullmatch(rf"mine +float32 .*{re.escape(ending)}", line)
    assert (
        "grade: the best numerical class of the variance whose bounds all examples satisfied"
        in others
    )


def test_a_run_prints_the_measured_grade_beside_the_claimed_one(tmp_path: Path) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('no_inference')}",
        "--bn-backend=bn_spec.specimens:welford",
        "--bn-backend=bn_spec.specimens:clamped_textbook_variance",
        "--bn-requirement=NUM-01",
        "-k",
        "float32",
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"(?m)^no-inference +float32 .* two-pass \(claims welford\)$", done.stdout)
    assert re.search(r"(?m)^welford +float32 .* welford$", done.stdout)
    assert re.search(
        r"(?m)^clamped-textbook-variance +float32 .* textbook \(claims welford\)$", done.stdout
    )
    assert "note      claimed grade: welford; measured grade: textbook" in done.stdout
