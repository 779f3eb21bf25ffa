"""``bn-spec run``: builds the pytest call, and turns what it leaves behind into an exit code."""

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
    "--profile", type=click.Choice(tuple(PROFILES)), help="How hard to look (default: ci)."
)
@click.option(
    "-n", "workers", metavar="N|auto", help="Worker processes, as for pytest-xdist (default: 1)."
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
@click.option("--seed", type=int, metavar="N", help="Seed of the run (printed in the header).")
@click.option(
    "--isolate", is_flag=True, help="Play each backend in a process of its own, which may crash."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="For one call (default: 60).",
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="MIB",
    help="For an isolated backend (default: 4096).",
)
@click.option(
    "--known-failures", metavar="FILE", help="Failures that are known, each with its reason (TOML)."
)
@click.option(
    "--known-failures-update", is_flag=True, help="Add the failures of this run to that file."
)
@click.option(
    "--database",
    metavar="WHERE",
    help="Keep what made a check fail, and try it first: a folder, redis://HOST:PORT/NUMBER or github:OWNER/REPO"
    " (default: none).",
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
    """Check backends (default: the reference, and PyTorch's on the devices of this machine).

    A BACKEND is a registered name, package.module:attribute, path/to/file.py:attribute, or 'all'.
    What follows -- goes to pytest, which then runs in this process unless -n is given: a backend
    that crashes ends it.

    Exit codes: 0 conforming, known failures apart; 1 a finding or an unexpected pass; 2 a wrong
    option or a backend that does not load; 3 an incomplete run; 5 nothing tested.
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
    # This process has imported bn_spec before pytest could rewrite it; nothing in it asserts.
    call = [*_suite(), "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    call += ["-o", "console_output_style=classic"]  # Progress tells how far the run is
    call += ["-rN"]  # and the suite's own summary what has failed
    call += [f"--bn-backend={name}" for name in own]
    for option, value in options.items():
        if value is not None:
            call += [option, str(value)]
    if known_failures_update:
        call += ["--bn-known-failures-update"]
    elsewhere = any(argument.startswith("--tx") for argument in passed_on)
    if workers is None and not passed_on:
        workers = "1"  # so that a crash kills a worker, and not who tells of it
    if workers is not None:
        call += ["--numprocesses", workers]
    if workers is not None or elsewhere:
        call += [
            "--dist",
            "worksteal",
        ]  # cells differ in cost; an idle worker takes over from a busy one
    if elsewhere:
        call += [
            "--max-worker-restart",
            "0",
        ]  # who did not start on another machine does not start the next time
    sys.exit(_pytest([*call, *passed_on]))


def _split(arguments: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Split at the first argument that is an option: backends before it, pytest's arguments from it on."""
    first = next(
        (i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments)
    )
    return list(arguments[:first]), list(arguments[first:])


def _suite() -> list[str]:
    return ["--pyargs", SUITE] if find_spec(SUITE) else [str(suite_folder())]


def _pytest(call: list[str]) -> int:
    """Run pytest and return the exit code of ``bn-spec``."""

    class Keep:
        run: Run | None = None

        def pytest_unconfigure(self, config: pytest.Config) -> None:
            self.run = config.stash.get(RUN, None)

    keep = Keep()
    code = pytest.main(call, plugins=[keep, Progress()])
    if code == pytest.ExitCode.USAGE_ERROR or keep.run is None:
        return UNUSABLE
    if (
        code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        and not keep.run.stopped
    ):
        return INCOMPLETE
    failed_elsewhere = NEW_FINDING if code == pytest.ExitCode.TESTS_FAILED else CONFORMING
    return keep.run.exit_code or failed_elsewhere
