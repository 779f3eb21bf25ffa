"""Measure how often the right fault explains a failure.

Run it as ``python benchmarks/diagnosis.py``; ``--help`` lists the options. The benchmark treats
each faulty specimen as an unknown kernel: it hides the name and sums from right to left. The suite
draws cases from its own seed until the specimen fails. The catalogue explains the failure twice,
once with the specimen among the suspects and once without it.

The benchmark counts how often a fault of the same class comes first, how often one is among the
first three, and how often no fault is named. With the specimen among the suspects, the exit code is
1 if the first share is below 90 % or the second is below 97 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.suite.cell import Cell, Violation
from bn_spec.tools.audit import first_search
from bn_spec.tools.diagnosis import explanations_of, reordered

FIRST = 0.90
"""Minimum share of failures for which the right class comes first."""

AMONG_THREE = 0.97
"""Minimum share of failures for which the right class is among the first three."""


def anonymous(specimen: Specimen) -> Specimen:
    """Return a copy of a specimen as an unknown kernel: without its name, in another order."""
    return replace(reordered(specimen), name="anonymous", sentence="somebody's kernel.")


@dataclass(frozen=True)
class Diagnosis:
    """The faults that explain the failure of one specimen.

    Attributes:
        specimen: The faulty specimen.
        requirement: The requirement that judges it.
        named: The specimens whose faults explain the failure, the likeliest first.
        cell: The cell that judges it.
        found: The violation, or None if the suite found no failure.

    """

    specimen: Specimen
    requirement: str
    named: tuple[Specimen, ...]
    cell: Cell
    found: Violation | None

    @cached_property
    def without(self) -> tuple[Specimen, ...]:
        """The explaining specimens if the specimen itself is no suspect.

        Computing them takes as long as the first explanation.
        """
        if self.found is None:
            return ()
        others = [suspect for suspect in SPECIMENS.values() if suspect is not self.specimen]
        return tuple(explanations_of(self.cell, self.found, others) or ())

    def right(self, named: Collection[Specimen]) -> bool:
        """Whether one of the named specimens has a fault of the same class."""
        return any(other.fault == self.specimen.fault for other in named)


def diagnosed(specimen: Specimen, seed: int) -> Diagnosis | None:
    """Search for a failure of a specimen and explain it.

    Returns:
        The diagnosis, or None if the smallest failing case is too large to explain.

    """
    requirement = specimen.caught_by[0]
    search = first_search(specimen, anonymous(specimen), seed)
    if search is None:
        return None
    cell = search.cell
    try:
        search.examine()
    except Violation as found:
        named = explanations_of(cell, found)
        if named is None:
            return None
        return Diagnosis(specimen, requirement, tuple(named), cell, found)
    return Diagnosis(specimen, requirement, (), cell, None)


def report_wrong(diagnoses: Sequence[Diagnosis]) -> None:
    """Print a line for each specimen for which the right class does not come first."""
    for diagnosis in diagnoses:
        if not diagnosis.right(diagnosis.named[:1]):
            names = ", ".join(other.name for other in diagnosis.named[:3]) or "no fault"
            print(f"{diagnosis.specimen.name} ({diagnosis.requirement}): {names}")


def share_right(diagnoses: Sequence[Diagnosis], count: int) -> float:
    """Return the share of diagnoses whose first ``count`` names include the right class."""
    right = sum(diagnosis.right(diagnosis.named[:count]) for diagnosis in diagnoses)
    return right / len(diagnoses)


def report_without(diagnoses: Sequence[Diagnosis]) -> None:
    """Print how often the right class is named if the specimen itself is no suspect."""
    first = sum(diagnosis.right(diagnosis.without[:1]) for diagnosis in diagnoses)
    related = sum(diagnosis.right(diagnosis.without) for diagnosis in diagnoses)
    unexplained = sum(not diagnosis.without for diagnosis in diagnoses)
    print(
        f"without the specimen, of {len(diagnoses)}: the right class first {first},"
        f" anywhere {related}, no fault named {unexplained}"
    )


def main() -> None:
    """Diagnose specimens and print how often the right class is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="diagnose only every Nth specimen")
    parser.add_argument("--seed", type=int, default=1, help="seed of the search for a failure")
    options = parser.parse_args()
    start = time.perf_counter()
    faulty = [specimen for specimen in SPECIMENS.values() if not specimen.sound][:: options.every]
    diagnoses = []
    for specimen in faulty:
        diagnosis = diagnosed(specimen, options.seed)
        if diagnosis is not None:
            diagnoses.append(diagnosis)
    report_wrong(diagnoses)
    elapsed = time.perf_counter() - start
    print(f"{len(diagnoses)} of {len(faulty)} specimens diagnosed in {elapsed:.0f} s")
    first, among_three = share_right(diagnoses, 1), share_right(diagnoses, 3)
    print(
        f"with the specimen among the suspects: the right class first {first:.1%},"
        f" among the first three {among_three:.1%}"
    )
    report_without(diagnoses)
    sys.exit(first < FIRST or among_three < AMONG_THREE)


if __name__ == "__main__":
    main()
