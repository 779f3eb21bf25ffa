"""``bn-spec requirements``: prints the numbered specification."""

from __future__ import annotations

import json
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
    help="Print JSON with all details of each requirement.",
)
def requirements(pattern: str, as_json: bool) -> None:
    """Print the specification, or one requirement in detail.

    ID is one requirement (RUN-03), a chapter (RUN) or a glob ('*-01'). A single requirement is
    printed with the claims that it needs, the property that judges it and the faults that it must
    catch; several are printed as a table.

    Exit codes: 0 printed; 2 there is no such requirement.
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
    chapter = ""
    for page in found:
        each = page.requirement
        if each.chapter != chapter:
            chapter = each.chapter
            click.echo(f"\n{CHAPTERS[chapter]}")
        click.echo(f"  {each.id}  {each.level:<9}  {each.sentence}")
