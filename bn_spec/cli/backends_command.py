"""``bn-spec backends``: lists the registered backends."""

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
    """List the registered backends with version, device and claims, or why they do not load.

    A backend whose framework or device is missing on this machine is not available. A backend that
    does not load for another reason is broken.

    Exit codes: 0 no backend is broken; 2 a backend is broken.
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
    """Return a text of a backend without control characters, which could change the terminal."""
    return "".join(character for character in text if character.isprintable())


def _claims(backend: Backend) -> str:
    """Return the dtypes, the grade, and the claims that differ from the defaults."""
    claims = vars(backend.capabilities)
    defaults = vars(Capabilities())
    parts = [", ".join(backend.capabilities.dtypes), backend.capabilities.grade]
    parts += [f"{name} {claims[name]}" for name in ARITHMETIC if claims[name] != defaults[name]]
    more = [name for name, value in defaults.items() if value is False and claims[name] is True]
    less = [name for name, value in defaults.items() if value is True and claims[name] is False]
    if more:
        parts.append(f"with {', '.join(more)}")
    if less:
        parts.append(f"without {', '.join(less)}")
    return "; ".join(parts)


ARITHMETIC = ("summation", "statistics", "elementwise")
"""Claims about the arithmetic; the list shows them where they differ from the defaults."""
