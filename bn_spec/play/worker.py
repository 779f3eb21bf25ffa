"""The other side of :mod:`bn_spec.play.isolated`: a process that plays the cases that it is sent on one backend.

It trusts who sends them, and nothing that the backend does: whatever happens to this process is
seen from outside.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bn_spec.backend.contract import Backend
from bn_spec.backend.registry import load
from bn_spec.case.arrays import take_apart
from bn_spec.case.script import Case
from bn_spec.errors import BackendError
from bn_spec.play import wire
from bn_spec.play.observation import CONSTRUCTION, Died, Observation
from bn_spec.play.player import play, play_together

MIB = 2**20

COPIES = 32
"""Of the arrays of a case for which a backend has memory beyond its limit."""

GRACE = 30.0
"""Seconds that a case may take here beyond the limit of who sent it; by then nobody waits any more."""


def main(connection: int, note: int, address: str, mebibytes: int) -> None:
    """Load a backend, say whether that went well, and play what comes until nobody sends any more."""
    for inherited in (connection, note):
        os.set_inheritable(inherited, False)
    faulthandler.enable()
    with socket.socket(fileno=connection) as channel, mmap.mmap(note, mmap.PAGESIZE) as noted:
        try:
            backend = load(address)
        except BackendError as error:
            channel.sendall(wire.frame({"refused": [type(error).__name__, str(error)]}))
            return
        memory = _Memory(mebibytes)
        channel.sendall(wire.frame({"ready": os.getpid()}))
        while received := _received(channel):
            script, arrays = received
            cases = wire.to_cases(script["cases"], arrays)
            memory.allow(cases)
            signal.setitimer(
                signal.ITIMER_REAL, script["seconds"] + GRACE
            )  # so that an orphan ends
            observations = _played(cases, backend, script["looks"], noted)
            signal.setitimer(signal.ITIMER_REAL, 0)
            told, answered = wire.of_observations(observations, arrays)
            channel.sendall(
                wire.frame({"number": script["number"], "observations": told}, answered)
            )


def _played(
    cases: Sequence[Case], backend: Backend, looks: Sequence[str] | None, noted: mmap.mmap
) -> list[Observation]:
    """Return what was observed; without looks, the cases are played together."""

    def at_step(step: int) -> None:
        noted[0:4] = step.to_bytes(4, "little", signed=True)

    at_step(CONSTRUCTION)
    try:
        if looks is None:
            return play_together(cases, backend)
        return [play(case, backend, looks, at_step) for case in cases]
    except BaseException as error:  # noqa: BLE001 - a third party's layer may raise anything; it becomes data
        step = int.from_bytes(noted[0:4], "little", signed=True)
        return [
            Died(step, f"raised {type(error).__name__}, which ends a process").observation()
        ] * len(cases)


def _received(channel: socket.socket) -> tuple[Any, list[Any]] | None:
    """Return a request, or None if there will be none."""
    prefix = bytearray(wire.PREFIX.size)
    if not _filled(channel, prefix):
        return None
    header, memory = map(bytearray, wire.lengths(bytes(prefix)))
    return (
        wire.unframed(header, memory)
        if _filled(channel, header) and _filled(channel, memory)
        else None
    )


def _filled(channel: socket.socket, buffer: bytearray) -> bool:
    view = memoryview(buffer)
    while view:
        if not (count := channel.recv_into(view)):
            return False
        view = view[count:]
    return True


class _Memory:
    """The limit of the memory that the backend may allocate, beyond what this process has once it is loaded.

    Linux counts what can be written, not what is merely reserved, as frameworks do by the gigabyte.
    """

    def __init__(self, mebibytes: int) -> None:
        self.base = _data() + mebibytes * MIB
        self.limited = self.base > mebibytes * MIB > 0
        self.limit = 0

    def allow(self, cases: Sequence[Case]) -> None:
        """Set the limit for these cases."""
        limit = self.base + COPIES * sum(
            take_apart(x).flat.nbytes for case in cases for x in case.forwards()
        )
        if self.limited and limit != self.limit:
            self.limit = limit
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            within = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (within, hard))


def _data() -> int:
    """Return the bytes of private memory of this process that can be written, where the system tells it; else 0."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
