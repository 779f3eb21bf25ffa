"""``bn-spec vectors``: writes test vectors for kernels in other languages."""

from __future__ import annotations

from pathlib import Path

import click

from bn_spec.case.dtypes import DTYPES
from bn_spec.errors import ConfigError
from bn_spec.oracle.bounds import GRADES

FORMATS = ("safetensors", "npz")


@click.group()
def vectors() -> None:
    """Write test vectors for kernels that Python cannot call."""


@vectors.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    help="File format of the arrays (default: safetensors).",
)
@click.option(
    "--requirement",
    metavar="GLOB",
    default="*",
    help="Write only the cases of the requirements that match, as in 'RUN-*'.",
)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(tuple(DTYPES)),
    multiple=True,
    help="Dtype of the cases (repeatable; default: float32).",
)
@click.option(
    "--count",
    type=click.IntRange(0),
    default=3,
    help="Number of cases drawn per requirement and dtype (default: 3).",
)
@click.option("--seed", type=int, default=0, help="Seed of the drawn cases (default: 0).")
@click.option(
    "--grade",
    type=click.Choice(GRADES),
    default="welford",
    help="Numerical class of the variance, which sets the bounds (default: welford).",
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
    """Write cases of the suite, with their expected results, to a new folder DIR.

    A kernel passes if |got - expected| <= bound for every judged element. In the repository,
    docs/vectors.md describes the files, and examples/vectors reads them in C++.

    Exit codes: 0 written; 2 invalid option, or the folder exists.
    """
    # Imported here, since they import Hypothesis, which other commands do without.
    from bn_spec.tools.vector_files import write_vectors
    from bn_spec.tools.vectors import claims_of
    from bn_spec.tools.vectors import vectors as vectors_of

    try:
        claims = claims_of(dtypes or ("float32",), grade)
        found = vectors_of(claims, requirement, count, seed)
        number = write_vectors(found, folder, form, claims, seed)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"{folder} cannot be written: {error}") from None
    for path in sorted(folder.iterdir()):
        click.echo(f"{path}  {path.stat().st_size:,} bytes")
    click.echo(f"{number} vectors")
