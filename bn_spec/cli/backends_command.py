"""``bn-spec backends``: what is registered."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.registry import load, registered
from bn_spec.errors import BackendError, UnavailableBackend
from bn_spec.report.records import UNUSABLE


@click.command()
def backends() -> None:
    """List the registered backends: version, device, claims, or why they do not load.

    Exit codes: 0 all load, or lack what they need on this machine; 2 one is broken.
    """
    table = Table("backend", "version and device", "claims", box=None, pad_edge=False)
    broken = False
    for name, entry in registered().items():
        try:
            backend = load(name)
        except UnavailableBackend as error:
            table.add_row(name, f"not available: {error}", "")
        except BackendError as error:
            broken = True
            table.add_row(name, f"BROKEN ({entry.value}): {error}", "")
        else:
            table.add_row(name, _plain(backend.description), _plain(_claims(backend)))
    Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False).print(table)
    sys.exit(UNUSABLE if broken else 0)


def _plain(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _claims(backend: Backend) -> str:
    claims = backend.capabilities
    usual = vars(Capabilities())
    changed = {
        name: getattr(claims, name)
        for name, value in usual.items()
        if getattr(claims, name) is (not value)
    }
    arithmetic = [
        f"{name} {getattr(claims, name)}"
        for name in ARITHMETIC
        if getattr(claims, name) != usual[name]
    ]
    more, less = (
        [name for name, value in changed.items() if value is wanted] for wanted in (True, False)
    )
    flags = [
        f"{word} {', '.join(names)}" for word, names in (("with", more), ("without", less)) if names
    ]
    return "; ".join([", ".join(claims.dtypes), claims.grade, *arithmetic, *flags])


ARITHMETIC = ("summation", "statistics", "elementwise")
"""Claims about the arithmetic that are told where they differ from the usual ones."""
