"""Processes that die: who plays the cases, what was noted of them, and what is told of a death."""

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
    """Return, by address, who plays the cases of the backends, and who those that have killed a process."""
    from bn_spec.play.flight import Recorded, Recorder
    from bn_spec.play.isolated import AVAILABLE, Isolated

    if STAND_INS not in config.stash:
        limits, backends = options.limits(config), setup.selection(config).backends
        isolated: dict[str, Backend] = {}
        if AVAILABLE:
            isolated = {
                address: Isolated(backend, address, limits) for address, backend in backends.items()
            }
        playing = isolated
        if not options.isolates(config):
            playing = {}
            if name := options.handed(config).get("bn_flight", flight_name("main")):
                recorder = config.stash[RECORDER] = Recorder(flight_folder(config) / name)
                watched = limits if setup.is_worker(config) else None
                playing = {
                    address: Recorded(backend, recorder, watched)
                    for address, backend in backends.items()
                }
        config.stash[STAND_INS] = playing, isolated
    return config.stash[STAND_INS]


def flight_folder(config: pytest.Config) -> Path:
    """Return where the notes of what is being played lie."""
    from bn_spec.play.flight import FOLDER

    return options.report_dir(config) / FOLDER


def flight_name(worker: str) -> str:
    """Return what the note of a process is called: its first part says who must live so that it is looked after."""
    return f"{os.getpid()}-{worker}"


def after_a_crash(config: pytest.Config) -> bool:
    """Whether a worker has died, so that those that take its place play elsewhere."""
    from bn_spec.play.isolated import AVAILABLE

    return AVAILABLE and bool(config.stash[setup.RUN].lost)


def recover(config: pytest.Config) -> None:
    """Keep what an earlier run was playing when it died, to be played first in this one, and say so."""
    from bn_spec.play.flight import left_behind

    if setup.is_worker(config):
        return
    for path, note in left_behind(flight_folder(config)):
        if note and note.playing:
            from bn_spec.tools.crashes import noted_violation

            kept = outcomes.kept(config, noted_violation(note))
            for name, content in kept.cases.items():
                options.store(config).put(name, b64decode(content))
            first = f"the case is played first, in a process of its own: {', '.join(kept.cases)}"
            then = first if kept.cases else "the case is too large to be kept"
            config.stash[setup.RUN].notes.append(
                f"an earlier run died in {note.about['test']}; {then}"
            )
        path.unlink(missing_ok=True)


def crash(config: pytest.Config, worker: str) -> tuple[str, Record, dict[str, str]] | None:
    """Return how the death of a worker reads, and what is sent of its cell; None if it has noted nothing."""
    from bn_spec.play.flight import read
    from bn_spec.play.isolated import AVAILABLE, Isolated
    from bn_spec.tools.crashes import crashed_search, noted_violation, reproduced
    from bn_spec.tools.diagnosis import explain

    note = read(flight_folder(config) / flight_name(worker))
    if note is None:
        return None
    start, by = time.monotonic(), setup.judged_by(config)
    address = note.about["address"]
    with closing(
        Isolated(setup.selection(config).backends[address], address, options.limits(config))
    ) as isolated:
        search = crashed_search(note, isolated, by["examples"], by["seed"], explain)
        found = reproduced(note, search) if AVAILABLE else noted_violation(note)
    kept = outcomes.kept(config, found)
    how = found.finding.discrepancy.got if found else "in a case too large to note"
    text = f"a worker died: {how}" + (f"\n{kept.error}" if kept.error else "")
    record = outcomes.recorded(search.cell, CRASHED, text, time.monotonic() - start, kept)
    return text, record, kept.cases
