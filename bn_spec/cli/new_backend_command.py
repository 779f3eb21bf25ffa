"""``bn-spec new-backend``: writes a package that puts a kernel under test."""

from __future__ import annotations

from pathlib import Path

import click

from bn_spec.errors import ConfigError
from bn_spec.tools.scaffold import write


@click.command()
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="The folder in which the package gets one of its own (default: here).",
)
def new_backend(name: str, output: Path) -> None:
    """Write a working package NAME that puts a kernel under test, for you to fill in.

    It has the kernel, as three NumPy functions, the entry point under which `bn-spec run NAME`
    finds it, the suite as tests, a file for known failures and a CI workflow. Nothing is
    overwritten.

    Exit codes: 0; 2 the name is none, or there is such a folder.
    """
    try:
        folder = write(name, output)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"{output / name} cannot be written: {error}") from None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        click.echo(path)
    click.echo(f"\nNext:\n  pip install -e '{folder}[test]'\n  bn-spec run {name} -n auto")
