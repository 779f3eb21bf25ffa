"""The worker: the process in which :mod:`bn_spec.play.isolated` plays the cases of one backend.

It trusts the process that sends the cases. It takes no precautions against the backend: the other
process sees how it ends.
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
"""Bytes of a MiB."""

COPIES = 32
"""Number of copies of the inputs of a case by which its memory limit grows."""

GRACE = 30.0
"""Seconds beyond the time limit of a request after which the worker ends itself.

By then, the process that sent the request no longer waits for the answer.
"""


def main(connection: int, note: int, address: str, mebibytes: int) -> None:
    """Load a backend, report whether it loads, and play cases until the channel is closed.

    Args:
        connection: File descriptor of the socket of requests and answers.
        note: File descriptor of the memory for the index of the current step.
        address: Name under which the backend is loaded.
        mebibytes: Limit of memory in MiB.

    """
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
            # If the other process dies, nobody else ends this one.
            signal.setitimer(signal.ITIMER_REAL, script["seconds"] + GRACE)
            observations = _played(cases, backend, script["looks"], noted)
            signal.setitimer(signal.ITIMER_REAL, 0)
            written, new_arrays = wire.of_observations(observations, arrays)
            answer = {"number": script["number"], "observations": written}
            channel.sendall(wire.frame(answer, new_arrays))


def _played(
    cases: Sequence[Case], backend: Backend, looks: Sequence[str] | None, noted: mmap.mmap
) -> list[Observation]:
    """Play cases one after the other or, without looks, together."""

    def at_step(step: int) -> None:
        noted[0:4] = step.to_bytes(4, "little", signed=True)

    at_step(CONSTRUCTION)
    try:
        if looks is None:
            return play_together(cases, backend)
        return [play(case, backend, looks, at_step) for case in cases]
    except BaseException as error:  # noqa: BLE001 - third-party code may raise anything
        step = int.from_bytes(noted[0:4], "little", signed=True)
        died = Died(step, f"raised {type(error).__name__}, which ends a process")
        return [died.observation()] * len(cases)


def _received(channel: socket.socket) -> tuple[Any, list[Any]] | None:
    """Return the plain data and the arrays of the next request, or None if there is none."""
    prefix = bytearray(wire.PREFIX.size)
    if not _filled(channel, prefix):
        return None
    header, memory = map(bytearray, wire.lengths(bytes(prefix)))
    if not _filled(channel, header) or not _filled(channel, memory):
        return None
    return wire.unframed(header, memory)


def _filled(channel: socket.socket, buffer: bytearray) -> bool:
    """Fill a buffer from the channel; return False if the channel is closed before."""
    view = memoryview(buffer)
    while view:
        count = channel.recv_into(view)
        if not count:
            return False
        view = view[count:]
    return True


class _Memory:
    """The limit of the memory of this process, beyond what it has once the backend is loaded.

    It limits private memory that can be written, which Linux alone does. Frameworks also reserve
    gigabytes of address space, which do not count.
    """

    def __init__(self, mebibytes: int) -> None:
        self.base = _data() + mebibytes * MIB
        self.limited = self.base > mebibytes * MIB > 0
        self.limit = 0

    def allow(self, cases: Sequence[Case]) -> None:
        """Set the limit for the next cases: it grows with the size of their inputs."""
        limit = self.base
        for case in cases:
            limit += COPIES * sum(take_apart(x).flat.nbytes for x in case.forwards())
        if self.limited and limit != self.limit:
            self.limit = limit
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            within = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (within, hard))


def _data() -> int:
    """Return the private memory of this process that can be written, in bytes; 0 if unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024  # the file has KiB
    return 0
