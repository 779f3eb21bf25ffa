"""How long the suite takes, and what a second worker is worth: one worker and several, in turn.

Run it as ``python benchmarks/suite_time.py``, with nothing else running; ``--help`` lists the
choices. Whole processes are timed, imports included. It prints each time, the medians and their
ratio, and fails if a run does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median

LIMIT = 60.0
"""Seconds in which a maintainer waits for an answer about one backend."""


def seconds(backend: str, profile: str, workers: int) -> float:
    """Return the seconds that one run takes, from start to end."""
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
    print(
        f"-n {workers}: {elapsed:6.1f} s   {done.stdout.splitlines()[-1].strip(' =')}", flush=True
    )
    return elapsed


def main() -> None:
    """Time runs with one worker and with several, in turn, and print the medians side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="torch-cpu")
    parser.add_argument("--profile", default="ci")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="beside 1 (default: one per core)"
    )
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    times: dict[int, list[float]] = {1: [], options.workers: []}
    for _ in range(options.rounds):
        for workers, known in times.items():
            known.append(seconds(options.backend, options.profile, workers))
    alone, together = median(times[1]), median(times[options.workers])
    print(
        f"{options.backend}, {options.profile}: {alone:.1f} s with 1 worker, {together:.1f} s with {options.workers}"
    )
    print(
        f"{alone / together:.2f} times as fast; {'within' if together <= LIMIT else 'OVER'} {LIMIT:g} s"
    )


if __name__ == "__main__":
    main()
