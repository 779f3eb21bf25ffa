"""A declaration of capabilities as Python that can be pasted, with what departs from another one marked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from math import isinf

from bn_spec.backend.claims import Capabilities
from bn_spec.case.dialect import PYTORCH, Dialect


def declaration(proposed: Capabilities, declared: Capabilities) -> Iterator[str]:
    """Yield the lines of ``proposed``: what differs from the defaults, and from what is declared, which is told."""
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
        return f"({', '.join(map(_source, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Dialect):
        names = [
            part.name
            for part in fields(Dialect)
            if getattr(value, part.name) != getattr(PYTORCH, part.name)
        ]
        return f"Dialect({', '.join(f'{name}={_source(getattr(value, name))}' for name in names)})"
    if isinstance(value, float) and isinf(value):
        return f'float("{value}")'
    return repr(value)
