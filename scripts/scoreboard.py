"""Judge real frameworks, each in its own environment, and write ``docs/scoreboard.md``.

Usage: ``python scripts/scoreboard.py [NAME]... [-n N] [--table]``

Frameworks need different versions of the same packages. So every row of :data:`ENVIRONMENTS` has a
virtual environment in ``.frameworks/``, with this checkout and the extras of the row. The script
runs each backend of the row there and keeps its record. At the end it merges all records into
``docs/scoreboard.md``; with ``--table`` it does only that. The scoreboard says which backends could
not be installed or run; the script continues with the others. All frameworks together take several
GB and an hour.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import venv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bn_spec.case.dtypes import DTYPES
from bn_spec.report.records import (
    BAD,
    CONFORMING,
    FAIL,
    KNOWN,
    NEW_FINDING,
    NOT_CLAIMED,
    Record,
    having,
)
from bn_spec.report.run_file import NAME, Judged, RunFile
from bn_spec.report.table import share_of
from bn_spec.specification.requirement import LEVELS, REQUIREMENTS
from bn_spec.suite.chapters import load_suite

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".frameworks"
TABLE = ROOT / "docs" / "scoreboard.md"

LONGEST = 3600
"""Maximum duration of the run of one backend, in seconds."""


@dataclass(frozen=True)
class Environment:
    """A framework with the environment in which it is judged.

    Attributes:
        name: Name of the framework on the command line.
        extras: Extras of this package to install, separated by commas.
        backends: Names of the backends to run.

    """

    name: str
    extras: str
    backends: tuple[str, ...]


ENVIRONMENTS: tuple[Environment, ...] = (
    Environment(
        "torch",
        "torch",
        (
            "torch-cpu",
            "torch-script",
            "torch-export",
            "torch-export-decomposed",
            "torch-decomp",
            "torch-mkldnn",
        ),
    ),
    Environment("onnx", "onnxruntime", ("onnxruntime", "onnx-reference")),
    Environment("mlx", "mlx", ("mlx",)),
    Environment("paddle", "paddle", ("paddle-nchw", "paddle-nhwc")),
    Environment("tinygrad", "tinygrad", ("tinygrad",)),
    Environment(
        "jax",
        "jax",
        (
            "flax-linen",
            "flax-linen-accurate",
            "flax-linen-promoted",
            "flax-nnx",
            "flax-nnx-accurate",
            "haiku",
            "equinox",
            "equinox-ema",
        ),
    ),
    Environment(
        "tensorflow",
        "tensorflow",
        ("tensorflow-nhwc", "tensorflow-nchw", "tensorflow-xla-nhwc", "tensorflow-xla-nchw"),
    ),
    Environment("keras", "keras,tensorflow", ("keras-tensorflow",)),
    Environment("keras-jax", "keras,jax", ("keras-jax", "keras-numpy")),
    Environment("keras-torch", "keras,torch", ("keras-torch",)),
)
"""The frameworks to judge. The extras of each can be installed together."""


# Runs ---------------------------------------------------------------------------------------------


def judge(environment: Environment, workers: str) -> None:
    """Make an environment and run its backends in it.

    For a backend that cannot be installed or run, a text file beside the records has the reason.
    """
    home = FOLDER / environment.name
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    if not scripts.exists():
        venv.create(home, with_pip=True)
    pip = [str(scripts / "pip"), "install", "--quiet"]
    packages = ["-c", "constraints.txt", "-e", f".[{environment.extras}]"]
    installed = subprocess.run(
        [*pip, *packages], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for backend in environment.backends:
        record, reason = _record_of(backend), _reason_of(backend)
        for old in (record, reason):
            old.unlink(missing_ok=True)
        if installed.returncode:
            failed = _last_line(installed.stderr)
        else:
            failed = _run(scripts, backend, workers, record)
        if failed:
            reason.write_text(f"{failed}\n", "utf-8")


def _record_of(backend: str) -> Path:
    return FOLDER / "runs" / backend / NAME


def _reason_of(backend: str) -> Path:
    return FOLDER / f"{backend}.txt"


def _run(scripts: Path, backend: str, workers: str, record: Path) -> str:
    """Run a backend. Return why it left no record, or an empty string if it left one."""
    options = ["-n", workers, "--report-dir", str(record.parent)]
    command = [str(scripts / "bn-spec"), "run", backend, *options]
    try:
        done = subprocess.run(command, cwd=FOLDER, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return f"it took longer than {LONGEST} s"
    left = done.returncode in (CONFORMING, NEW_FINDING) and record.exists()
    return "" if left else f"exit code {done.returncode} of bn-spec run {backend}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it could not be installed"


# The scoreboard -----------------------------------------------------------------------------------

HEAD = """# Scoreboard

These are the suite's verdicts on real frameworks, each in its own dialect. `scripts/scoreboard.py`
writes this page from the records of its runs; `python scripts/scoreboard.py NAME` repeats one run,
in a virtual environment of its own.

*Levels*: how many of the requirements that a backend claims hold in float32, or in its first dtype
if it has no float32. An understood failure is not a success. Its reason stands below, as do the
failures of other dtypes.

