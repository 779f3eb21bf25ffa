"""Judges real frameworks, each in its own environment: ``python scripts/scoreboard.py [NAME]... [-n N] [--table]``.

Frameworks do not agree on the versions of what they need, so every row of :data:`ENVIRONMENTS` gets
a virtual environment in ``.frameworks/``, with this checkout and the extras of the row; each of its
backends is run there, and its record kept. At the end, all records that are there are merged into
``docs/scoreboard.md``; ``--table`` does only that. What cannot be installed or run is said there,
and stops nobody else. All of it takes several GB and an hour.
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

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".frameworks"
TABLE = ROOT / "docs" / "scoreboard.md"

LONGEST = 3600
"""Seconds that a backend may take."""


@dataclass(frozen=True)
class Environment:
    """A framework: what is to be installed for it, extras of this package, and its backends."""

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
"""The frameworks that are judged, each with extras that one environment can hold."""


# Runs ------------------------------------------------------------------------------------------------------


def judge(environment: Environment, workers: str) -> None:
    """Make an environment and run its backends in it; what cannot be done is written down beside the records."""
    home = FOLDER / environment.name
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    if not scripts.exists():
        venv.create(home, with_pip=True)
    wanted = [
        str(scripts / "pip"),
        "install",
        "--quiet",
        "-c",
        "constraints.txt",
        "-e",
        f".[{environment.extras}]",
    ]
    installed = subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, check=False)
    for backend in environment.backends:
        record, reason = _record_of(backend), FOLDER / f"{backend}.txt"
        for old in (record, reason):
            old.unlink(missing_ok=True)
        failed = (
            _last_line(installed.stderr)
            if installed.returncode
            else _run(scripts, backend, workers, record)
        )
        if failed:
            reason.write_text(f"{failed}\n", "utf-8")


def _record_of(backend: str) -> Path:
    return FOLDER / "runs" / backend / NAME


def _run(scripts: Path, backend: str, workers: str, record: Path) -> str:
    """Run a backend; return why it left no record, or nothing."""
    command = [
        str(scripts / "bn-spec"),
        "run",
        backend,
        "-n",
        workers,
        "--report-dir",
        str(record.parent),
    ]
    try:
        done = subprocess.run(command, cwd=FOLDER, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return f"it took longer than {LONGEST} s"
    left = done.returncode in (CONFORMING, NEW_FINDING) and record.exists()
    return "" if left else f"exit code {done.returncode} of bn-spec run {backend}"


def _last_line(text: str) -> str:
    return next(
        (line for line in reversed(text.splitlines()) if line.strip()), "it could not be installed"
    )


# The scoreboard --------------------------------------------------------------------------------------------

HEAD = """# Scoreboard

What the suite says of real frameworks, each in its own dialect. Written by `scripts/scoreboard.py` from the records of
its runs; `python scripts/scoreboard.py NAME` repeats one, in a virtual environment of its own.

*Levels*: how many of the requirements that a backend claims hold in float32, or in the first dtype that it has; a
failure that is understood is not a success, and stands below with its reason, as do those of other dtypes.

*Grade*: the best numerical class of the variance whose bounds all examples satisfied. *err/bound*: the worst error as
a share of what any correct kernel may be off by; 1 is the limit.
"""


def table(runs: Iterable[RunFile], missing: dict[str, str]) -> str:
    """Return the scoreboard of some runs, and of backends that left no record, as Markdown."""
    rows = [
        (judged, run, [record for record in run.records if record.backend == judged.name])
        for run in runs
        for judged in run.backends
    ]
    lines = [
        HEAD,
        "| backend | version | " + " | ".join(LEVELS) + " | failures understood | open |",
    ]
    lines.append("|---|---|" + "---|" * (len(LEVELS) + 2))
    lines += [_row(judged, records) for judged, _, records in rows]
    for judged, run, records in rows:
        lines += ["", *_section(judged, run, records)]
    if missing:
        lines += [
            "",
            "## Not judged",
            "",
            *(f"- {name}: {reason}" for name, reason in sorted(missing.items())),
        ]
    return "\n".join(lines) + "\n"


def _row(judged: Judged, records: Sequence[Record]) -> str:
    known, bad = (
        {r.requirement for r in records if r.status in statuses} for statuses in ({KNOWN}, BAD)
    )
    first = next((dtype for dtype in DTYPES if any(r.dtype == dtype for r in records)), "")
    cells = [_of_level([r for r in records if r.dtype == first], level) for level in LEVELS]
    link = f"[{judged.name}](#{judged.name})"
    return f"| {' | '.join([link, judged.description, *cells, str(len(known)), str(len(bad))])} |"


def _of_level(records: Sequence[Record], level: str) -> str:
    own = [
        r for r in records if REQUIREMENTS[r.requirement].level == level and r.status != NOT_CLAIMED
    ]
    claimed = {r.requirement for r in own}
    failing = {r.requirement for r in own if r.status in {KNOWN, *BAD}}
    return f"{len(claimed - failing)} of {len(claimed)}" if claimed else "not claimed"


def _section(judged: Judged, run: RunFile, records: Sequence[Record]) -> Iterator[str]:
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
        reasons: dict[str, set[str]] = {}
        for record in having(records, status):
            for reason in (
                record.text.splitlines() if status == KNOWN else [record.text.splitlines()[0]]
            ):
                reasons.setdefault(reason, set()).add(record.requirement)
        for reason, requirements in reasons.items():
            yield f"\n- {title} ({', '.join(sorted(requirements))}): {reason}"


def _grade(records: Sequence[Record]) -> str:
    return next((r.grade for r in records if r.grade), "not measured")


def _worst(records: Sequence[Record]) -> str:
    shares = [(share, name) for r in records for name, share in r.shares.items()]
    return "nothing to measure" if not shares else f"{share_of(max(shares)[0])} ({max(shares)[1]})"


def main() -> None:
    """Judge the frameworks that are named, or all, and write the scoreboard."""
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
        "--table", action="store_true", help="run nothing; merge the records that are there"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))} is not known; known: {', '.join(known)}")
    FOLDER.mkdir(exist_ok=True)
    for environment in ENVIRONMENTS if not options.table else ():
        if not options.names or environment.name in options.names:
            print(f"== {environment.name}: {', '.join(environment.backends)}", flush=True)
            judge(environment, options.workers)
    names = [backend for environment in ENVIRONMENTS for backend in environment.backends]
    found = {name: RunFile.load(path) for name in names if (path := _record_of(name)).exists()}
    runs = {name: run for name, run in found.items() if run.records and not run.incomplete}
    missing = {name: _why_not(name) for name in names if name not in runs}
    TABLE.write_text(table(runs.values(), missing), "utf-8")


def _why_not(name: str) -> str:
    reason = FOLDER / f"{name}.txt"
    return (
        reason.read_text("utf-8").strip()
        if reason.exists()
        else "there is no record of a complete run yet"
    )


if __name__ == "__main__":
    main()
