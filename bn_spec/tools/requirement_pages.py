"""Pages of the specification: each requirement with its property and the faults it must catch."""

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
)
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.suite.chapters import load_suite, requirements_matching
from bn_spec.suite.property import PROPERTIES, Property
from bn_spec.suite.regions import alternatives

FORMAT = "bn-spec requirements"
"""Name of the JSON format."""

VERSION = 1
"""Version of the JSON format."""

WIDTH = 100
"""Width of the lines for people, in characters."""


@dataclass(frozen=True)
class RequirementPage:
    """A requirement, the property that judges it, and the specimens that it must catch."""

    requirement: Requirement
    prop: Property
    specimens: tuple[Specimen, ...]

    def record(self) -> dict[str, Any]:
        """Return the page as JSON values."""
        specimens = [
            {"name": each.name, "sentence": each.sentence, "history": list(each.history)}
            for each in self.specimens
        ]
        return asdict(self.requirement) | {
            "chapter": CHAPTERS[self.requirement.chapter],
            "needs": list(self.requirement.needs),
            "properties": [_test(self.prop)],
            "specimens": specimens,
        }

    def lines(self) -> Iterator[str]:
        """Yield the page as lines of text."""
        requirement = self.requirement
        yield f"{requirement.id}  {requirement.sentence}"
        yield ""
        yield _labelled("chapter", f"{requirement.chapter}, {CHAPTERS[requirement.chapter]}")
        yield _labelled("level", requirement.level)
        yield _labelled("source", requirement.source)
        needs = "no claim: every backend is judged"
        if requirement.needs:
            needs = f"the claim {' and '.join(requirement.needs)}"
        yield _labelled("needs", needs)
        if requirement.convention:
            yield _labelled(
                "dialect",
                f"as in PyTorch; a dialect may differ in the convention {requirement.convention}",
            )
        yield _labelled("judged by", _test(self.prop))
        if self.prop.reaches:
            regions = "; ".join(" or ".join(alternatives(each)) for each in self.prop.reaches)
            yield _labelled("", f"whose cases must reach {regions}")
        yield _labelled("alone", f"bn-spec run BACKEND --requirement {requirement.id}")
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
    """Return the pages of the requirements that match, all by default.

    Args:
        pattern: An id (``RUN-03``), a chapter (``RUN``) or a glob (``RUN-*``), in upper or lower
            case.

    Raises:
        ConfigError: No requirement matches.

    """
    load_suite()
    return [_page(requirement) for requirement in _matching(pattern.upper())]


def document(found: list[RequirementPage]) -> dict[str, Any]:
    """Return pages as a JSON document, with the versions of the format and the specification."""
    records = [page.record() for page in found]
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
        # A wrong number: the message lists the ids of the chapter. A wrong chapter: the chapters.
        chapter = pattern.partition("-")[0]
        nearby = [each.id for each in REQUIREMENTS.values() if each.chapter == chapter]
        raise ConfigError(allowed("requirement", pattern, nearby or CHAPTERS))
    return requirements_matching(pattern)


def _page(requirement: Requirement) -> RequirementPage:
    caught = tuple(each for each in SPECIMENS.values() if requirement.id in each.caught_by)
    return RequirementPage(requirement, PROPERTIES[requirement.id], caught)


def _test(prop: Property) -> str:
    """Return the file and name of a property, as pytest prints them."""
    code = prop.body.__code__
    return f"{Path(code.co_filename).name}::{code.co_name}"


def _labelled(name: str, text: str) -> str:
    return f"  {name:<11} {text}".rstrip()
