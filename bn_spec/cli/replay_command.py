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
    help="Play the case on this backend (default: the one on which it failed).",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Run the backend in a process of its own, as for cases that end a process.",
)
@click.option(
    "--report-dir",
    type=click.Path(path_type=Path),
    default=FOLDER,
    help=f"Folder of the run that found the case (default: {FOLDER}).",
)
def replay(case: str, backend: str | None, isolate: bool, report_dir: Path) -> None:
    """Play a stored case again.

    CASE is the id that a finding shows, the first letters of an id, or a file.

    Prints whether the case still violates its requirement. If the case passes on the backend on
    which it failed, its file is removed from the folder.

    Exit codes: 0 the case passes, or fails as a known failure; 1 the case still fails; 2 the case
    cannot be played.
    """
    # Imported here, since it imports Hypothesis, which other commands do without.
    from bn_spec.tools.replaying import Replay

    store = Store(report_dir / "cases")
    try:
        path = store.find(case)
        stored = store.load(path)
        kept = path.resolve().parent == store.folder.resolve()
        if backend is None and not kept and not stored.is_registered:
            # Loading a backend runs its code: do that for a file of unknown origin only if asked.
            _give_up(
                f"{path} says that it was found on {stored.address!r};"
                " name it with --backend to load it"
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
            f"fixed: {stored.requirement} holds on {done.backend.name} now; {path} has been removed"
        )
    else:
        click.echo(f"passes: {stored.requirement} holds for this case on {done.backend.name}")
    sys.exit(CONFORMING)


def _give_up(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(UNUSABLE)
