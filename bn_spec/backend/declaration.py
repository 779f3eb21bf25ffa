"""Capabilities as Python source that you can paste into a backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from math import isinf

from bn_spec.backend.claims import Capabilities
from bn_spec.case.dialect import PYTORCH, Dialect


def declaration(proposed: Capabilities, declared: Capabilities) -> Iterator[str]:
    """Yield the lines of Python that construct ``proposed``.

    They list every claim that differs from its default or from ``declared``. A comment names the
    declared value where the two differ.
    """
    default = Capabilities()
    yield "Capabilities("
    for part in fields(Capabilities):
        new, old = getattr(proposed, part.name), getattr(declared, part.name)
        if new != old:
            yield f"    {part.name}={_source(new)},  # declared: {_source(old)}"
        elif new != getattr(default, part.name):
            yield f"    {part.name}={_source(new)},"
    yield ")"


def _source(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        items = [_source(item) for item in value]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if isinstance(value, Dialect):
        arguments = []
        for part in fields(Dialect):
            convention = getattr(value, part.name)
            if convention != getattr(PYTORCH, part.name):
                arguments.append(f"{part.name}={_source(convention)}")
        return f"Dialect({', '.join(arguments)})"
    if isinstance(value, float) and isinf(value):
        return f'float("{value}")'
    return repr(value)
