"""What records and reports add to a passing run: with and without them, in turn.

Run it as ``python benchmarks/report_overhead.py``; ``--help`` lists the choices. Measured are the processor's seconds
of whole processes, imports and workers included, on which other processes have less influence than on the clock:
``bn-spec run`` with a plugin that keeps of each record only the status and writes no file; ``bn-spec run`` as it is;
and ``bn-spec report`` of what that has left, in all formats. It prints the medians and their ratios, and fails if
records and reports together add more than the limit.
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
"""Of the time of a run, that they may add."""

WITHOUT = """
import bn_spec.pytest_plugin as plugin
from bn_spec.report.records import Record

plugin._Ledger._write = lambda *_: None
plugin._record = lambda cell, status, text, *_: Record(
    cell.prop.requirement.id, cell.backend.name, cell.dtype, status, text=text
)
"""
"""A plugin that leaves of the records what tells how the run ended."""


def seconds(folder: Path, *arguments: str) -> float:
    """Return the processor's seconds that a command of ``bn-spec`` takes, from start to end."""
    before = getrusage(RUSAGE_CHILDREN)
    call = [sys.executable, "-m", "bn_spec.cli", *arguments]
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\n{' '.join(arguments)} ended with exit code {done.returncode}")
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time runs with records and without, in turn, and reports; print the medians side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch-cpu")
    parser.add_argument("--profile", default="ci")
    parser.add_argument("--workers", default="0", help="worker processes (default: none beside the main one)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run = ("run", options.backend, "--profile", options.profile, "-n", options.workers)
    times: dict[str, list[float]] = {"without": [], "with": [], "report": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "no_records.py").write_text(WITHOUT, "utf-8")
        for number in range(options.rounds):
            times["without"].append(seconds(folder, *run, "--", "-p", "no_records"))
            times["with"].append(seconds(folder, *run))
            times["report"].append(seconds(folder, "report"))
            print(
                f"round {number + 1}: " + ", ".join(f"{key} {own[-1]:.2f} s" for key, own in times.items()),
                flush=True,
            )
    without, with_, report = (median(own) for own in times.values())
    print(f"{options.backend}, {options.profile}, {options.workers} workers, medians of {options.rounds}:")
    print(f"without records {without:.2f} s, with {with_:.2f} s ({with_ / without - 1:+.1%})")
    total = (with_ + report) / without - 1
    print(
        f"all reports {report:.2f} s more; together {total:+.1%}, {'within' if total < LIMIT else 'OVER'} {LIMIT:.0%}"
    )
    sys.exit(total >= LIMIT)


if __name__ == "__main__":
    main()
