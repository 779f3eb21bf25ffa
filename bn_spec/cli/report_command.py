"""``bn-spec report``: write reports of runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
"""Default folder of the reports."""


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
    help="Formats to write, separated by commas (default: all).",
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=OUTPUT,
    help=f"Folder to write to (default: {OUTPUT}).",
)
def report(runs: tuple[Path, ...], formats: tuple[str, ...], output: Path) -> None:
    """Write reports of runs: a page, a Markdown summary for CI, a merged run.json, and a badge.

    A RUN is a run.json file, or the folder that has one (default: .bn_spec). Several runs are
    merged into one, such as runs of different backends or parts of the suite. If two runs judge
    the same check, the later RUN counts.

    Exit codes: 0 conforming, known failures apart; 1 a finding, or a fault of a run; 2 a wrong
    option, or a file that cannot be read or written; 3 an incomplete run; 5 nothing tested.
    """
    paths = runs or (Path(FOLDER),)
    try:
        whole = merged({str(path): read(path) for path in paths})
    except RunFileError as error:
        raise click.UsageError(in_a_line(str(error))) from None
    if "json" in formats:
        _refuse_to_overwrite(paths, output / NAME)
    try:
        written = write(whole, formats, output)
    except OSError as error:
        raise click.UsageError(f"cannot write the reports: {error}") from None
    for backend in View(whole.run).backends:
        click.echo(in_a_line(verdict(backend.backend, backend.records)))
    for sentence in (*whole.notes, *whole.run.faults, *whole.run.incomplete):
        click.echo(in_a_line(sentence))
    click.echo(f"written: {', '.join(map(str, written))}")
    sys.exit(whole.run.exit_code)


def _refuse_to_overwrite(paths: Sequence[Path], target: Path) -> None:
    """Raise if a merged run would replace one of the runs that it is made of."""
    # A single run is written as it was read, so replacing its file loses nothing.
    if len(paths) > 1 and target.resolve() in [located(path).resolve() for path in paths]:
        raise click.UsageError(
            f"the merged run would overwrite {target}, which is one of the runs;"
            " choose another --output"
        )
