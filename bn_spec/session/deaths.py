"""Processes that die: where cases are played, how they are noted, and how a death is reported."""

from __future__ import annotations

import os
import time
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bn_spec.report.records import CRASHED, Record
from bn_spec.session import options, outcomes, setup

if TYPE_CHECKING:
    from bn_spec.backend.contract import Backend

STAND_INS = pytest.StashKey[tuple[dict[str, Any], dict[str, Any]]]()
RECORDER = pytest.StashKey[Any]()


def stand_ins(config: pytest.Config) -> tuple[dict[str, Backend], dict[str, Backend]]:
    """Return the proxies through which the backends are played, by address.

    Returns:
        The proxies for all cases (a backend without one is played directly), and the isolated
        proxies for cases that have killed a process.

    """
    if STAND_INS not in config.stash:
        isolated = _isolated(config)
        playing = isolated if options.isolates(config) else _recorded(config)
        config.stash[STAND_INS] = playing, isolated
    return config.stash[STAND_INS]


def _isolated(config: pytest.Config) -> dict[str, Backend]:
    """Return proxies that play each backend in a process of its own, where that is possible."""
    from bn_spec.play.isolated import AVAILABLE, Isolated

    if not AVAILABLE:
        return {}
    limits = options.limits(config)
    backends = setup.selection(config).backends
    return {address: Isolated(backend, address, limits) for address, backend in backends.items()}


def _recorded(config: pytest.Config) -> dict[str, Backend]:
    """Return proxies that note each case before playing it in this process."""
    from bn_spec.play.flight import Recorded, Recorder

    name = options.from_controller(config).get("bn_flight", flight_name("main"))
    if not name:
        # A worker on another machine: nobody would read its notes.
        return {}
    recorder = config.stash[RECORDER] = Recorder(flight_folder(config) / name)
    # Only a worker is ended for taking too long: the controller sees and reports its death.
    limits = options.limits(config) if setup.is_worker(config) else None
    backends = setup.selection(config).backends
    return {address: Recorded(backend, recorder, limits) for address, backend in backends.items()}


def flight_folder(config: pytest.Config) -> Path:
    """Return the folder in which processes note the case that they are playing."""
    from bn_spec.play.flight import FOLDER

    return options.report_dir(config) / FOLDER


def flight_name(worker: str) -> str:
    """Return the file name of the note of a worker; it starts with the id of this process.

    A later run takes a note for abandoned once that process has ended.
    """
    return f"{os.getpid()}-{worker}"


def after_a_crash(config: pytest.Config) -> bool:
    """Whether a worker has died, so that its replacement must isolate the backends."""
    from bn_spec.play.isolated import AVAILABLE

    return AVAILABLE and bool(config.stash[setup.RUN].lost)


def recover(config: pytest.Config) -> None:
    """Store the cases that earlier runs were playing when they died, and add notes to the run.

    This run plays stored cases first.
    """
    from bn_spec.play.flight import left_behind

    if setup.is_worker(config):
        return
    for path, note in left_behind(flight_folder(config)):
        if note and note.playing:
            from bn_spec.tools.crashes import noted_violation

            kept = outcomes.kept(config, noted_violation(note))
            for name, content in kept.cases.items():
                options.store(config).put(name, b64decode(content))
            then = "its case is too large to be stored"
            if kept.cases:
                names = ", ".join(kept.cases)
                then = f"its case is played first, in a process of its own: {names}"
            config.stash[setup.RUN].notes.append(
                f"an earlier run died in {note.about['test']}; {then}"
            )
        path.unlink(missing_ok=True)


def crash(config: pytest.Config, worker: str) -> tuple[str, Record, dict[str, str]] | None:
    """Reproduce the death of a worker.

    Returns:
        The text of the failure, the record of the cell, and the case files to keep. None if the
        worker left no note.

    """
    from bn_spec.play.flight import read
    from bn_spec.play.isolated import AVAILABLE, Isolated
    from bn_spec.tools.crashes import crashed_search, noted_violation, reproduced
    from bn_spec.tools.diagnosis import explain

    note = read(flight_folder(config) / flight_name(worker))
    if note is None:
        return None
    start, by = time.monotonic(), setup.judged_by(config)
    address = note.about["address"]
    backend = setup.selection(config).backends[address]
    with closing(Isolated(backend, address, options.limits(config))) as isolated:
        search = crashed_search(note, isolated, by["examples"], by["seed"], explain)
        found = reproduced(note, search) if AVAILABLE else noted_violation(note)
    kept = outcomes.kept(config, found)
    how = found.finding.discrepancy.got if found else "in a case too large to note"
    text = f"a worker died: {how}"
    if kept.error:
        text += f"\n{kept.error}"
    record = outcomes.recorded(search.cell, CRASHED, text, time.monotonic() - start, kept)
    return text, record, kept.cases