*Grade*: the best numerical class of the variance whose bounds all examples satisfied. *err/bound*:
the worst error as a share of the largest error that a correct kernel can make; 1 is the limit.
"""


def table(runs: Iterable[RunFile], missing: dict[str, str]) -> str:
    """Return the scoreboard as Markdown.

    Args:
        runs: the runs that left a complete record.
        missing: why there is no such record, by the name of a backend.

    """
    load_suite()  # it registers the requirements, whose levels the table needs
    rows = []
    for run in runs:
        for judged in run.backends:
            own = [record for record in run.records if record.backend == judged.name]
            rows.append((judged, run, own))
    lines = [
        HEAD,
        f"| backend | version | {' | '.join(LEVELS)} | failures understood | open |",
        "|---|---|" + "---|" * (len(LEVELS) + 2),
        *(_row(judged, records) for judged, _, records in rows),
    ]
    for judged, run, records in rows:
        lines += ["", *_section(judged, run, records)]
    if missing:
        lines += ["", "## Not judged", ""]
        lines += [f"- {name}: {reason}" for name, reason in sorted(missing.items())]
    return "\n".join(lines) + "\n"


def _row(judged: Judged, records: Sequence[Record]) -> str:
    """Return the row of a backend in the table at the top."""
    known = {r.requirement for r in records if r.status == KNOWN}
    bad = {r.requirement for r in records if r.status in BAD}
    dtypes = {r.dtype for r in records}
    # DTYPES begins with float32.
    first = next((dtype for dtype in DTYPES if dtype in dtypes), "")
    in_first = [r for r in records if r.dtype == first]
    cells = [
        f"[{judged.name}](#{judged.name})",
        judged.description,
        *(_of_level(in_first, level) for level in LEVELS),
        str(len(known)),
        str(len(bad)),
    ]
    return f"| {' | '.join(cells)} |"


def _of_level(records: Sequence[Record], level: str) -> str:
    """Return how many requirements of a level hold, of those that are claimed."""
    own = [
        r for r in records if REQUIREMENTS[r.requirement].level == level and r.status != NOT_CLAIMED
    ]
    claimed = {r.requirement for r in own}
    failing = {r.requirement for r in own if r.status in {KNOWN, *BAD}}
    return f"{len(claimed - failing)} of {len(claimed)}" if claimed else "not claimed"


def _section(judged: Judged, run: RunFile, records: Sequence[Record]) -> Iterator[str]:
    """Yield the lines of the section about a backend."""
    yield f"## {judged.name}\n"
    how = "profile {profile}, seed {seed}, Python {python}, {machine}".format_map(
        {**run.judged_by, **run.environment}
    )
    yield f"{judged.description}; {how}.\n"
    if judged.departures:
        yield "Not as in PyTorch: " + "; ".join(judged.departures) + ".\n"
    yield "| dtype | grade | worst err/bound | values judged |\n|---|---|---|---|"
    for dtype in DTYPES:
        own = [r for r in records if r.dtype == dtype and r.status != NOT_CLAIMED]
        if own:
            yield f"| {dtype} | {_grade(own)} | {_worst(own)} | {sum(r.judged for r in own):,} |"
    for status, title in ((KNOWN, "understood"), (FAIL, "open")):
        for reason, requirements in _by_reason(records, status).items():
            yield f"\n- {title} ({', '.join(sorted(requirements))}): {reason}"


def _by_reason(records: Sequence[Record], status: str) -> dict[str, set[str]]:
    """Return the requirements with a status, by each reason in their records."""
    reasons: dict[str, set[str]] = {}
    for record in having(records, status):
        lines = record.text.splitlines()
        # Each line of a known failure is a reason; a new failure begins with its summary.
        for reason in lines if status == KNOWN else lines[:1]:
            reasons.setdefault(reason, set()).add(record.requirement)
    return reasons


def _grade(records: Sequence[Record]) -> str:
    return next((r.grade for r in records if r.grade), "not measured")


def _worst(records: Sequence[Record]) -> str:
    """Return the largest share of an error in its bound, and the observable that has it."""
    shares = [(share, name) for r in records for name, share in r.shares.items()]
    if not shares:
        return "nothing to measure"
    share, name = max(shares)
    return f"{share_of(share)} ({name})"


def main() -> None:
    """Judge the frameworks named on the command line, or all, and write the scoreboard."""
    known = [environment.name for environment in ENVIRONMENTS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)} (default: all)"
    )
    parser.add_argument(
        "-n", dest="workers", default="auto", metavar="N", help="worker processes (default: auto)"
    )
    parser.add_argument(
        "--table", action="store_true", help="run nothing; merge the existing records"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))} is not known; known: {', '.join(known)}")
    FOLDER.mkdir(exist_ok=True)
    if not options.table:
        for environment in ENVIRONMENTS:
            if not options.names or environment.name in options.names:
                print(f"== {environment.name}: {', '.join(environment.backends)}", flush=True)
                judge(environment, options.workers)
    write_table()


def write_table() -> None:
    """Write the scoreboard from the records of complete runs."""
    names = [backend for environment in ENVIRONMENTS for backend in environment.backends]
    found = {name: RunFile.load(path) for name in names if (path := _record_of(name)).exists()}
    runs = {name: run for name, run in found.items() if run.records and not run.incomplete}
    missing = {name: _why_not(name) for name in names if name not in runs}
    TABLE.write_text(table(runs.values(), missing), "utf-8")


def _why_not(name: str) -> str:
    reason = _reason_of(name)
    if reason.exists():
        return reason.read_text("utf-8").strip()
    return "there is no record of a complete run yet"


if __name__ == "__main__":
    main()
