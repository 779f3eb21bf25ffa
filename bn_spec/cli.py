"""The ``bn-spec`` command: builds the pytest call and renders what is registered."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.table import Table

from . import __version__
from .backend import Backend, Capabilities
from .errors import BackendError, UnavailableBackend
from .profiles import PROFILES
from .pytest_plugin import RUN
from .registry import load, registered
from .report.records import CONFORMING, INCOMPLETE, NEW_FINDING, UNUSABLE, Run
from .suite import SUITE, suite_folder


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bn-spec")
def main() -> None:
    """Check BatchNorm2d implementations against the specification."""


@main.command()
@click.argument("arguments", nargs=-1, metavar="[BACKEND]... [-- PYTEST ARGS]")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), help="How hard to look (default: ci).")
@click.option("-n", "workers", metavar="N|auto", help="Worker processes, as for pytest-xdist.")
@click.option("--max-examples", type=click.IntRange(1), help="Examples per property, backend and dtype.")
@click.option("--requirement", metavar="GLOB", help="Check only the requirements that match, as in 'RUN-*'.")
@click.option("--seed", type=int, help="Seed of the run (printed in the header).")
@click.option("--record", metavar="FILE", help="Write the record of the run to this file, as JSON.")
def run(
    arguments: tuple[str, ...],
    profile: str | None,
    workers: str | None,
    max_examples: int | None,
    requirement: str | None,
    seed: int | None,
    record: str | None,
) -> None:
    """Check backends (default: the reference, and PyTorch's on the devices of this machine).

    A BACKEND is a registered name, package.module:attribute, path/to/file.py:attribute, or 'all'. What follows
    -- goes to pytest.

    Exit codes: 0 conforming, known failures apart; 1 a finding or an unexpected pass; 2 a wrong option or a backend
    that does not load; 3 an incomplete run; 5 nothing tested.
    """
    own, passed_on = _split(arguments)
    options: dict[str, object] = {
        "--numprocesses": workers,
        "--bn-profile": profile,
        "--bn-max-examples": max_examples,
        "--bn-requirement": requirement,
        "--bn-seed": seed,
        "--bn-record": record,
    }
    # This process has imported bn_spec before pytest could rewrite it; nothing in it asserts.
    call = [*_suite(), "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    call += [f"--bn-backend={name}" for name in own]
    for option, value in options.items():
        if value is not None:
            call += [option, str(value)]
    if workers is not None:
        call += ["--dist", "worksteal"]  # cells differ in cost; an idle worker takes over from a busy one
    sys.exit(_pytest([*call, *passed_on]))


def _split(arguments: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Split at the first argument that is an option: backends before it, pytest's arguments from it on."""
    first = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
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
    code = pytest.main(call, plugins=[keep])
    if code == pytest.ExitCode.USAGE_ERROR or keep.run is None:
        return UNUSABLE
    if code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR) and not keep.run.stopped:
        return INCOMPLETE
    failed_elsewhere = NEW_FINDING if code == pytest.ExitCode.TESTS_FAILED else CONFORMING
    return keep.run.exit_code or failed_elsewhere


AUDIT_FILE = Path(".bn_spec") / "audit.json"


@main.command()
@click.option("--specimen", metavar="GLOB", default="*", help="Look at the specimens that match only.")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), default="ci", help="How hard to look (default: ci).")
@click.option("-n", "workers", metavar="N|auto", default="1", help="Worker processes.")
@click.option("--full", is_flag=True, help="Let every requirement look at every specimen.")
@click.option("--seed", type=int, default=0, help="Seed of the run.")
@click.option("--output", type=click.Path(path_type=Path), default=AUDIT_FILE, help=f"Default: {AUDIT_FILE}.")
def audit(specimen: str, profile: str, workers: str, full: bool, seed: int, output: Path) -> None:
    """Check the suite itself: run it against the specimens, faulty and sound.

    Prints which requirements kill each faulty specimen, after how many examples and seconds, and writes it as JSON.

    Exit codes: 0 all faulty ones are caught and no sound one is; 1 one survives or is flagged; 2 a wrong option.
    """
    from .audit import Report
    from .audit import audit as audited
    from .specimens import SPECIMENS

    names = [name for name in SPECIMENS if fnmatchcase(name, specimen)]
    if not names:
        raise click.UsageError(f"--specimen {specimen!r} matches none of {len(SPECIMENS)} specimens")
    if workers != "auto" and not (workers.isdecimal() and int(workers)):
        raise click.UsageError(f"-n {workers!r}; allowed: a number of workers, or auto")
    found = []
    count = (os.cpu_count() or 1) if workers == "auto" else int(workers)
    for number, each in enumerate(audited(names, profile, full=full, seed=seed, workers=count), 1):
        found.append(each)
        verdict = "as it should be" if each.right else "FLAGGED" if each.sound else "SURVIVES"
        click.echo(f"[{number:>3} of {len(names)}] {each.specimen}: {verdict}, {each.seconds:.1f} s", err=True)
    report = Report(tuple(sorted(found, key=lambda each: names.index(each.specimen))), full)
    for line in report.lines():
        click.echo(line)
    report.save(output)
    click.echo(f"written to {output}")
    sys.exit(NEW_FINDING if report.survivors or report.flagged else CONFORMING)


@main.command()
def backends() -> None:
    """List the registered backends: version, device, claims, or why they do not load."""
    table = Table("backend", "version and device", "claims", box=None, pad_edge=False)
    broken = False
    for name, entry in registered().items():
        try:
            backend = load(name)
        except UnavailableBackend as error:
            table.add_row(name, f"not available: {error}", "")
        except BackendError as error:
            broken = True
            table.add_row(name, f"BROKEN ({entry.value}): {error}", "")
        else:
            table.add_row(name, _plain(backend.description), _plain(_claims(backend)))
    Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False).print(table)
    sys.exit(UNUSABLE if broken else 0)


def _plain(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _claims(backend: Backend) -> str:
    claims = backend.capabilities
    usual = vars(Capabilities())
    changed = {name: getattr(claims, name) for name, value in usual.items() if getattr(claims, name) is (not value)}
    arithmetic = [f"{name} {getattr(claims, name)}" for name in ARITHMETIC if getattr(claims, name) != usual[name]]
    more, less = ([name for name, value in changed.items() if value is wanted] for wanted in (True, False))
    flags = [f"{word} {', '.join(names)}" for word, names in (("with", more), ("without", less)) if names]
    return "; ".join([", ".join(claims.dtypes), claims.grade, *arithmetic, *flags])


ARITHMETIC = ("summation", "statistics", "elementwise")
"""Claims about the arithmetic that are told where they differ from the usual ones."""


if __name__ == "__main__":
    main()
