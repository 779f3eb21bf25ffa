"""Entries of the specification: a requirement with the properties that judge it and the faults that it must catch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from bn_spec.errors import ConfigError, allowed
from bn_spec.specification.requirement import (
    CHAPTERS,
    REQUIREMENTS,
    SPECIFICATION,
    Requirement,
    requirements_matching,
)
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.property import PROPERTIES, Property
from bn_spec.suite.regions import alternatives

FORMAT = "bn-spec requirements"
VERSION = 1
WIDTH = 100


@dataclass(frozen=True)
class RequirementPage:
    """A requirement, the property that judges it, and the specimens that it must catch."""

    requirement: Requirement
    prop: Property
    specimens: tuple[Specimen, ...]

    def record(self) -> dict[str, Any]:
        """Return the entry as what JSON can hold."""
        return asdict(self.requirement) | {
            "chapter": CHAPTERS[self.requirement.chapter],
            "needs": list(self.requirement.needs),
            "properties": [_test(self.prop)],
            "specimens": [
                {"name": each.name, "sentence": each.sentence, "history": list(each.history)}
                for each in self.specimens
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield lines that tell all of it to a person."""
        asked = self.requirement
        yield f"{asked.id}  {asked.sentence}"
        yield ""
        yield _told("chapter", f"{asked.chapter}, {CHAPTERS[asked.chapter]}")
        yield _told("level", asked.level)
        yield _told("source", asked.source)
        yield _told(
            "needs",
            f"the claim {' and '.join(asked.needs)}"
            if asked.needs
            else "nothing: it is asked of all",
        )
        if asked.convention:
            yield _told(
                "dialect",
                f"in PyTorch's terms; the convention {asked.convention} may say otherwise",
            )
        yield _told("judged by", _test(self.prop))
        if self.prop.reaches:
            regions = "; ".join(" or ".join(alternatives(each)) for each in self.prop.reaches)
            yield _told("", f"whose cases must reach {regions}")
        yield _told("alone", f"bn-spec run BACKEND --requirement {asked.id}")
        yield from self._faults()

    def _faults(self) -> Iterator[str]:
        if not self.specimens:
            return
        yield ""
        yield "It must catch these faulty specimens:"
        for each in self.specimens:
            history = f" ({', '.join(each.history)})" if each.history else ""
            text = f"  {each.name}: {each.sentence}{history}"
            yield from wrap(text, WIDTH, subsequent_indent="      ", break_on_hyphens=False)


def pages(pattern: str = "*") -> list[RequirementPage]:
    """Return the entries that match: all, a chapter (``RUN``), a glob (``RUN-*``), or one by its id, in any case.

    Raises:
        ConfigError: there is no such requirement, or none that matches.

    """
    load_suite()
    return [_page(requirement) for requirement in _matching(pattern.upper())]


def document(found: list[RequirementPage]) -> dict[str, Any]:
    """Return entries as a document of JSON: with its format, its version, and that of the specification."""
    records = [entry.record() for entry in found]
    return {
        "format": FORMAT,
        "version": VERSION,
        "specification": SPECIFICATION,
        "requirements": records,
    }


def _matching(pattern: str) -> list[Requirement]:
    pattern = f"{pattern}-*" if pattern in CHAPTERS else pattern
    if pattern in REQUIREMENTS:
        return [REQUIREMENTS[pattern]]
    if not any(character in pattern for character in "*?["):
        chapter = [
            id_ for id_ in REQUIREMENTS if id_.partition("-")[0] == pattern.partition("-")[0]
        ]
        raise ConfigError(allowed("requirement", pattern, chapter or CHAPTERS))
    return requirements_matching(pattern)


def _page(requirement: Requirement) -> RequirementPage:
    caught = tuple(each for each in SPECIMENS.values() if requirement.id in each.caught_by)
    return RequirementPage(requirement, PROPERTIES[requirement.id], caught)


def _test(prop: Property) -> str:
    """Return the name under which pytest knows a property."""
    code = prop.body.__code__
    return f"{Path(code.co_filename).name}::{code.co_name}"


def _told(name: str, text: str) -> str:
    return f"  {name:<11} {text}".rstrip()
