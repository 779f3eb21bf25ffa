"""Reports of runs: their text, merged runs, and text from backends that stays harmless."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from bn_spec.cli import main
from bn_spec.errors import RunFileError
from bn_spec.report.badge import badge
from bn_spec.report.html import html
from bn_spec.report.markdown import LIMIT, markdown
from bn_spec.report.merge import Merged, merged
from bn_spec.report.records import FAIL, PASS, Record
from bn_spec.report.run_file import NAME, RunFile
from bn_spec.report.schema import first_error
from bn_spec.report.svg import BINS, bins, decades, position
from bn_spec.report.text import in_a_line, shown
from bn_spec.report.view import View, commands, share
from bn_spec.report.writers import WRITERS, read, write
from tests.runs import HARM, SEVERAL, TIMING, hostile, large, record, run

ONE = merged({"run.json": run(*SEVERAL, unavailable={"torch-cuda": "no CUDA device"})})


class Seen(HTMLParser):
    """Tags, event handlers and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on") or name == "src"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


# Text of reports


def test_the_markdown_says_who_conforms_what_was_found_and_what_is_known() -> None:
    told = markdown(ONE)
    assert told.startswith("# 1 of 2 backends does not conform\n")
    assert "| backend | CFG | TRN | RUN | EVL | GRD | ERR | NUM | grade |" in told
    assert (
        "| one | ok |  | **2 FAILED** | **1 FAILED** | 0.50 (1 known) | **1 FAILED** | 0.996 |  |"
        in told
    )
    assert "| other |  | 0.25 |  |  | - |  |  |  |" in told
    assert "### RUN-03 one (float32, float64): fail" in told
    assert "```text\nRUN-03 is violated\n  got  0.25\n```" in told
    assert (
        "<details><summary>float64: fail</summary>\n\n```text\nRUN-03 in float64\n```\n\n</details>"
        in told
    )
    assert "### EVL-01 one (float32): vacuous" in told
    assert "- **one**, GRD-01 (float32): two steps are rounded" in told
    assert "- **torch-cuda**: no CUDA device" in told
    assert "- **one**: running\\_var is updated with the biased variance" in told
    assert (
        told.index("## Findings")
        < told.index("1 known failure, each declared with its reason")
        < told.index("## Not run")
    )


def test_the_page_says_it_too() -> None:
    page = html(ONE)
    said = in_a_line(" ".join(Seen(page).text))
    assert "1 of 2 backends does not conform" in said
    assert "one does not conform: 4 of 7 checks failed" in said
    assert "running_var is updated with the unbiased variance of the batch" in said
    assert "RUN-03 is violated got 0.25" in said
    assert "two steps are rounded GRD-01 (float32)" in said
    assert "torch-cuda not run: no CUDA device" in said
    assert "bn-spec run one.py:it other.py:it --profile ci --seed 0" in said
    assert 'class="unreached"><th scope="row">&gt; 4096</th>' in page
    assert "not by other" in said


def test_the_badge_says_it_in_a_word() -> None:
    assert badge(View(ONE.run)) == {
        "schemaVersion": 1,
        "label": "BatchNorm2d",
        "message": "3 findings",
        "color": "red",
    }
    for told, color, one in (
        ("conforms", "brightgreen", run(SEVERAL[0])),
        ("conforms (1 known failure)", "brightgreen", run(SEVERAL[0], SEVERAL[3])),
        ("nothing tested", "lightgrey", run(SEVERAL[-1])),
        ("incomplete", "orange", run(*SEVERAL, incomplete=("it crashed",))),
        ("failed", "red", run(SEVERAL[0], faults=("a file of known failures is out of date",))),
    ):
        said = badge(View(one))
        assert (said["message"], said["color"]) == (told, color)


@pytest.mark.parametrize(
    ("worst", "told"),
    [
        (None, ""),
        (0.0, "0.00"),
        (0.994, "0.99"),
        (0.9999, "0.999"),
        (1.0, "1.000"),
        (6.53, "6.530"),
        (54.4, "54"),
        (64e13, "6.4e14"),
        (float("inf"), "∞"),
        (float("nan"), "NaN"),
    ],
)
def test_a_share_reads_as_the_limit_only_if_it_is(worst: float | None, told: str) -> None:
    assert share(worst) == told


def test_the_command_that_repeats_a_run_names_examples_that_are_not_the_profiles_own() -> None:
    assert list(commands({"a": run(*SEVERAL, by={"examples": 7, "seed": 3})})) == [
        "bn-spec run one.py:it other.py:it --profile ci --seed 3 --max-examples 7"
    ]


