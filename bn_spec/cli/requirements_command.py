"""``bn-spec requirements``: the numbered specification, and what stands behind each number."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

import click

from bn_spec.errors import ConfigError
from bn_spec.specification.requirement import CHAPTERS, SPECIFICATION

if TYPE_CHECKING:
    from bn_spec.tools.requirement_pages import RequirementPage


@click.command()
@click.argument("pattern", metavar="[ID]", default="*")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, with all that there is of each requirement.",
)
def requirements(pattern: str, as_json: bool) -> None:
    """Print the specification, or all about one requirement.

    ID is that of one requirement (RUN-03), which is printed with what it needs, what judges it and
    the faults that it must catch; or a chapter (RUN), or a glob ('*-01'), which is printed as a
    table.

    Exit codes: 0; 2 there is no such requirement.
    """
    from bn_spec.tools.requirement_pages import document, pages

    try:
        found = pages(pattern)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(document(found), indent=1, ensure_ascii=False))
    elif len(found) == 1:
        click.echo("\n".join(found[0].lines()))
    else:
        _print_table(found)


def _print_table(found: list[RequirementPage]) -> None:
    click.echo(f"bn-spec requirements, version {SPECIFICATION}")
    for chapter, those in groupby(
        (entry.requirement for entry in found), key=lambda each: each.chapter
    ):
        click.echo(f"\n{CHAPTERS[chapter]}")
        for each in those:
            click.echo(f"  {each.id}  {each.level:<9}  {each.sentence}")
