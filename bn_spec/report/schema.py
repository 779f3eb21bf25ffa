"""The JSON Schema of ``run.json``, and a validator for the part of JSON Schema that it uses.

Every file is checked before a report reads it, so that reports can rely on its fields and types.
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
"""The file of the schema."""

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
"""Python's types for each type of JSON."""

_LONGEST = 60
"""Longest wrong value in a message, in characters."""


@cache
def schema() -> Mapping[str, Any]:
    """Return the schema."""
    rules: dict[str, Any] = json.loads(FILE.read_bytes())
    return rules


def first_error(content: Any) -> str:
    """Return a sentence about the first error in a file, or an empty string if it is valid."""
    return next(_errors(content, schema(), "the file"), "")


def _errors(value: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield a sentence about each error in a value; ``where`` is its place in the file."""
    if "$ref" in rule:
        yield from _errors(value, schema()["$defs"][rule["$ref"].rpartition("/")[2]], where)
        return
    if wrong := _wrong(value, rule):
        yield f"{where} is {_shortened(value)}; expected {wrong}"
    elif isinstance(value, dict):
        yield from _of_object(value, rule, where)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _errors(each, rule["items"], f"{where}[{number}]")


def _wrong(value: Any, rule: Mapping[str, Any]) -> str:
    """Return what is expected instead of a value, or an empty string if the value is valid.

    The members of an object and the items of a list are not checked here.
    """
    names = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if names and not any(_is(value, name) for name in names):
        return " or ".join(names)
    choices = rule.get("enum", [rule["const"]] if "const" in rule else [])
    if choices and value not in choices:
        return ", ".join(map(repr, choices))
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        return f"text that matches {rule['pattern']}"
    if isinstance(value, list):
        least, most = rule.get("minItems", 0), rule.get("maxItems", len(value))
        if not least <= len(value) <= most:
            return f"{least} values"
    # "not >=" refuses NaN as well.
    if "minimum" in rule and isinstance(value, int | float) and not value >= rule["minimum"]:
        return f"at least {rule['minimum']}"
    return ""


def _is(value: Any, name: str) -> bool:
    """Whether a value has a type of JSON; in Python true and false are integers, in JSON not."""
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _of_object(value: Mapping[str, Any], rule: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the errors in the members of an object."""
    described, others = rule.get("properties", {}), rule["additionalProperties"]
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{where} has no {name!r}"
    for name, each in value.items():
        if name in described or others:
            place = name if where == "the file" else f"{where}.{name}"
            yield from _errors(each, described.get(name, others), place)
        else:
            yield f"{where} has an unknown field {name!r}; expected {', '.join(described)}"


def _shortened(value: Any) -> str:
    """Return a value as Python writes it, cut to :data:`_LONGEST` characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
