"""The pytest plugin: options, header, ids, findings, statuses and the summary."""

import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from bn_spec.case.dtypes import DTYPES
from bn_spec.suite.property import PROPERTIES
from tests.process import pytest_suite, python, strange, table_of

SMOKE = "--bn-profile=smoke"
NUM_TESTS = {
    test.bn_property.requirement.id: name
    for name, test in vars(import_module("conformance.test_num")).items()
    if hasattr(test, "bn_property")
}
"""The tests of the chapter NUM by requirement."""


def test_the_header_says_what_is_checked_and_how(tmp_path: Path) -> None:
    done = pytest_suite(SMOKE, "--bn-requirement=CFG-01", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"bn-spec: [\d.]+, specification [\d.]+, profile smoke, seed 0, threads", done.stdout
    )
    assert re.search(r"  reference: bn-spec [\d.]+, double-double arithmetic", done.stdout)


def test_junit_files_say_of_each_check_what_it_is_and_how_much_of_the_bounds_it_used(
    tmp_path: Path,
) -> None:
    path = tmp_path / "junit.xml"
    pytest_suite(
        SMOKE,
        "--bn-requirement=[TC]*-0[13]",
        "-k",
        "float64",
        "-n",
        "2",
        f"--junitxml={path}",
        cwd=tmp_path,
    )
    said = {
        tuple(each.get("value") for each in test.iter("property"))
        for test in ElementTree.parse(path).iter("testcase")
    }
    assert ("CFG-01", "pass") in said
    (worst,) = (float(each[2] or "") for each in said if each[:2] == ("TRN-01", "pass"))
    assert 0 < worst < 1


def test_a_wrong_backend_ends_the_session_before_it_starts(tmp_path: Path) -> None:
    done = pytest_suite("--bn-backend=refrence", "-n", "2", cwd=tmp_path)
    assert done.returncode == 4
    assert "backend 'refrence' is not known" in done.stderr
    assert "did you mean 'reference'?" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("ini", "sentence"),
    [
        ("bn_profile = nightley", "bn_profile is 'nightley'; allowed: smoke, ci, nightly"),
        ("bn_max_examples = many", "bn_max_examples is 'many'; allowed: a whole number"),
    ],
)
def test_a_wrong_ini_value_is_named(tmp_path: Path, ini: str, sentence: str) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    done = pytest_suite("-c", "pytest.ini", cwd=tmp_path)
    assert done.returncode == 4
    assert sentence in done.stderr


