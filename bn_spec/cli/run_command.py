"""``bn-spec run``: builds the pytest call, and turns the record of the run into an exit code."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import click
import pytest

from bn_spec.cli.progress import Progress
from bn_spec.report.records import CONFORMING, INCOMPLETE, NEW_FINDING, UNUSABLE, Run
from bn_spec.session.setup import RUN
from bn_spec.suite.chapters import SUITE, suite_folder
from bn_spec.suite.profiles import PROFILES


@click.command()
@click.argument("arguments", nargs=-1, metavar="[BACKEND]... [-- PYTEST ARGS]")
@click.option(
    "--profile",
    type=click.Choice(tuple(PROFILES)),
    help="Number of examples and whether slow checks run (default: ci).",
)
@click.option(
    "-n",
    "workers",
    metavar="N|auto",
    help="Number of worker processes, as for pytest-xdist (default: 1).",
)
@click.option(
    "--max-examples",
    type=click.IntRange(1),
    metavar="N",
    help="Examples per property, backend and dtype.",
)
@click.option(
    "--requirement", metavar="GLOB", help="Check only the requirements that match, as in 'RUN-*'."
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Seed of the run, which the header shows (default: 0, or a new one for nightly).",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Run each backend in a process of its own, so that it may crash.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Time limit of one call, in seconds (default: 60).",
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="MIB",
    help="Memory limit of an isolated backend, in MiB (default: 4096).",
)
@click.option(
    "--known-failures", metavar="FILE", help="TOML file of known failures, each with its reason."
)
@click.option(
    "--known-failures-update",
    is_flag=True,
    help="Append the failures of this run to that file, with empty reasons.",
)
@click.option(
    "--database",
    metavar="WHERE",
    help="Store failing examples and try them first in the next run: a folder,"
    " redis://HOST:PORT/NUMBER or github:OWNER/REPO (default: none).",
)
@click.option(
    "--report-dir",
    metavar="DIR",
    help="Folder for the record and the cases of findings (default: .bn_spec).",
)
def run(
    arguments: tuple[str, ...],
    profile: str | None,
    workers: str | None,
    max_examples: int | None,
    requirement: str | None,
    seed: int | None,
    isolate: bool,
    timeout: float | None,
    memory: int | None,
    known_failures: str | None,
    known_failures_update: bool,
    database: str | None,
    report_dir: str | None,
) -> None:
    """Check backends (default: the reference and PyTorch on the devices of this machine).

    A BACKEND is a registered name, package.module:attribute, path/to/file.py:attribute, or 'all'.
    Arguments after -- are passed to pytest. With them and without -n, pytest runs in this process,
    so a crash of the backend ends it.

    Exit codes: 0 conforming, apart from known failures; 1 a finding or an unexpected pass; 2
    invalid option, or a backend does not load; 3 incomplete run; 5 nothing tested.
    """
    own, passed_on = _split(arguments)
    options: dict[str, object] = {
        "--bn-profile": profile,
        "--bn-max-examples": max_examples,
        "--bn-requirement": requirement,
        "--bn-seed": seed,
        "--bn-isolate": "process" if isolate else None,
        "--bn-timeout": timeout,
        "--bn-memory": memory,
        "--bn-known-failures": known_failures,
        "--bn-database": database,
        "--bn-report-dir": report_dir,
    }
    # This process has imported bn_spec before pytest could rewrite its assertions. It has none.
    call = [*_suite(), "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    # The plugin Progress replaces pytest's progress, and the suite's own summary the short one.
    call += ["-o", "console_output_style=classic", "-rN"]
    call += [f"--bn-backend={name}" for name in own]
    for option, value in options.items():
        if value is not None:
            call += [option, str(value)]
    if known_failures_update:
        call += ["--bn-known-failures-update"]
    sys.exit(_pytest([*call, *_distribution(workers, passed_on), *passed_on]))


def _distribution(workers: str | None, passed_on: list[str]) -> list[str]:
    """Return the arguments of pytest-xdist."""
    elsewhere = any(argument.startswith("--tx") for argument in passed_on)
    if workers is None and not passed_on:
        # A crash then ends a worker, and this process can report it.
        workers = "1"
    arguments = []
    if workers is not None:
        arguments += ["--numprocesses", workers]
    if workers is not None or elsewhere:
        # Cells differ in cost: an idle worker takes over cells of a busy one.
        arguments += ["--dist", "worksteal"]
    if elsewhere:
        # A worker that does not start on another machine does not start at the second try either.
        arguments += ["--max-worker-restart", "0"]
    return arguments


def _split(arguments: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Split the arguments into the backends and, from the first option on, those for pytest."""
    for number, argument in enumerate(arguments):
        if argument.startswith("-"):
            return list(arguments[:number]), list(arguments[number:])
    return list(arguments), []


def _suite() -> list[str]:
    return ["--pyargs", SUITE] if find_spec(SUITE) else [str(suite_folder())]


def _pytest(call: list[str]) -> int:
    """Run pytest and return the exit code of ``bn-spec``."""

    class Keep:
        """A plugin that keeps the run after pytest has ended."""

        run: Run | None = None

        def pytest_unconfigure(self, config: pytest.Config) -> None:
            self.run = config.stash.get(RUN, None)

    keep = Keep()
    code = pytest.main(call, plugins=[keep, Progress()])
    if code == pytest.ExitCode.USAGE_ERROR or keep.run is None:
        return UNUSABLE
    ended_early = code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
    if ended_early and not keep.run.stopped:
        return INCOMPLETE
    if keep.run.exit_code != CONFORMING:
        return keep.run.exit_code
    # Tests that are not of the suite, which the user has passed on to pytest, may have failed too.
    return NEW_FINDING if code == pytest.ExitCode.TESTS_FAILED else CONFORMING
