"""``bn-spec vectors``: test vectors for kernels in other languages."""

from __future__ import annotations

from pathlib import Path

import click

from bn_spec.case.dtypes import DTYPES
from bn_spec.errors import ConfigError
from bn_spec.oracle.bounds import GRADES

FORMATS = ("safetensors", "npz")


@click.group()
def vectors() -> None:
    """Test vectors for kernels that Python cannot reach."""


@vectors.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], help="Default: safetensors."
)
@click.option(
    "--requirement",
    metavar="GLOB",
    default="*",
    help="Cases of these requirements only, as in 'RUN-*'.",
)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(tuple(DTYPES)),
    multiple=True,
    help="Repeatable; float32.",
)
@click.option(
    "--count",
    type=click.IntRange(0),
    default=3,
    help="Cases drawn per requirement and dtype (default: 3).",
)
@click.option("--seed", type=int, default=0, help="Another seed draws other cases.")
@click.option(
    "--grade",
    type=click.Choice(GRADES),
    default="welford",
    help="Numerical class, which sets the bounds.",
)
def export(
    folder: Path,
    form: str,
    requirement: str,
    dtypes: tuple[str, ...],
    count: int,
    seed: int,
    grade: str,
) -> None:
    """Write test vectors to a new folder DIR: cases of the suite, and what a kernel must give on each.

    A kernel passes if |got - expected| <= bound for every element that is judged. docs/vectors.md
    of the repository describes the files, and examples/vectors reads them in C++.

    Exit codes: 0; 2 an option is wrong, or there is such a folder.
    """
    from bn_spec.tools import vectors as drawn
    from bn_spec.tools.vector_files import export as exported

    try:
        claims = drawn.claims_of(dtypes or ("float32",), grade)
        number = exported(
            drawn.vectors(claims, requirement, count, seed), folder, form, claims, seed
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"{folder} cannot be written: {error}") from None
    for path in sorted(folder.iterdir()):
        click.echo(f"{path}  {path.stat().st_size:,} bytes")
    click.echo(f"{number} vectors")
