"""``bn-spec audit``: runs the suite against the specimens."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import click

from bn_spec.report.records import CONFORMING, NEW_FINDING
from bn_spec.suite.profiles import PROFILES

AUDIT_FILE = Path(".bn_spec") / "audit.json"


@click.command()
@click.option(
    "--specimen", metavar="GLOB", default="*", help="Audit only the specimens that match."
)
@click.option(
    "--profile",
    type=click.Choice(tuple(PROFILES)),
    default="ci",
    help="Number of examples and whether slow checks run (default: ci).",
)
@click.option(
    "-n", "workers", metavar="N|auto", default="1", help="Number of worker processes (default: 1)."
)
@click.option("--full", is_flag=True, help="Judge every specimen by every requirement.")
@click.option("--seed", type=int, default=0, help="Seed of the run (default: 0).")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=AUDIT_FILE,
    help=f"JSON file for the results (default: {AUDIT_FILE}).",
)
def audit(specimen: str, profile: str, workers: str, full: bool, seed: int, output: Path) -> None:
    """Check the suite itself: run it against its faulty and sound specimens.

    Prints which requirements catch each faulty specimen, and after how many examples and seconds.
    Writes the same as JSON.

    Exit codes: 0 all faulty specimens are caught and no sound one is flagged; 1 a faulty specimen
    survives or a sound one is flagged; 2 invalid option.
    """
    from bn_spec.specimens import SPECIMENS
    from bn_spec.tools.audit import Report
    from bn_spec.tools.audit import audit as audited

    names = [name for name in SPECIMENS if fnmatchcase(name, specimen)]
    if not names:
        raise click.UsageError(
            f"--specimen {specimen!r} matches none of {len(SPECIMENS)} specimens"
        )
    if workers != "auto" and not (workers.isdecimal() and int(workers)):
        raise click.UsageError(f"-n {workers!r}; allowed: a number of workers, or auto")
    found = []
    count = (os.cpu_count() or 1) if workers == "auto" else int(workers)
    for number, each in enumerate(audited(names, profile, full=full, seed=seed, workers=count), 1):
        found.append(each)
        verdict = "as it should be"
        if not each.right:
            verdict = "FLAGGED" if each.sound else "SURVIVES"
        click.echo(
            f"[{number:>3} of {len(names)}] {each.specimen}: {verdict}, {each.seconds:.1f} s",
            err=True,
        )
    report = Report(tuple(sorted(found, key=lambda each: names.index(each.specimen))), full)
    for line in report.lines():
        click.echo(line)
    report.save(output)
    click.echo(f"written to {output}")
    sys.exit(NEW_FINDING if report.survivors or report.flagged else CONFORMING)
