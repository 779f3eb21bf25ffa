"""How often a failure is explained by the right fault: ``python benchmarks/diagnosis.py [--every N] [--seed N]``.

Every faulty specimen is taken for somebody's kernel: without its name, and summing from right to
left. The suite finds it failing, drawing by a seed of its own, and the failure is explained by the
catalogue, once with the specimen among the suspects, once without it. Counted is in how many cases
a fault of the same class comes first, or among the first three, and how often nobody is named; exit
code 1 if with the specimen it is fewer than 90 % or 97 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.suite.cell import Cell, Violation
from bn_spec.tools.audit import first_search
from bn_spec.tools.diagnosis import explanations_of, reordered

FIRST, AMONG_THREE = 0.90, 0.97
"""The shares that are asked for."""


def anonymous(specimen: Specimen) -> Specimen:
    """Return a specimen as a stranger's kernel."""
    return replace(reordered(specimen), name="anonymous", sentence="somebody's kernel.")


@dataclass(frozen=True)
class Diagnosis:
    """Who was named for a specimen that a cell found failing, or did not, the likeliest first."""

    specimen: Specimen
    requirement: str
    named: tuple[Specimen, ...]
    cell: Cell
    found: Violation | None

    @cached_property
    def without(self) -> tuple[Specimen, ...]:
        """Who is named without the specimen among the suspects; that takes as long again."""
        if self.found is None:
            return ()
        others = [each for each in SPECIMENS.values() if each is not self.specimen]
        return tuple(explanations_of(self.cell, self.found, others) or ())

    def right(self, named: Collection[Specimen]) -> bool:
        """Whether a fault of the same class is among those that were named."""
        return any(each.fault == self.specimen.fault for each in named)


def diagnosed(specimen: Specimen, seed: int) -> Diagnosis | None:
    """Let the suite find a specimen failing, and explain it; None if its smallest case is too large for that."""
    requirement, search = specimen.caught_by[0], first_search(specimen, anonymous(specimen), seed)
    if search is None:
        return None
    cell = search.cell
    try:
        search.examine()
    except Violation as found:
        named = explanations_of(cell, found)
        return (
            None if named is None else Diagnosis(specimen, requirement, tuple(named), cell, found)
        )
    return Diagnosis(specimen, requirement, (), cell, None)


def main() -> None:
    """Diagnose specimens, and print how often the right class was named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="only every so manieth specimen")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.perf_counter()
    faulty = [specimen for specimen in SPECIMENS.values() if not specimen.sound][:: options.every]
    found = [each for specimen in faulty if (each := diagnosed(specimen, options.seed))]
    for each in found:
        if not each.right(each.named[:1]):
            names = ", ".join(s.name for s in each.named[:3]) or "nobody"
            print(f"{each.specimen.name} ({each.requirement}): {names}")
    shares = [
        sum(each.right(each.named[:count]) for each in found) / len(found) for count in (1, 3)
    ]
    print(
        f"{len(found)} of {len(faulty)} specimens diagnosed in {time.perf_counter() - start:.0f} s"
    )
    print(
        f"with the specimen among the suspects: the right class first {shares[0]:.1%}, among three {shares[1]:.1%}"
    )
    related = [each for each in found if each.right(each.without)]
    first = sum(each.right(each.without[:1]) for each in found)
    nobody = sum(not each.without for each in found)
    print(
        f"without it: first {first}, among all named {len(related)}, nobody named {nobody}, of {len(found)}"
    )
    sys.exit(shares[0] < FIRST or shares[1] < AMONG_THREE)


if __name__ == "__main__":
    main()