# Pictures


def test_bins_end_at_the_limit_and_hold_what_lies_far_out_at_their_ends() -> None:
    assert bins([1.0, 0.9, 1.0001, 0.0, 1e-9, 5e9, float("inf"), float("nan")]) == {
        0: 2,
        1: 1,
        -4 * BINS: 2,
        BINS + 1: 3,
    }
    assert position(1.0) == pytest.approx(100 * (4 * BINS + 1) / (5 * BINS + 2))


def test_the_bounds_of_grades_are_ratios_of_shares() -> None:
    shares = {"two-pass": 8.0, "welford": 0.5, "textbook": 0.0}
    (one, two) = decades({"mean/σ 1e3": shares, "": shares, "mean/σ 1e-1": {"two-pass": 0.0}})
    assert (one.exponent, one.error, one.bounds) == (-1, 0.0, {"two-pass": 1.0})
    assert (two.exponent, two.error, two.bounds) == (3, 8.0, {"two-pass": 1.0, "welford": 16.0})


# Text from backends


def test_text_that_does_not_print_is_shown_as_python_writes_it() -> None:
    assert shown("a\x1b[31mb\tc\r\nd\u202ee\ud800") == "a\\x1b[31mb    c\nd\\u202ee\\ud800"
    assert in_a_line(" a\n\n b ") == "a b"


def test_nothing_breaks_out_of_a_page() -> None:
    page = html(merged({HARM: hostile()}))
    seen = Seen(page)
    assert seen.tags.count("script") == 1
    assert "img" not in seen.tags
    assert seen.handlers == []
    assert "\x1b" not in page
    assert sum("alert(1)" in part for part in seen.text) > 10
    assert set(seen.tags) <= set(Seen(html(ONE)).tags) | {
        "figure",
        "figcaption",
        "br",
        "circle",
        "text",
    }


def test_nothing_breaks_out_of_markdown() -> None:
    told = markdown(merged({HARM: hostile()}))
    tokens = MarkdownIt("commonmark").enable("table").parse(told)
    flat = [each for token in tokens for each in (token, *(token.children or ()))]
    markup = {
        token.content.strip() for token in flat if token.type in ("html_block", "html_inline")
    }
    assert all(part.startswith(("<details><summary>", "</details>")) for part in markup)
    assert not any("<script" in part or "<img" in part for part in markup)
    assert not any(token.type in ("link_open", "image") for token in flat)
    assert shown(HARM) in [token.content.strip() for token in flat if token.type == "fence"]
    kinds = [token.type for token in tokens]
    assert kinds.count("th_open") == kinds.count("td_open") == 5
    assert "\x1b" not in told
    assert r"\@you \[a\](javascript\:alert) \&lt; \<img src=x onerror=alert(2)\>" in told


def test_markdown_is_cut_where_a_summary_would_not_take_it() -> None:
    text = "é" * 2000
    long = run(*(record("RUN-03", FAIL, f"backend {number}", text=text) for number in range(600)))
    told = markdown(merged({"run.json": long}))
    assert len(told.encode()) <= LIMIT
    assert "more findings left out to stay below 1 MB; see report.html and run.json." in told
    assert told.count("é" * 2000) > 100
    (one,) = View(run(record("RUN-03", FAIL, text="x" * 50_000))).findings
    assert "30,000 characters more" in markdown(merged({"a": run(*one.records)}))


def test_a_page_of_three_backends_is_not_heavy() -> None:
    assert len(html(merged({"run.json": large()})).encode()) < 1_500_000


# Merged runs


def test_runs_are_made_one_and_the_later_file_counts() -> None:
    first = run(
        record("RUN-03", FAIL, text="no"), record("TRN-01"), unavailable={"other": "not installed"}
    )
    later = run(
        record("RUN-03"), record("RUN-03", backend="other", grade="two-pass"), by={"seed": 7}
    )
    both = merged({"a.json": first, "b.json": later})
    assert [(r.backend, r.requirement, r.status) for r in both.run.records] == [
        ("one", "RUN-03", PASS),
        ("one", "TRN-01", PASS),
        ("other", "RUN-03", PASS),
    ]
    assert both.run.exit_code == 0
    assert both.run.unavailable == {}
    assert both.run.timing == {**TIMING, "seconds": 3.0}
    assert [each.measured for each in both.run.backends] == [{}, {"float32": "two-pass"}]
    assert both.notes == (
        "1 check is in more than one file (one float32 RUN-03); the last file counts",
        "the seed differs: 0 in a.json, 7 in b.json",
    )
    assert merged({"b.json": later, "a.json": first}).run.exit_code == 1
    assert first_error(json.loads(both.run.encoded())) == ""


