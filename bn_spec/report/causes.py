"""What failures have in common: a fault on record that explains them, an error, or the reason why they are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bn_spec.report.records import FAIL, Record, having


@dataclass(frozen=True)
class Cause:
    """What explains failures of a backend: a fault of the catalogue, or an error or a death that all of them have.

    ``failures`` are how many the backend has in all.
    """

    backend: str
    what: str
    records: tuple[Record, ...]
    failures: int

    @property
    def where(self) -> str:
        """The requirements that fail by it, and the dtypes in which some do."""
        dtypes = dict.fromkeys(record.dtype for record in self.records)
        return f"{_numbers({record.requirement for record in self.records})} ({', '.join(dtypes)})"

    @cached_property
    def plainest(self) -> Record:
        """The record of the finding that is told in the fewest words."""
        return min(
            self.records, key=lambda record: (len(record.text), record.requirement, record.dtype)
        )

    @property
    def replay(self) -> str:
        """How to play the case of the plainest finding again, as the finding itself says."""
        found = re.search(r"^  replay +(.+)$", self.plainest.text, re.MULTILINE)
        return f": {found[1]}" if found else ""

    def __str__(self) -> str:
        count, plainest = f"{len(self.records)} of {self.failures}", self.plainest
        which = f"{plainest.requirement}, {plainest.dtype}{self.replay}"
        return f"{self.backend}: {count} failures are {self.what}; the plainest is {which}"


def causes(records: Sequence[Record]) -> list[Cause]:
    """Return what explains several failures of a backend: what explains most of them, then most of the others."""
    found: list[Cause] = []
    for backend in sorted({record.backend for record in records}):
        failures = [record for record in having(records, FAIL) if record.backend == backend]
        left = [(record, _explanations(record)) for record in failures]
        while counts := Counter(what for _, explanations in left for what in explanations):
            what, number = min(
                counts.items(), key=lambda item: (-item[1], item[0].startswith(ERROR), item[0])
            )
            if number == 1:
                break
            own = tuple(record for record, explanations in left if what in explanations)
            found.append(Cause(backend, what, own, len(failures)))
            left = [
                (record, explanations) for record, explanations in left if what not in explanations
            ]
    return found


FAULT, ERROR = "those of one fault, ", "of one kind: "


def _explanations(record: Record) -> list[str]:
    """Return what a failure may come from, in words that follow on "failures are"."""
    faults = [FAULT + fault.rstrip(".") for fault in record.explanations]
    error = re.search(
        r"^  expected +(?:no error|an answer)\n  got +(.+)$", record.text, re.MULTILINE
    )
    return [*faults, ERROR + re.sub(r" in step \d+ \(.+?\)", "", error[1])] if error else faults


def enumerated(records: Sequence[Record]) -> list[str]:
    """Enumerate requirements and the dtypes in which they were judged: GRD-01 02 (float16, bfloat16)."""
    by_dtype: dict[str, set[str]] = {}
    for record in records:
        by_dtype.setdefault(record.dtype, set()).add(record.requirement)
    together: dict[str, list[str]] = {}
    for dtype, requirements in by_dtype.items():
        together.setdefault(_numbers(requirements), []).append(dtype)
    return [f"{requirements} ({', '.join(dtypes)})" for requirements, dtypes in together.items()]


def _numbers(requirements: set[str]) -> str:
    """Enumerate requirements, a chapter's numbers together: GRD-01 02 10."""
    chapters: dict[str, list[str]] = {}
    for requirement in sorted(requirements):
        chapter, _, number = requirement.partition("-")
        chapters.setdefault(chapter, []).append(number)
    return ", ".join(f"{chapter}-{' '.join(numbers)}" for chapter, numbers in chapters.items())


def known(records: Sequence[Record]) -> dict[tuple[str, str], list[str]]:
    """Say for each known failure of a backend, by its reason, of which requirements it was seen in which dtypes."""
    seen: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for reason in record.text.splitlines():
            seen.setdefault((record.backend, reason), []).append(record)
    return {key: enumerated(own) for key, own in seen.items()}
