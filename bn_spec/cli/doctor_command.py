"""``bn-spec doctor``: looks at a backend, and proposes what it should claim."""

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
    """Look at a backend that does not work yet, or that could claim more.

    A line for each thing that is looked at, as it happens: whether it works, whether what BACKEND
    claims holds on a few examples, and what to do next. At the end, a declaration of Capabilities
    to paste. It is quick and lenient; `bn-spec run` is the judge.

    Exit codes: 0 what is claimed holds, though there may be more to claim; 1 something does not; 2
    BACKEND does not load.
    """
    from bn_spec.tools.doctor import (  # Hypothesis comes with it, which other commands do without
        PROBLEM,
        Look,
        Patient,
        examination,
    )

    click.echo("loads".ljust(_NAME), nl=False)
    try:
        backend = load(name)
    except BackendError as error:
        _show(Look(PROBLEM, str(error), "see `bn-spec backends` for those that load"))
        sys.exit(UNUSABLE)
    _show(Look("ok", f"{backend.name}: {backend.description}"))
    patient, problems, last = Patient(backend, name), 0, ""
    for last, looks in examination(patient):
        click.echo(
            last.ljust(_NAME), nl=False
        )  # before it is looked at: a backend may take the process with it
        for number, look in enumerate(looks):
            click.echo(" " * _NAME if number else "", nl=False)
            _show(look)
            problems += look.verdict == PROBLEM
    if last == "forward":
        click.echo("\nNo forward gives an output yet; the rest is looked at once one does.")
        sys.exit(NEW_FINDING)
    _propose(patient, problems)
    sys.exit(NEW_FINDING if problems else CONFORMING)


def _show(look: Look) -> None:
    """Print a look behind the name of its probe, and what to do next below it."""
    hanging = " " * (_NAME + _VERDICT)
    first, *others = wrap(look.text, _WIDTH - len(hanging), break_on_hyphens=False) or [""]
    click.echo(f"{look.verdict:<{_VERDICT}}{first}")
    for line in [*others, *([f"→ {look.todo}"] if look.todo else [])]:
        click.echo(hanging + line)


def _propose(patient: Patient, problems: int) -> None:
    click.echo(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'}.", nl=False)
    if patient.proposed == patient.declared:
        click.echo(" What is claimed is what a few examples show:\n")
    else:
        click.echo(" What a few examples show, for you to decide on, is this:\n")
    for line in declaration(patient.proposed, patient.declared):
        click.echo(f"  {line}")