def test_what_one_run_lost_the_whole_has_lost() -> None:
    both = merged(
        {
            "a": run(*SEVERAL[:1], incomplete=("it crashed",)),
            "b": run(*SEVERAL[:1], faults=("stale",)),
        }
    )
    assert (both.run.incomplete, both.run.faults, both.run.exit_code) == (
        ("it crashed",),
        ("stale",),
        3,
    )


def test_runs_of_different_specifications_are_not_made_one() -> None:
    with pytest.raises(RunFileError, match=r"different specifications \(0.6 in a, 0.5 in b\)"):
        merged({"a": run(*SEVERAL), "b": run(*SEVERAL, by={"specification": "0.5"})})


# The command


def reported(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["report", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("records", "lost", "code"),
    [
        (SEVERAL[:1], (), 0),
        (SEVERAL, (), 1),
        (SEVERAL, ("it crashed",), 3),
        (SEVERAL[-1:], (), 5),
    ],
)
def test_the_command_writes_all_reports_and_ends_as_the_run_did(
    tmp_path: Path, records: tuple[Record, ...], lost: tuple[str, ...], code: int
) -> None:
    run(*records, incomplete=lost).save(tmp_path / NAME)
    assert reported(str(tmp_path), "--output", str(tmp_path / "out"))[0] == code
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "badge.json",
        "report.html",
        "report.md",
        NAME,
    ]
    assert RunFile.load(tmp_path / "out" / NAME) == RunFile.load(tmp_path / NAME)


def test_the_command_writes_what_is_asked_for_of_several_runs(tmp_path: Path) -> None:
    paths = [str(tmp_path / name / NAME) for name in ("a", "b")]
    for path, each in zip(paths, SEVERAL[:2], strict=True):
        run(each).save(path)
    code, said = reported(*paths, "--format", "json,badge", "--output", str(tmp_path))
    assert code == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "badge.json",
        NAME,
    ]
    assert len(RunFile.load(tmp_path / NAME).records) == 2
    assert "one: DOES NOT CONFORM: 1 of 2 checks failed" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("missing.json",),
            "missing.json: no such file; expected a run.json or a folder that has one",
        ),
        (("empty",), "empty: this folder has no run.json; expected a run.json"),
        (("damaged.json",), "damaged.json: not a record of a bn-spec run, or damaged"),
        (("a", "--format", "pdf,md"), "'pdf'; allowed: html, md, json, badge"),
        (
            ("a", "b", "--output", "b"),
            "run.json, which is one of the runs; choose another --output",
        ),
        (("a", "--output", "damaged.json"), "cannot write the reports: "),
        (("a", "old"), "the runs have different specifications (0.6 in a, 0.5 in old)"),
    ],
)
def test_what_cannot_be_done_ends_with_two_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("damaged.json").write_text("{")
    for name, version in (("a", "0.6"), ("b", "0.6"), ("old", "0.5")):
        run(*SEVERAL, by={"specification": version}).save(Path(name) / NAME)
    code, told = reported(*arguments)
    assert code == 2
    assert said in in_a_line(told)


def test_a_report_that_cannot_be_made_leaves_the_old_ones(tmp_path: Path) -> None:
    write(ONE, tuple(WRITERS), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UndefinedError):
        write(replace(ONE, run=replace(ONE.run, judged_by={})), tuple(WRITERS), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_text_that_utf_8_cannot_hold_is_kept(tmp_path: Path) -> None:
    odd = merged({"a": run(record("RUN-03", FAIL, text="half a pair: \ud800"))})
    write(odd, tuple(WRITERS), tmp_path)
    assert read(tmp_path).records == odd.run.records
    assert "half a pair: \\ud800" in (tmp_path / "report.html").read_text("utf-8")


def test_a_merged_run_says_where_it_is_from() -> None:
    both = Merged(ONE.run, {"a.json": ONE.run, "b.json": ONE.run}, ("the seed differs",))
    said = in_a_line(" ".join(Seen(html(both)).text))
    assert "the seed differs" in said
    assert "a.json" in said
    assert "b.json" in said
    assert "the seed differs" in markdown(both)
