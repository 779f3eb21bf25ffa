"""The JSON Schema of a record of a run, and as much of a validator as it needs.

A file is checked against it before anything is made of it, so that whoever shows a run can trust
what it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

FILE = Path(__file__).with_name("run.schema.json")

_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
    }
)
_LONGEST = 60
"""Characters of a wrong value that are shown."""


@cache
def schema() -> Mapping[str, Any]:
    """Return the schema."""
    rules: dict[str, Any] = json.loads(FILE.read_bytes())
    return rules


def first_error(content: Any) -> str:
    """Return a sentence about the first place where a file does not obey the schema, or nothing."""
    return next(_errors(content, schema(), "the file"), "")


def _errors(value: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    if "$ref" in rule:
        yield from _errors(value, schema()["$defs"][rule["$ref"].rpartition("/")[2]], where)
        return
    if wrong := _wrong(value, rule):
        yield f"{where} is {_shortened(value)}; allowed: {wrong}"
    elif isinstance(value, dict):
        yield from _of_object(value, rule, where)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _errors(each, rule["items"], f"{where}[{number}]")


def _wrong(value: Any, rule: Mapping[str, Any]) -> str:
    """Return what is allowed, if the value itself, apart from what it holds, is not."""
    names = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if names and not any(_is(value, name) for name in names):
        return " or ".join(names)
    known = rule.get("enum", [rule["const"]] if "const" in rule else [])
    if known and value not in known:
        return ", ".join(map(repr, known))
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        return f"what matches {rule['pattern']}"
    if isinstance(value, list) and not rule.get("minItems", 0) <= len(value) <= rule.get(
        "maxItems", len(value)
    ):
        return f"{rule['minItems']} values"
    if "minimum" in rule and isinstance(value, int | float) and not value >= rule["minimum"]:
        return f"at least {rule['minimum']}"
    return ""


def _is(value: Any, name: str) -> bool:
    """Whether a value is of a type of JSON; true and false are no numbers."""
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _of_object(value: Mapping[str, Any], rule: Mapping[str, Any], where: str) -> Iterator[str]:
    known, others = rule.get("properties", {}), rule["additionalProperties"]
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{where} has no {name!r}"
    for name, each in value.items():
        if name in known or others:
            yield from _errors(
                each, known.get(name, others), name if where == "the file" else f"{where}.{name}"
            )
        else:
            yield f"{where} has {name!r}; allowed: {', '.join(known)}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
