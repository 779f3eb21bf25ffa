"""``bn-spec replay``: plays a stored case again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from bn_spec.errors import BackendError, BnSpecError, CaseFileError
from bn_spec.report.records import CONFORMING, NEW_FINDING, UNUSABLE
from bn_spec.tools.stored_cases import FOLDER, Store


@click.command()
@click.argument("case")
@click.option(
    "--backend",
    metavar="NAME",
    help="Play it on this backend (default: the one that it was found on).",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Play it in a process of its own, as those that kill one always are.",
)
@click.option(
    "--report-dir", type=click.Path(path_type=Path), default=FOLDER, help=f"Default: {FOLDER}."
)
def replay(case: str, backend: str | None, isolate: bool, report_dir: Path) -> None:
    """Play a stored case again: CASE is an id that a finding shows, the first letters of one, or a file.

    Says whether the requirement that was violated is so still. A case that passes on the backend
    that it was found on is removed from the folder.

    Exit codes: 0 it passes, or fails as it is known to; 1 it fails still; 2 it cannot be played.
    """
    from bn_spec.tools.replaying import Replay  # draws in Hypothesis

    store = Store(report_dir / "cases")
    try:
        path = store.find(case)
        stored = store.load(path)
        kept = path.resolve().parent == store.folder.resolve()
        if backend is None and not kept and not stored.is_registered:
            _give_up(
                f"{path} says that it was found on {stored.address!r}; name it with --backend to load it"
            )
        done = Replay.of(stored, backend or stored.address, isolate=isolate)
    except FileNotFoundError:
        _give_up(f"there is no file {case}")
    except (CaseFileError, BackendError) as error:
        _give_up(str(error))
    except BnSpecError as error:
        _give_up(f"cannot replay {case}: {error}")
    if done.violation is not None:
        click.echo(str(done.violation))
        click.echo(f"\nstill failing: {stored.requirement} on {done.backend.name}")
        sys.exit(NEW_FINDING)
    if done.known:
        click.echo(
            f"known failure of {stored.requirement} on {done.backend.name}: {done.known[0].reason}"
        )
    elif kept and done.backend.name == stored.backend:
        store.remove(stored.id)
        click.echo(
            f"fixed: {stored.requirement} holds on {done.backend.name} now; {path} is removed"
        )
    else:
        click.echo(f"passes: {stored.requirement} holds for this case on {done.backend.name}")
    sys.exit(CONFORMING)


def _give_up(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(UNUSABLE)
