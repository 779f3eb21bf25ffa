"""Finds the pinned cases again and writes the catalogue of faults.

Usage: ``python scripts/faults.py [--jobs N] [--table]``.

For every faulty specimen, the suite looks for the smallest case on which the first requirement that
the specimen names catches it. It searches as for any backend: with the profile ci, in the first
dtype that the specimen claims. If the requirement is not part of every run, another requirement of
its chapter gets the case.

The cases go to ``bn_spec/suite/pinned.json``. The catalogue, which shows them, goes to
``docs/faults.md``. ``--table`` writes the catalogue alone.
"""

from __future__ import annotations

import argparse
import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from bn_spec.case.script import Case
from bn_spec.judge.check import check
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.classes import FAULT_CLASSES, FaultClass
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.pinned import Pinned, pinned, save
from bn_spec.suite.property import PROPERTIES, Body, Property
from bn_spec.tools.audit import first_search

TABLE = Path(__file__).parents[1] / "docs" / "faults.md"

LUCK = 20
"""Consecutive failures after which a case counts as showing a fault that does not always show."""


def smallest(name: str) -> Pinned | None:
    """Return the smallest case that catches a specimen, or None if the case has gigabytes."""
    specimen = SPECIMENS[name]
    search = first_search(specimen)
    if search is None:
        return None
    prop = search.cell.prop
    if prop.requirement.chapter == "DET":
        search.cell.prop = replace(prop, body=partial(always, prop.body))
    try:
        search.examine()
    except Violation as found:
        finding, case = found.finding, found.drawn
        wrong = {discrepancy.observable for discrepancy in check(finding.case, specimen)}
        corrupts = sorted({finding.discrepancy.observable, *wrong})
        return Pinned(name, of_every_day(prop, specimen, case), case, tuple(corrupts))
    raise AssertionError(f"{name} survives {prop.requirement.id}")


def always(body: Body, cell: Cell, case: Case) -> None:
    """Judge a case as a property does, up to :data:`LUCK` times; raise if it fails every time."""
    found: Violation | None = None
    for _ in range(LUCK):
        try:
            body(cell, case)
        except Violation as again:
            found = again
        else:
            return
    if found:
        raise found


def of_every_day(prop: Property, specimen: Specimen, case: Case) -> str:
    """Return the id of a requirement that is part of every run and that fails on the case.

    It is the requirement of the property, or the first other one of its chapter.
    """
    if not prop.deep:
        return prop.requirement.id
    for other in PROPERTIES.values():
        if other.deep or other.huge or other.requirement.chapter != prop.requirement.chapter:
            continue
        if Cell(other, specimen, case.config.dtype).violation(case):
            return other.requirement.id
    raise AssertionError(f"{specimen.name}: no requirement of every run finds its case")


def pin(jobs: int) -> None:
    """Find all pinned cases again, in the order of the catalogue, and save them."""
    faulty = [name for name, specimen in SPECIMENS.items() if not specimen.sound]
    pins = []
    with ProcessPoolExecutor(jobs) as workers:
        found = zip(faulty, workers.map(smallest, faulty), strict=True)
        for number, (name, pin) in enumerate(found, 1):
            size = f"{pin.case.values} values" if pin else "not pinned"
            print(f"{number} of {len(faulty)}  {name}: {size}", flush=True)
            if pin:
                pins.append(pin)
    save(pins)


HEAD = """# The catalogue of faults

This catalogue lists mistakes that implementations of BatchNorm2d have made, by class. It names the
issues and pull requests that report them. Each mistake is a *faulty specimen*: a backend with this
mistake alone, which the suite catches. To run a specimen, write `_` for `-` in its name:
`bn-spec run bn_spec.specimens:runvar_bias`. `scripts/faults.py` writes this file.

- *Shows on*: the smallest case that the suite has found, as dtype, steps and shape of the last
  input.
- *Corrupts*: everything that is wrong on this case.
- *Caught by*: the requirements that must catch the specimen. `bn-spec audit` checks that they do.
"""

TABLE_HEAD = """
| specimen | mistake | shows on | corrupts | caught by |
|---|---|---|---|---|"""


def table() -> str:
    """Return the catalogue as Markdown."""
    lines, family = [HEAD], ""
    for fault in FAULT_CLASSES.values():
        if fault.family != family:
            family = fault.family
            lines.append(f"\n## {family[0].upper()}{family[1:]}\n")
        lines += section(fault)
    return "\n".join(lines)


def section(fault: FaultClass) -> list[str]:
    """Return the lines about one class of faults."""
    lines = [f"### {fault.name}\n\n{fault.sentence}"]
    if fault.trackers:
        source = "Reports of its specimens" if fault.ours else "Reported"
        lines.append(f"\n{source}: {', '.join(fault.trackers)}.")
    if fault.unexpressed:
        lines.append(f"\n{fault.unexpressed}")
    specimens = [specimen for specimen in SPECIMENS.values() if specimen.fault == fault.name]
    if specimens:
        lines.append(TABLE_HEAD)
        lines += map(row, specimens)
    return [*lines, ""]


def row(specimen: Specimen) -> str:
    """Return a specimen as a row of the table."""
    smallest = pinned().get(specimen.name)
    history = f" ({', '.join(specimen.history)})" if specimen.history else ""
    cells = (
        specimen.name,
        specimen.sentence.replace("|", "\\|") + history,
        shown(smallest.case) if smallest else "an input of gigabytes",
        ", ".join(smallest.corrupts) if smallest else "",
        ", ".join(specimen.caught_by),
    )
    return f"| {' | '.join(cells)} |"


def shown(case: Case) -> str:
    """Return dtype, steps, and the shape of the last input, as a reader sees them."""
    steps = ", ".join(in_words(type(step).__name__) for step in case.steps)
    shapes = [str(x.shape) for x in case.forwards()]
    return "; ".join([case.config.dtype, steps or "building", *shapes[-1:]])


def in_words(name: str) -> str:
    """Return a CamelCase name in words, as in "double backward"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def main() -> None:
    """Find the pinned cases, unless ``--table`` is given, and write the catalogue."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="leave the pinned cases as they are")
    options = parser.parse_args()
    if not options.table:
        pin(options.jobs)
    TABLE.write_text(table(), "utf-8")


if __name__ == "__main__":
    main()
