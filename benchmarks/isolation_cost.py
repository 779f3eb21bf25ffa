"""Measure the cost of protection against crashes of a backend.

Run it as ``python benchmarks/isolation_cost.py``; ``--help`` lists the options. The benchmark runs
cells of several chapters and collects their cases. Each round then takes four measurements:

* the cells run again, for the time of an example;
* each case is noted in a file, as every run does before it plays a case;
* each case is played in this process;
* each case is played in a separate process, as with ``--bn-isolate process``.

The benchmark prints the shortest time of each, per example or per case. The exit code is 1 if the
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
"""Requirements of several chapters: forwards, gradients, histories, and checks of memory."""

LIMIT = 0.03
"""Maximum cost of the notes, as a share of the CPU time of an example."""


class CaseCollector(StandIn):
    """A backend that keeps the cases that it plays."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.cases: list[Case] = []

    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Keep the case and play it."""
        self.cases.append(case)
        return play(case, self.backend, looks)

    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Keep the cases and play them."""
        self.cases += cases
        return play_together(cases, self.backend)


def run(backend: Backend) -> int:
    """Run the cells and return the number of examples."""
    examples = 0
    for name in REQUIREMENTS:
        cell = Cell(PROPERTIES[name], backend, "float32")
        if not cell.not_claimed:
            Search(cell, PROFILES["ci"].settings()).examine()
            examples += cell.tally.examples
    return examples


def note(recorder: Recorder, cases: Sequence[Case]) -> None:
    """Note cases one after the other, without playing them."""
    for case in cases:
        with recorder.playing([case]):
            pass


def play_all(backend: Backend, cases: Sequence[Case]) -> None:
    """Play cases one after the other."""
    for case in cases:
        play(case, backend, (STATES,))


def microseconds(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    """Return the time of a call, divided by ``count``, in microseconds."""
    start = clock()
    call()
    return 1e6 * (clock() - start) / count


def main() -> None:
    """Take the four measurements and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backend", default="torch-cpu", help="backend to measure (default: torch-cpu)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in a worker
    load_suite()
    backend = load(options.backend)
    collector = CaseCollector(backend)
    examples = run(collector)
    cases, cpu, clock = collector.cases, time.process_time, time.perf_counter
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Isolated(backend, options.backend)) as isolated,
    ):
        recorder = Recorder(Path(folder) / "note")
        recorder.begin(dict.fromkeys(ABOUT, "benchmark"))
        rounds = []
        for _ in range(options.rounds):
            example = microseconds(lambda: run(backend), examples, cpu)
            noted = microseconds(lambda: note(recorder, cases), examples, cpu)
            # Wall-clock time, since the CPU time of the other process does not count as ours.
            here = microseconds(lambda: play_all(backend, cases), len(cases), clock)
            apart = microseconds(lambda: play_all(isolated, cases), len(cases), clock)
            rounds.append((example, noted, here, apart))
        recorder.close()
    example, noted, here, apart = map(min, zip(*rounds, strict=True))
    print(
        f"{options.backend}: {examples} examples, {len(cases)} cases;"
        f" shortest of {options.rounds} rounds"
    )
    print(f"an example takes {example:.0f} µs of CPU time")
    print(f"noting its cases adds {noted:.0f} µs ({noted / example:.1%})")
    print(f"a case takes {here:.0f} µs in this process")
    print(f"a case takes {apart:.0f} µs in a separate process ({apart - here:+.0f} µs)")
    sys.exit(noted > LIMIT * example)


if __name__ == "__main__":
    main()
