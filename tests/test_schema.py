"""The JSON Schema of run.json: runs obey it, and two validators refuse every damaged file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bn_spec import Capabilities, Dialect
from bn_spec.errors import RunFileError
from bn_spec.oracle.bounds import GRADES, SUMMATIONS
from bn_spec.report.records import BAD, FAIL, KNOWN, NOT_CLAIMED, PASS, VACUOUS, Record
from bn_spec.report.run_file import NAME, VERSION, Judged, RunFile
from bn_spec.report.schema import first_error, schema
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.tally import WORSE
from tests.process import pytest_suite, strange

VALIDATOR = Draft202012Validator(schema())

TABLES: dict[str, type] = {
    "backend": Judged,
    "claims": Capabilities,
    "dialect": Dialect,
    "record": Record,
}
"""Dataclasses that parts of the schema describe."""

WRONG: dict[str, Any] = {
    "string": 7,
    "integer": "7",
    "number": [],
    "boolean": "yes",
    "array": {},
    "object": [],
}
"""A value of a wrong type for each type of JSON."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the content of run.json with every status that the test needs."""
    folder = tmp_path_factory.mktemp("run")
    named = (strange("excused"), strange("no_inference"), "bn_spec.specimens:another_dialect")
    backends = [f"--bn-backend={name}" for name in named]
    options = (
        "--bn-profile=smoke",
        "--bn-max-examples=2",
        "--bn-requirement=[RNE]*-0[1-3]",
        "--bn-report-dir=.",
    )
    done = pytest_suite(*backends, *options, cwd=folder)
    assert done.returncode == 1, done.stdout
    run = RunFile.load(folder / NAME)
    # A vacuous record is hard to get from a run, so one is made by hand.
    vacuous = replace(
        run.records[0],
        requirement="TRN-01",
        status=VACUOUS,
        text="TRN-01: 2 examples, nothing judged",
    )
    replace(
        run, records=(*run.records, vacuous), unavailable={"torch-cuda": "no CUDA device"}
    ).save(folder / NAME)
    return json.loads((folder / NAME).read_bytes())


def test_what_a_run_leaves_obeys_the_schema(kept: Any) -> None:
    assert {each["status"] for each in kept["records"]} == {PASS, FAIL, KNOWN, NOT_CLAIMED, VACUOUS}
    assert any(each["conditioning"] for each in kept["records"])
    VALIDATOR.check_schema(schema())
    assert [error.message for error in VALIDATOR.iter_errors(kept)] == []
    assert first_error(kept) == ""


def objects(value: Any, rule: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield each object in a file with its schema; of a list, the first item only."""
    rule = schema()["$defs"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
    if isinstance(value, dict):
        yield value, rule
        for name, each in value.items():
            yield from objects(
                each, rule.get("properties", {}).get(name, rule["additionalProperties"])
            )
    elif isinstance(value, list) and value:
        yield from objects(value[0], rule["items"])


def damaged(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield a damaged file and its damage: a missing field, a wrong type, or an unknown field.

    The file is the same object every time, since a copy for each damage takes long.
    """
    for each, rule in objects(content, schema()):
        for name, own in rule.get("properties", {}).items():
            sound = each.pop(name)
            yield f"no {name}", content
            own = schema()["$defs"][own["$ref"].rpartition("/")[2]] if "$ref" in own else own
            for kind in {own["type"]} if isinstance(own.get("type"), str) else {"object"}:
                each[name] = WRONG[kind]
                yield f"{name} is no {kind}", content
            each[name] = sound
        if "properties" in rule:
            each["surplus"] = 1
            yield "surplus", content
            del each["surplus"]


def test_a_field_that_is_missing_of_another_type_or_too_many_is_refused(kept: Any) -> None:
    small = {**kept, "records": kept["records"][:1]}
    assert first_error(small) == ""
    seen = 0
    for what, content in damaged(deepcopy(small)):
        seen += 1
        assert first_error(content), what
        assert not VALIDATOR.is_valid(content), what
    assert seen > 2 * len(fields(Record)) + 2 * len(fields(Capabilities))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            "status",
            "broken",
            "records[0].status is 'broken'; expected 'pass', 'fail', 'known failure'",
        ),
        ("judged", True, "records[0].judged is True; expected integer"),
        ("judged", -1, "records[0].judged is -1; expected at least 0"),
        (
            "shares",
            {"output": "large"},
            "records[0].shares.output is 'large'; expected text that matches",
        ),
        (
            "requirement",
            "RUN-3",
            "records[0].requirement is 'RUN-3'; expected text that matches ^[A-Z]{3}-[0-9]{2}$",
        ),
        ("cases", "0123", "records[0].cases is '0123'; expected array"),
        ("text", ["x" * 99], f"records[0].text is ['{'x' * 58}…; expected string"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    kept: Any, tmp_path: Path, field: str, value: Any, said: str
) -> None:
    content = {**kept, "records": [{**kept["records"][0], field: value}]}
    assert not VALIDATOR.is_valid(content)
    (tmp_path / NAME).write_text(json.dumps(content), "utf-8")
    with pytest.raises(RunFileError) as refused:
        RunFile.load(tmp_path / NAME)
    assert str(refused.value).startswith(f"{tmp_path / NAME}: {said}")


@pytest.mark.parametrize("part", TABLES)
def test_the_schema_lists_the_fields_of_the_dataclasses(part: str) -> None:
    rule = schema()["$defs"][part]
    assert (
        list(rule["properties"])
        == rule["required"]
        == [field.name for field in fields(TABLES[part])]
    )


def test_the_schema_lists_the_fields_of_a_run() -> None:
    own = [field.name for field in fields(RunFile)]
    assert sorted(schema()["properties"]) == sorted(["format", "version", *own])


def test_the_schema_knows_what_the_package_knows() -> None:
    properties = {
        name: rule["properties"] for name, rule in schema()["$defs"].items() if "properties" in rule
    }
    assert schema()["properties"]["version"]["const"] == VERSION
    assert set(properties["record"]["status"]["enum"]) == {PASS, KNOWN, NOT_CLAIMED, *BAD}
    assert schema()["$defs"]["measured"]["enum"] == ["", *GRADES, WORSE]
    assert properties["claims"]["grade"]["enum"] == list(GRADES)
    assert properties["claims"]["summation"]["enum"] == list(SUMMATIONS)
    conventions = {
        name: rule["enum"] for name, rule in properties["dialect"].items() if "enum" in rule
    }
    assert len(conventions) == 7
    assert all(Dialect(**{name: value}) for name, values in conventions.items() for value in values)
    assert schema()["properties"]["judged_by"]["properties"]["profile"]["enum"] == list(PROFILES)
    load_suite()
    assert REQUIREMENTS
    assert all(
        re.search(properties["record"]["requirement"]["pattern"], name) for name in REQUIREMENTS
    )


def test_every_field_is_described_and_nothing_else_is_let_in() -> None:
    def rules(rule: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield name, rule
        for field, each in rule.get("properties", {}).items():
            yield from rules(each, f"{name}.{field}")
        if isinstance(rule.get("additionalProperties"), dict):
            yield from rules(rule["additionalProperties"], f"{name}.*")

    parts = [("file", schema()), *schema()["$defs"].items()]
    everything = [found for name, part in parts for found in rules(part, name)]
    assert [name for name, rule in everything if not rule.get("description")] == []
    assert all(
        "additionalProperties" in rule for _, rule in everything if rule.get("type") == "object"
    )
    assert all(not rule["additionalProperties"] for _, rule in everything if "properties" in rule)
