"""Common causes of failures: a catalogued fault, an error, a crash, or a declared reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bn_spec.report.records import FAIL, Record, having

FAULT, ERROR = "match one catalogued fault, ", "end with one error: "
"""Beginnings of the explanation of a cause; each continues "3 of 7 failures"."""


@dataclass(frozen=True)
class Cause:
    """A catalogued fault, an error or a crash that explains several failures of a backend.

    Attributes:
        backend: Name of the backend.
        what: The explanation, in words that continue "3 of 7 failures".
        records: The failures that it explains.
        failures: Number of all failures of the backend.

    """

    backend: str
    what: str
    records: tuple[Record, ...]
    failures: int

    @property
    def where(self) -> str:
        """Requirements that fail by this cause, and the dtypes in which any of them fails."""
        dtypes = dict.fromkeys(record.dtype for record in self.records)
        return f"{_numbers({record.requirement for record in self.records})} ({', '.join(dtypes)})"

    @cached_property
    def plainest(self) -> Record:
        """Record of the finding with the shortest text: the simplest example."""
        return min(
            self.records, key=lambda record: (len(record.text), record.requirement, record.dtype)
        )

    @property
    def replay(self) -> str:
        """Command that replays the simplest example, after a colon; empty if there is none."""
        # A record does not store the command; the text of its finding prints it.
        found = re.search(r"^  replay +(.+)$", self.plainest.text, re.MULTILINE)
        return f": {found[1]}" if found else ""

    def __str__(self) -> str:
        count = f"{len(self.records)} of {self.failures} failures"
        example = f"{self.plainest.requirement}, {self.plainest.dtype}{self.replay}"
        return f"{self.backend}: {count} {self.what}; simplest example: {example}"


def causes(records: Sequence[Record]) -> list[Cause]:
    """Return the causes that explain two or more failures of a backend.

    Each failure counts once. The first cause of a backend explains most of its failures; the next
    explains most of the remaining ones.
    """
    found: list[Cause] = []
    for backend in sorted({record.backend for record in records}):
        failures = [record for record in having(records, FAIL) if record.backend == backend]
        found += _causes_of_backend(backend, failures)
    return found


def _causes_of_backend(backend: str, failures: Sequence[Record]) -> list[Cause]:
    found: list[Cause] = []
    left = [(record, _explanations(record)) for record in failures]
    while counts := Counter(what for _, explanations in left for what in explanations):
        # On a tie a fault says more than an error, and the alphabet makes the choice repeatable.
        what, number = min(
            counts.items(), key=lambda item: (-item[1], item[0].startswith(ERROR), item[0])
        )
        if number == 1:
            break
        own = tuple(record for record, explanations in left if what in explanations)
        found.append(Cause(backend, what, own, len(failures)))
        left = [(record, others) for record, others in left if what not in others]
    return found


def _explanations(record: Record) -> list[str]:
    """Return the possible explanations of a failure, in words that continue "3 of 7 failures"."""
    explanations = [FAULT + fault.rstrip(".") for fault in record.explanations]
    error = re.search(
        r"^  expected +(?:no error|an answer)\n  got +(.+)$", record.text, re.MULTILINE
    )
    if error:
        # The same crash in different steps is one cause, so the number of the step is left out.
        explanations.append(ERROR + re.sub(r" in step \d+ \(.+?\)", "", error[1]))
    return explanations


def enumerated(records: Sequence[Record]) -> list[str]:
    """List requirements by the dtypes that they share, as in ``GRD-01 02 (float16, bfloat16)``."""
    by_dtype: dict[str, set[str]] = {}
    for record in records:
        by_dtype.setdefault(record.dtype, set()).add(record.requirement)
    together: dict[str, list[str]] = {}
    for dtype, requirements in by_dtype.items():
        together.setdefault(_numbers(requirements), []).append(dtype)
    return [f"{requirements} ({', '.join(dtypes)})" for requirements, dtypes in together.items()]


def _numbers(requirements: set[str]) -> str:
    """List requirements with the numbers of a chapter together, as in ``GRD-01 02 10``."""
    chapters: dict[str, list[str]] = {}
    for requirement in sorted(requirements):
        chapter, _, number = requirement.partition("-")
        chapters.setdefault(chapter, []).append(number)
    return ", ".join(f"{chapter}-{' '.join(numbers)}" for chapter, numbers in chapters.items())


def known(records: Sequence[Record]) -> dict[tuple[str, str], list[str]]:
    """Return, for each backend and declared reason, the requirements and dtypes that it excuses."""
    excused: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for reason in record.text.splitlines():
            excused.setdefault((record.backend, reason), []).append(record)
    return {key: enumerated(own) for key, own in excused.items()}
