"""``bn-spec compare``: show what changed between two runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bn_spec.errors import RunFileError
from bn_spec.report.comparison import Comparison
from bn_spec.report.records import CONFORMING, NEW_FINDING
from bn_spec.report.text import in_a_line
from bn_spec.report.writers import read


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Show what changed between two runs; BEFORE and AFTER are run.json files or their folders.

    Shows different versions and settings; checks whose status changed, worse ones first; findings
    that are new or gone; grades; and err/bound that grew or shrank by a factor of 1.5 or more.

    Exit codes: 0 no check got worse; 1 a check that passed, or whose failure was known, now fails,
    or a check is no longer judged; 2 a file cannot be read.
    """
    try:
        comparison = Comparison(read(before), read(after))
    except RunFileError as error:
        raise click.UsageError(in_a_line(str(error))) from None
    for line in comparison.lines():
        click.echo(line)
    sys.exit(NEW_FINDING if comparison.worse else CONFORMING)
