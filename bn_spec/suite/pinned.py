"""Pinned cases: the smallest case that shows each fault of the catalogue.

Every run plays them, the large ones last. So a backend that repeats a known mistake fails at once,
with the name of the mistake. The suite itself found the cases; ``scripts/faults.py`` finds them
again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bn_spec.case.encoding import decode, encode, fetch_inline, place_inline
from bn_spec.case.script import Case

PATH = Path(__file__).with_suffix(".json")
"""The file of pinned cases."""


@dataclass(frozen=True, eq=False)
class Pinned:
    """The smallest known case on which a requirement catches a faulty specimen.

    Attributes:
        specimen: Name of the specimen.
        requirement: Id of the requirement.
        case: The case.
        corrupts: Names of the observables that the specimen gets wrong on the case.

    """

    specimen: str
    requirement: str
    case: Case
    corrupts: tuple[str, ...]

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Pinned:
        """Return the pinned case of an entry of the file."""
        case = decode(entry["case"], fetch_inline)
        return Pinned(entry["specimen"], entry["requirement"], case, tuple(entry["corrupts"]))

    def entry(self) -> dict[str, Any]:
        """Return the entry of the file, as JSON values."""
        return {
            "specimen": self.specimen,
            "requirement": self.requirement,
            "corrupts": list(self.corrupts),
            "case": encode(self.case, place_inline),
        }


def save(pins: Iterable[Pinned], path: Path = PATH) -> None:
    """Write the file of pinned cases, one to a line."""
    lines = [json.dumps(pin.entry(), allow_nan=False) for pin in pins]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")


@cache
def pinned() -> Mapping[str, Pinned]:
    """Return the pinned cases by the name of the specimen that they show."""
    found = map(Pinned.of, json.loads(PATH.read_text("utf-8")))
    return MappingProxyType({each.specimen: each for each in found})


@cache
def of_requirement(requirement: str) -> tuple[Pinned, ...]:
    """Return the pinned cases that a requirement has caught, the smallest first."""
    own = [each for each in pinned().values() if each.requirement == requirement]
    return tuple(sorted(own, key=lambda each: each.case.size))
