"""Measure the time of the suite with one worker and with several.

Run it as ``python benchmarks/suite_time.py`` while the machine is idle; ``--help`` lists the
options. It measures the wall-clock time of whole processes, imports included. Runs with one worker
and runs with several take turns. It prints each time, the medians and their ratio. It fails if a
run fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median

LIMIT = 60.0
"""Maximum time of a run on one backend, in seconds."""


def seconds(backend: str, profile: str, workers: int) -> float:
    """Return the wall-clock time of one run in seconds, and print it."""
    call = [
        sys.executable,
        "-m",
        "bn_spec.cli",
        "run",
        backend,
        "--profile",
        profile,
        "-n",
        str(workers),
    ]
    start = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nthe run ended with exit code {done.returncode}")
    summary = done.stdout.splitlines()[-1].strip(" =")
    print(f"-n {workers}: {elapsed:6.1f} s   {summary}", flush=True)
    return elapsed


def main() -> None:
    """Time runs with one worker and with several, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backend", default="torch-cpu", help="backend to judge (default: torch-cpu)"
    )
    parser.add_argument("--profile", default="ci", help="profile of the runs (default: ci)")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="number of workers to compare with one worker (default: one per core)",
    )
    parser.add_argument("--rounds", type=int, default=1, help="number of rounds (default: 1)")
    options = parser.parse_args()
    times: dict[int, list[float]] = {1: [], options.workers: []}
    for _ in range(options.rounds):
        for workers, known in times.items():
            known.append(seconds(options.backend, options.profile, workers))
    alone, together = median(times[1]), median(times[options.workers])
    print(
        f"{options.backend}, {options.profile}: {alone:.1f} s with 1 worker,"
        f" {together:.1f} s with {options.workers}"
    )
    outcome = "within" if together <= LIMIT else "OVER"
    print(f"{alone / together:.2f} times as fast; {outcome} the limit of {LIMIT:g} s")


if __name__ == "__main__":
    main()
