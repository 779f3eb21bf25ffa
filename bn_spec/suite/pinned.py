"""Pinned cases: the smallest that shows each fault of the catalogue, played in every run, large ones last.

So a backend that brings a known fault back is told so at once, and by whom it was made before. They
were found by the suite itself (``scripts/faults.py`` finds them anew), and are kept as the Python
that a finding prints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from bn_spec.case.script import Case

PATH = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Pinned:
    """The smallest known case on which a requirement catches a faulty specimen.

    ``code`` is the case as Python; ``corrupts`` names all that the specimen gets wrong on it.
    """

    specimen: str
    requirement: str
    code: str
    corrupts: tuple[str, ...]

    @cached_property
    def case(self) -> Case:
        """The case."""
        names = vars(import_module("bn_spec.case"))
        case: Case = eval(self.code, dict(names))
        return case


@cache
def pinned() -> Mapping[str, Pinned]:
    """Return the pinned cases by the name of the specimen that they show."""
    entries = json.loads(PATH.read_text("utf-8"))
    found = (
        Pinned(e["specimen"], e["requirement"], e["code"], tuple(e["corrupts"])) for e in entries
    )
    return MappingProxyType({each.specimen: each for each in found})


@cache
def of_requirement(requirement: str) -> tuple[Pinned, ...]:
    """Return the pinned cases that a requirement has caught, the smallest first."""
    own = [each for each in pinned().values() if each.requirement == requirement]
    return tuple(sorted(own, key=lambda each: each.case.size))
