"""``bn-spec requirements``: what stands behind each number of the specification."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from bn_spec.cli import main
from bn_spec.specification.requirement import CHAPTERS, REQUIREMENTS, SPECIFICATION
from bn_spec.specimens import SPECIMENS
from bn_spec.tools.requirement_pages import pages


def asked(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["requirements", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_without_an_id_every_requirement_stands_once_under_its_chapter() -> None:
    lines = asked().splitlines()
    assert re.findall(r"(?m)^  ([A-Z]{3}-\d\d)  ", "\n".join(lines)) == list(REQUIREMENTS)
    assert [line for line in lines if line in CHAPTERS.values()] == list(CHAPTERS.values())
    assert (
        "  RUN-03  training   running_var is updated with the unbiased variance of the batch"
        in lines
    )


def test_an_id_is_told_with_what_judges_it_and_what_it_must_catch() -> None:
    text = " ".join(asked("DET-01").split())
    assert "the claim deterministic" in text
    assert "test_det.py::test_" in text
    told = " ".join(asked("RUN-03").split())
    assert "runvar-bias: running_var is updated with the biased variance of the batch." in told
    assert "tinygrad/tinygrad#807" in told
    assert "eps-ignored" not in told


@pytest.mark.parametrize(
    ("pattern", "chapter"), [("run", "RUN"), ("RUN", "RUN"), ("RUN-*", "RUN"), ("DTY-0?", "DTY")]
)
def test_a_chapter_and_a_glob_choose_those_that_match(pattern: str, chapter: str) -> None:
    assert [each.requirement.id for each in pages(pattern)] == [
        i for i in REQUIREMENTS if i.startswith(chapter)
    ]


def test_every_specimen_is_told_with_each_requirement_that_must_catch_it() -> None:
    told = {(each.requirement.id, specimen.name) for each in pages() for specimen in each.specimens}
    assert told == {(id_, each.name) for each in SPECIMENS.values() for id_ in each.caught_by}


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("RUN-33", "requirement 'RUN-33' is not known; known: RUN-01, RUN-02,"),
        ("RUM-03", "did you mean 'RUN'?"),
        ("Q*", "'Q*' matches no requirement; chapters: CFG-*, TRN-*,"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(pattern: str, sentence: str) -> None:
    done = CliRunner().invoke(main, ["requirements", pattern])
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_json_holds_the_same() -> None:
    document = json.loads(asked("RUN-03", "--json"))
    assert (document["format"], document["version"]) == ("bn-spec requirements", 1)
    assert document["specification"] == SPECIFICATION
    (entry,) = document["requirements"]
    assert entry["sentence"] == REQUIREMENTS["RUN-03"].sentence
    assert entry["needs"] == []
    assert entry["properties"] == ["test_run.py::test_running_var_takes_the_unbiased_variance"]
    history = {each["name"]: each["history"] for each in entry["specimens"]}
    assert "tinygrad/tinygrad#807" in history["runvar-bias"]
    assert [each["id"] for each in json.loads(asked("--json"))["requirements"]] == list(
        REQUIREMENTS
    )
