"""What it costs that a backend may crash: ``python benchmarks/isolation_cost.py [--backend NAME] [--rounds N]``.

Cells of several chapters are run, and their cases gathered; then all of these are played here,
noted (as every run does before it plays a case), and played in a process of its own (``--bn-isolate
process``), in turn. Printed is the least that each took, per example or case. Exit code 1 if the
notes add more than 3 % to the CPU time of an example.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path

from bn_spec.backend.contract import Backend
from bn_spec.backend.registry import load
from bn_spec.case.script import Case
from bn_spec.play.flight import ABOUT, Recorder
from bn_spec.play.isolated import Isolated
from bn_spec.play.observation import STATES, Observation
from bn_spec.play.player import StandIn, play, play_together
from bn_spec.suite.cell import Cell
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

REQUIREMENTS = ("TRN-01", "RUN-03", "EVL-01", "GRD-01", "STA-01", "LAY-01", "SHP-01", "DET-01")
"""Of several chapters: single forwards, gradients, histories, and looks at memory."""

MOST = 0.03
"""Of the CPU time of an example that a note may add."""


class Gathering(StandIn):
    """A backend whose cases are kept."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.cases: list[Case] = []

    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Keep the case, and play it."""
        self.cases.append(case)
        return play(case, self.backend, looks)

    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Keep the cases, and play them."""
        self.cases += cases
        return play_together(cases, self.backend)


def run(backend: Backend) -> int:
    """Run the cells, and return the number of examples."""
    examples = 0
    for name in REQUIREMENTS:
        cell = Cell(PROPERTIES[name], backend, "float32")
        if not cell.not_claimed:
            Search(cell, PROFILES["ci"].settings()).examine()
            examples += cell.tally.examples
    return examples


def note(recorder: Recorder, cases: Sequence[Case]) -> None:
    """Note cases, one after the other, that are not played."""
    for case in cases:
        with recorder.playing([case]):
            pass


def microseconds(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    """Return what a call takes, for each of so many."""
    start = clock()
    call()
    return 1e6 * (clock() - start) / count


def main() -> None:
    """Run, play, note and isolate, and print what each takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="torch-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in a worker
    load_suite()
    backend = load(options.backend)
    gathering = Gathering(backend)
    examples = run(gathering)
    cases, cpu, clock = gathering.cases, time.process_time, time.perf_counter
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Isolated(backend, options.backend)) as isolated,
    ):
        recorder = Recorder(Path(folder) / "note")
        recorder.begin(dict.fromkeys(ABOUT, "benchmark"))
        rounds = [
            (
                microseconds(lambda: run(backend), examples, cpu),
                microseconds(lambda: note(recorder, cases), examples, cpu),
                microseconds(
                    lambda: [play(case, backend, (STATES,)) for case in cases], len(cases), clock
                ),
                microseconds(
                    lambda: [play(case, isolated, (STATES,)) for case in cases], len(cases), clock
                ),
            )
            for _ in range(options.rounds)
        ]
        recorder.close()
    example, noted, here, there = map(min, zip(*rounds, strict=True))
    print(
        f"{options.backend}: {examples} examples, {len(cases)} cases played; the least of {options.rounds} rounds"
    )
    print(
        f"an example takes {example:.0f} µs of CPU time; noting its cases adds {noted:.0f} ({noted / example:.1%})"
    )
    print(
        f"a case played here takes {here:.0f} µs, isolated {there:.0f} µs ({there - here:+.0f} µs)"
    )
    sys.exit(noted > MOST * example)


if __name__ == "__main__":
    main()
