"""``bn-spec report``: renders the records of runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bn_spec.errors import RunFileError
from bn_spec.report.merge import merged
from bn_spec.report.run_file import NAME
from bn_spec.report.table import verdict
from bn_spec.report.text import in_a_line
from bn_spec.report.view import View
from bn_spec.report.writers import WRITERS, located, read, write
from bn_spec.tools.stored_cases import FOLDER

OUTPUT = Path(FOLDER) / "report"


def _formats(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if unknown := [name for name in names if name not in WRITERS]:
        raise click.BadParameter(f"{', '.join(map(repr, unknown))}; allowed: {', '.join(WRITERS)}")
    return names


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "formats",
    metavar=",".join(WRITERS),
    default=",".join(WRITERS),
    callback=_formats,
    help="What to write, with commas between (default: all).",
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=OUTPUT,
    help=f"Folder (default: {OUTPUT}).",
)
def report(runs: tuple[Path, ...], formats: tuple[str, ...], output: Path) -> None:
    """Write reports of runs: a page, Markdown for a CI summary, one record of all of them, and a badge.

    A RUN is the run.json of a run, or the folder that holds it (default: .bn_spec). Several are
    made one, as when backends or shards of the suite were judged apart; of a cell that is in two,
    the later file's counts.

    Exit codes: 0 conforming, known failures apart; 1 a finding, or a fault of a run; 2 a wrong
    option, or a file that cannot be read or written; 3 an incomplete run; 5 nothing tested.
    """
    paths = runs or (Path(FOLDER),)
    try:
        whole = merged({str(path): read(path) for path in paths})
    except RunFileError as error:
        raise click.UsageError(in_a_line(str(error))) from None
    if (
        len(paths) > 1
        and "json" in formats
        and any(_same(located(path), output / NAME) for path in paths)
    ):
        raise click.UsageError(
            f"{output / NAME} is one of these runs and would be lost; choose another --output"
        )
    try:
        written = write(whole, formats, output)
    except OSError as error:
        raise click.UsageError(f"the reports cannot be written: {error}") from None
    for backend in View(whole.run).backends:
        click.echo(in_a_line(verdict(backend.backend, backend.records)))
    for sentence in (*whole.notes, *whole.run.faults, *whole.run.incomplete):
        click.echo(in_a_line(sentence))
    click.echo(f"written: {', '.join(map(str, written))}")
    sys.exit(whole.run.exit_code)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