def test_every_option_has_an_ini_key(tmp_path: Path) -> None:
    keys = [
        "bn_backend = reference",
        "bn_profile = smoke",
        "bn_max_examples = 3",
        "bn_requirement = TRN-0[12]",
        "bn_seed = 5",
    ]
    (tmp_path / "pytest.ini").write_text("\n".join(["[pytest]", *keys]))
    suite = Path(__file__).parent.parent / "conformance"
    done = python("-m", "pytest", suite, "-c", "pytest.ini", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "profile smoke with 3 examples, seed 5" in done.stdout
    assert "reference: conforms (12 checks, 36 examples" in done.stdout


def test_ids_are_stable_and_ordered(tmp_path: Path) -> None:
    arguments = (
        "--collect-only",
        "-q",
        "--bn-backend=reference",
        "--bn-backend=bn_spec.specimens:welford",
    )
    first, second = (pytest_suite(*arguments, cwd=tmp_path, PYTHONHASHSEED=seed) for seed in "12")
    ids = [line for line in first.stdout.splitlines() if "::" in line]
    assert ids == [line for line in second.stdout.splitlines() if "::" in line]
    assert [line.partition("[")[2] for line in ids[: 2 * len(DTYPES)]] == [
        f"CFG-01-{backend}-{dtype}]" for backend in ("reference", "welford") for dtype in DTYPES
    ]


def test_a_chapter_is_a_marker(tmp_path: Path) -> None:
    done = pytest_suite("--collect-only", "-q", "-m", "RUN", "--strict-markers", cwd=tmp_path)
    ids = [line.partition("[")[2] for line in done.stdout.splitlines() if "::" in line]
    assert ids
    assert all(name.startswith("RUN-") for name in ids)


class Found(NamedTuple):
    """What a run in CI printed of a finding, and the JUnit file that it wrote."""

    stdout: str
    junit: ElementTree.Element


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("found")
    arguments = (
        "--bn-backend=bn_spec.specimens:runvar_bias",
        "--bn-requirement=RUN-03",
        "--junitxml=junit.xml",
    )
    done = pytest_suite(*arguments, "-k", "float32", "-n", "2", cwd=folder, CI="true")
    assert done.returncode == 1
    return Found(done.stdout, ElementTree.parse(folder / "junit.xml").getroot())


def test_a_finding_prints_requirement_case_expected_and_got(found: Found) -> None:
    block = found.stdout.partition("RUN-03  ")[2]
    assert block.startswith("running_var is updated with the unbiased variance of the batch")
    assert "runvar-bias · float32" in block
    assert re.search(r"case +N=2 C=1 H=1 W=1 +momentum=1\.0 +x = \[0, 1\]", block)
    assert re.search(r"expected +running_var\[0\] = 0\.5 ± 5\.7e-07", block)
    assert re.search(r"got +0\.25 +\(4\.4e\+05 × the bound\)", block)
    assert "Traceback" not in found.stdout


def test_of_a_finding_summaries_and_junit_files_have_its_headline_also_in_ci(found: Found) -> None:
    headline = (
        "RUN-03 running_var is updated with the unbiased variance of the batch "
        "runvar-bias · float32"
    )
    assert re.search(
        rf"^FAILED .*\[RUN-03-runvar-bias-float32\] - {headline}$", found.stdout, re.MULTILINE
    )
    assert found.stdout.count("  expected  ") == 1
    (failure,) = found.junit.iter("failure")
    assert failure.get("message") == headline
    assert "  expected  running_var[0] = 0.5" in (failure.text or "")


def test_the_python_of_a_finding_shows_it_again(found: Found, tmp_path: Path) -> None:
    printed = re.search(r"python +(from bn_spec\.case.*\n)((?: {12}.*\n)+)", found.stdout)
    assert printed, found.stdout
    again = python("-c", printed[1] + re.sub("(?m)^ {12}", "", printed[2]), cwd=tmp_path)
    assert "observable='running_var'" in again.stdout, again.stderr
    assert "got='0.25'" in again.stdout


def test_a_deterministic_profile_finds_the_same_again(tmp_path: Path) -> None:
    arguments = (
        "--bn-backend=bn_spec.specimens:tail_dropped",
        "--bn-requirement=SHP-02",
        "-k",
        "dropped-float",
    )
    folders = [tmp_path / name for name in "ab"]  # a case that is kept would be played first
    for folder in folders:
        folder.mkdir()
    first, second = (table_of(pytest_suite(*arguments, cwd=folder).stdout) for folder in folders)
    assert first == second
    assert any(re.search(r"failing requirements: SHP-02 \(.*float32.*\)", line) for line in first)


def test_nightly_prints_a_seed_that_repeats_the_run(tmp_path: Path) -> None:
    nightly = ("--bn-profile=nightly", "--bn-max-examples=30", "--bn-requirement=TRN-02")
    first = pytest_suite(*nightly, "-n", "2", cwd=tmp_path)
    seed = re.search(r"profile nightly with 30 examples, seed (\d+)", first.stdout)
    assert seed, first.stdout
    again = pytest_suite(*nightly, f"--bn-seed={seed[1]}", cwd=tmp_path)
    assert table_of(first.stdout) == table_of(again.stdout)
    other = pytest_suite(*nightly, f"--bn-seed={int(seed[1]) + 1}", cwd=tmp_path)
    assert table_of(first.stdout) != table_of(other.stdout)


@pytest.mark.parametrize(
    ("arguments", "properties"),
    [
        (("--bn-requirement=NUM-1*",), {"NUM-10", "NUM-12", "NUM-13"}),
        (
            ("--bn-requirement=NUM-1*", "--bn-profile=nightly"),
            {"NUM-10", "NUM-11", "NUM-12", "NUM-13"},
        ),
        (("--bn-requirement=NUM-11",), {"NUM-11"}),
        (("-k", "more_values_than_half"), set()),
    ],
)
def test_a_deep_property_is_checked_nightly_or_when_it_is_named(
    tmp_path: Path, arguments: tuple[str, ...], properties: set[str]
) -> None:
    done = pytest_suite("--collect-only", "-q", *arguments, cwd=tmp_path)
    collected = {
        line.partition("::")[2].partition("[")[0]
        for line in done.stdout.splitlines()
        if "::" in line
    }
    assert collected == {NUM_TESTS[name] for name in properties}, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "collected"),
    [
        (("--bn-requirement=SHP-07",), 6),
        (("--bn-requirement=SHP-0*", "--bn-profile=nightly"), 0),
        (("--bn-profile=nightly", "-k", "thirty_two"), 0),
    ],
)
def test_a_huge_property_is_checked_by_who_names_it_alone(
    tmp_path: Path, arguments: tuple[str, ...], collected: int
) -> None:
    done = pytest_suite("--collect-only", "-q", *arguments, cwd=tmp_path)
    assert done.stdout.count("test_elements_beyond_thirty_two_bits") == collected, (
        done.stdout + done.stderr
    )


