"""``bn-spec new-backend``: creates a package that tests a kernel with bn-spec."""

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
    help="Folder in which the package folder is created (default: the current folder).",
)
def new_backend(name: str, output: Path) -> None:
    """Create a working package NAME that tests a kernel, for you to put your own kernel into.

    The package contains a kernel of three NumPy functions, the entry point under which `bn-spec run
    NAME` finds it, the suite as tests, a file for known failures and a CI workflow. No file is
    overwritten.

    Exit codes: 0 created; 2 invalid name, or the folder exists.
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
