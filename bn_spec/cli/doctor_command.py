"""``bn-spec doctor``: examines a backend, and proposes claims for it."""

from __future__ import annotations

import sys
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from bn_spec.backend.declaration import declaration
from bn_spec.backend.registry import load
from bn_spec.errors import BackendError
from bn_spec.report.records import CONFORMING, NEW_FINDING, UNUSABLE

if TYPE_CHECKING:
    from bn_spec.tools.doctor import Look, Patient

_NAME, _VERDICT, _WIDTH = 22, 12, 118


@click.command()
@click.argument("name", metavar="BACKEND")
def doctor(name: str) -> None:
    """Examine a backend that does not work yet, or that could claim more.

    Prints a line for each probe as it runs: whether the claim of BACKEND holds on a few examples,
    and what to do next. At the end, prints a declaration of Capabilities to paste. The examination
    is quick and lenient; only `bn-spec run` decides whether a backend conforms.

    Exit codes: 0 all claims hold, though more may be possible; 1 a problem was found; 2 BACKEND
    does not load.
    """
    # Imported here, since it imports Hypothesis, which other commands do without.
    from bn_spec.tools.doctor import OK, PROBLEM, Look, Patient, examination

    click.echo("loads".ljust(_NAME), nl=False)
    try:
        backend = load(name)
    except BackendError as error:
        _show(Look(PROBLEM, str(error), "see `bn-spec backends` for those that load"))
        sys.exit(UNUSABLE)
    _show(Look(OK, f"{backend.name}: {backend.description}"))
    patient, problems, last = Patient(backend, name), 0, ""
    for last, looks in examination(patient):
        # The name comes first, so that it is on the screen if the backend ends this process.
        click.echo(last.ljust(_NAME), nl=False)
        for number, look in enumerate(looks):
            if number:
                click.echo(" " * _NAME, nl=False)
            _show(look)
            problems += look.verdict == PROBLEM
    if last == "forward":
        click.echo("\nNo forward returns an output yet. The other probes run once one does.")
        sys.exit(NEW_FINDING)
    _propose(patient, problems)
    sys.exit(NEW_FINDING if problems else CONFORMING)


def _show(look: Look) -> None:
    """Print a look behind the name of its probe, and below it what to do next."""
    hanging = " " * (_NAME + _VERDICT)
    first, *others = wrap(look.text, _WIDTH - len(hanging), break_on_hyphens=False) or [""]
    click.echo(f"{look.verdict:<{_VERDICT}}{first}")
    if look.todo:
        others.append(f"→ {look.todo}")
    for line in others:
        click.echo(hanging + line)


def _propose(patient: Patient, problems: int) -> None:
    noun = "problem" if problems == 1 else "problems"
    click.echo(f"\n{problems or 'no'} {noun}.", nl=False)
    if patient.proposed == patient.declared:
        click.echo(" A few examples agree with your declaration:\n")
    else:
        click.echo(" A few examples suggest this declaration, for you to decide on:\n")
    for line in declaration(patient.proposed, patient.declared):
        click.echo(f"  {line}")
