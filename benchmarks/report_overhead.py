"""The cost of records and reports, as a share of the time of a passing run.

Run it as ``python benchmarks/report_overhead.py``; ``--help`` lists the options. It measures the
processor time of whole processes, imports included, which depends less on other processes than
wall-clock time. Each round runs three commands:

* ``bn-spec run`` with a plugin that keeps only the status of each record and writes no file;
* ``bn-spec run`` with a plugin that measures from within the time that records take, because that
  time is smaller than the difference between two equal runs;
* ``bn-spec report`` of the second run, in all formats.

The benchmark prints the medians and their ratios. It fails if records and reports together exceed
the limit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from tempfile import TemporaryDirectory

LIMIT = 0.05
"""Largest cost of records and reports, as a share of the time of a run."""

WITHOUT = """
from bn_spec.session import ledger, outcomes
from bn_spec.report.records import Record

ledger.Ledger._write = lambda *_: None
outcomes.recorded = lambda cell, status, text, *_: Record(
    cell.prop.requirement.id, cell.backend.name, cell.dtype, status, text=text
)
"""
"""A plugin that keeps of each record only the fields that decide the exit code."""

MEASURED = """
from functools import wraps
from time import process_time

from bn_spec.session import ledger, outcomes
from bn_spec.report.records import Record

spent = []


def measured(function):
    @wraps(function)
    def call(*arguments):
        start = process_time()
        try:
            return function(*arguments)
        finally:
            spent.append(process_time() - start)

    return call


outcomes.recorded = measured(outcomes.recorded)
ledger.Ledger._write = measured(ledger.Ledger._write)
Record.to_dict = measured(Record.to_dict)
Record.from_dict = staticmethod(measured(Record.from_dict))


def pytest_unconfigure():
    with open("spent", "w") as file:
        file.write(str(sum(spent)))
"""
"""A plugin that writes the processor time of records, in seconds, to the file ``spent``."""


def seconds(folder: Path, *arguments: str) -> float:
    """Return the processor time of a command of ``bn-spec`` in seconds."""
    before = getrusage(RUSAGE_CHILDREN)
    call = [sys.executable, "-m", "bn_spec.cli", *arguments]
    path = os.pathsep.join(
        [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    if done.returncode:
        ending = f"{' '.join(arguments)} ended with exit code {done.returncode}"
        sys.exit(f"{done.stdout}\n{done.stderr}\n{ending}")
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time runs without records, runs with records, and reports; print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backend", default="torch-cpu", help="backend to judge (default: torch-cpu)"
    )
    parser.add_argument("--profile", default="ci", help="profile of the runs (default: ci)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    options = parser.parse_args()
    run = ("run", options.backend, "--profile", options.profile, "--", "-p")
    times: dict[str, list[float]] = {"without": [], "with": [], "records": [], "reports": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for plugin, text in (("without_records", WITHOUT), ("measured_records", MEASURED)):
            (folder / f"{plugin}.py").write_text(text, "utf-8")
        for number in range(options.rounds):
            times["without"].append(seconds(folder, *run, "without_records"))
            times["with"].append(seconds(folder, *run, "measured_records"))
            times["records"].append(float((folder / "spent").read_text("utf-8")))
            times["reports"].append(seconds(folder, "report"))
            latest = ", ".join(f"{key} {values[-1]:.2f} s" for key, values in times.items())
            print(f"round {number + 1}: {latest}", flush=True)
    without, with_, records, reports = (median(values) for values in times.values())
    print(f"{options.backend}, {options.profile}, medians of {options.rounds}:")
    print(f"without records: {without:.2f} s; with: {with_:.2f} s ({with_ / without - 1:+.1%})")
    share = (records + reports) / with_
    print(f"records, measured from within: {records:.2f} s ({records / with_:.1%})")
    print(f"all reports: {reports:.2f} s more")
    outcome = "within" if share < LIMIT else "OVER"
    print(f"records and reports: {share:.1%} of a run, {outcome} the limit of {LIMIT:.0%}")
    sys.exit(share >= LIMIT)


if __name__ == "__main__":
    main()
