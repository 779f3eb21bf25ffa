"""Finds the pinned cases anew and writes the catalogue of faults: ``python scripts/faults.py [--jobs N] [--table]``.

For every faulty specimen, the suite looks for the smallest case on which the first requirement that
it names catches it, as it does for any backend (profile ci, in the first dtype that the specimen
claims). If that one is not part of every run, another of its chapter takes the case. The cases go
to ``bn_spec/suite/pinned.json``, the catalogue with what they show to ``docs/faults.md``;
``--table`` writes only this.
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
from bn_spec.specimens.classes import FAULT_CLASSES
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.pinned import Pinned, pinned, save
from bn_spec.suite.property import PROPERTIES, Body, Property
from bn_spec.tools.audit import first_search

TABLE = Path(__file__).parents[1] / "docs" / "faults.md"

LUCK = 20
"""So many times running must a case show a fault that does not always show."""


def smallest(name: str) -> Pinned | None:
    """Return the smallest case that kills a specimen, or None if the case has gigabytes."""
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
    """Judge a case as a property does, up to :data:`LUCK` times; raise the violation if each fails."""
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
    """Return the requirement of a property, or else the first of its chapter that finds the case in every run."""
    if not prop.deep:
        return prop.requirement.id
    for other in PROPERTIES.values():
        same_chapter = other.requirement.chapter == prop.requirement.chapter
        if same_chapter and not other.deep and not other.huge:
            if Cell(other, specimen, case.config.dtype).violation(case):
                return other.requirement.id
    raise AssertionError(f"{specimen.name}: no requirement of every run finds its case")


def pin(jobs: int) -> None:
    """Find all pinned cases anew, in the order of the catalogue."""
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

Mistakes that implementations of BatchNorm2d made, by class, with the numbers of the issues and pull requests that
tell of them. Each is a *faulty specimen*: a backend with this mistake alone
(`bn-spec run bn_spec.specimens:runvar_bias`, with `_` for `-`), which the suite catches. Written by `scripts/faults.py`.

*Shows on* is the smallest case that the suite has found: dtype, steps, shape of the last input. *Corrupts* names all
that is wrong on this case. *Caught by* lists the requirements that must catch it; `bn-spec audit` checks that.
"""


def table() -> str:
    """Return the catalogue as Markdown."""
    lines, family = [HEAD], ""
    for fault in FAULT_CLASSES.values():
        specimens = [specimen for specimen in SPECIMENS.values() if specimen.fault == fault.name]
        if fault.family != family:
            family = fault.family
            lines.append(f"\n## {family[0].upper()}{family[1:]}\n")
        lines.append(f"### {fault.name}\n\n{fault.sentence}")
        if fault.trackers:
            lines.append(
                f"\n{'Specimens of it' if fault.ours else 'Reported'}: {', '.join(fault.trackers)}."
            )
        if fault.unexpressed:
            lines.append(f"\n{fault.unexpressed}")
        if specimens:
            lines.append(
                "\n| specimen | mistake | shows on | corrupts | caught by |\n|---|---|---|---|---|"
            )
            lines += map(row, specimens)
        lines.append("")
    return "\n".join(lines)


def row(specimen: Specimen) -> str:
    """Return a specimen as a row of the table."""
    smallest = pinned().get(specimen.name)
    where = shown(smallest.case) if smallest else "an input of gigabytes"
    corrupts = ", ".join(smallest.corrupts) if smallest else ""
    history = f" ({', '.join(specimen.history)})" if specimen.history else ""
    mistake = " ".join(specimen.sentence.split()).replace("|", "\\|")
    return f"| {specimen.name} | {mistake}{history} | {where} | {corrupts} | {', '.join(specimen.caught_by)} |"


def shown(case: Case) -> str:
    """Return dtype, steps, and the shape of the last input, for people."""
    steps = ", ".join(
        re.sub(r"(?<!^)(?=[A-Z])", " ", type(step).__name__).lower() for step in case.steps
    )
    shapes = [str(x.shape) for x in case.forwards()]
    return "; ".join([case.config.dtype, steps or "building", *shapes[-1:]])


def main() -> None:
    """Find the pinned cases, unless they are to stay, and write the catalogue."""
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