def test_a_property_of_dtypes_that_a_backend_lacks_is_said_not_to_be_claimed(
    tmp_path: Path,
) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('no_inference')}", "--bn-requirement=DTY-02", "-rs", cwd=tmp_path
    )
    assert "not claimed: no-inference does not claim mixed_float16" in done.stdout


def test_a_deep_property_that_is_named_is_checked_on_few_examples(tmp_path: Path) -> None:
    done = pytest_suite("--bn-requirement=NUM-11", "-k", "float16", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"reference: conforms \(4 checks, 20 examples, [\d,]+ values judged", done.stdout
    )


@pytest.mark.parametrize(("requirement", "without"), [("NUM-08", "float16"), ("NUM-13", "float16")])
def test_a_property_about_some_dtypes_has_cells_for_no_other(
    tmp_path: Path, requirement: str, without: str
) -> None:
    done = pytest_suite("--collect-only", "-q", f"--bn-requirement={requirement}", cwd=tmp_path)
    cells = {
        line.partition("[")[2].rstrip("]") for line in done.stdout.splitlines() if "::" in line
    }
    prop = PROPERTIES[requirement]
    assert cells == {f"{requirement}-reference-{dtype}" for dtype in prop.dtypes}
    assert without in DTYPES.keys() - set(prop.dtypes)


def test_a_known_failure_is_reported_and_does_not_fail(tmp_path: Path) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('excused')}", "--bn-requirement=RUN-03", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    assert "(1 known)" in done.stdout
    assert (
        "excused: known failure of RUN-03 (float32): the biased variance is kept on purpose"
        in done.stdout
    )


def test_a_known_failure_covers_its_observable_alone(tmp_path: Path) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('excused_for_another')}", "--bn-requirement=RUN-03", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "expected  running_var[0]" in done.stdout


def test_a_known_failure_that_holds_fails_the_run(tmp_path: Path) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('excused_in_vain')}", "--bn-requirement=RUN-03", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "RUN-03 holds for excused-in-vain, which declares a known failure of it" in done.stdout
    assert "remove the declaration" in done.stdout


def test_what_is_not_claimed_is_said(tmp_path: Path) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('no_inference')}",
        SMOKE,
        "--bn-requirement=EVL-0[15]",
        "-rs",
        cwd=tmp_path,
    )
    assert "not claimed: no-inference does not claim inference" in done.stdout
    assert re.search(r"no-inference +float32 +-$", done.stdout, re.MULTILINE)


def test_a_backend_that_is_not_deterministic_is_said_to_be_so(tmp_path: Path) -> None:
    done = pytest_suite(
        f"--bn-backend={strange('unsteady')}", "--bn-requirement=TRN-06", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "TRN-06  a training forward leaves its input" in done.stdout
    assert "the backend is not deterministic" in done.stdout


def test_workers_use_one_thread_each(tmp_path: Path) -> None:
    arguments = (f"--bn-backend={strange('single_threaded')}", SMOKE, "--bn-requirement=TRN-01")
    done = pytest_suite(*arguments, "-n", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 thread per worker" in done.stdout


def test_a_session_without_the_suite_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n"
        "def test_own():\n"
        "    assert not any(m in sys.modules for m in ('bn_spec.suite.cell', 'torch'))\n"
    )
    done = python(
        "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    assert "bn-spec:" not in done.stdout


def test_a_users_own_hypothesis_profile_stays_in_force(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import settings\n"
        "settings.register_profile('mine', max_examples=7)\n"
        "settings.load_profile('mine')\n"
    )
    (tmp_path / "test_own.py").write_text(
        "from hypothesis import settings\n"
        "def test_own(): assert settings.default.max_examples == 7\n"
    )
    done = pytest_suite(SMOKE, "--bn-requirement=TRN-01", "test_own.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "reference: conforms (6 checks, 40 examples" in done.stdout
