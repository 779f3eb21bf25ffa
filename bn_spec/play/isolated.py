"""Playing cases in a process of its own, so that a backend can crash, hang or eat memory, and be told so.

Each backend gets one process, which loads it by its address and lives until it dies; then another
takes its place. What comes back is bytes (:mod:`bn_spec.play.wire`), of which nothing is believed
that cannot be. However the process ends, what is returned is an observation, in which it died: a
discrepancy like any other, that shrinks like any other.

POSIX only: it stands on sockets, signals and process groups; the limit of memory on Linux alone.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from bn_spec.backend.contract import Backend
from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.errors import BackendError, BrokenBackend, UnavailableBackend, UnknownBackend
from bn_spec.play import wire
from bn_spec.play.observation import CONSTRUCTION, Answer, Died, Observation, Raised
from bn_spec.play.player import StandIn

AVAILABLE = os.name == "posix"
"""Whether this system has what isolation needs."""

LOADING = 600.0
"""Seconds in which a backend must load."""

BYTES_PER_SECOND = 10e6
"""What is sent may take so long to be played, beyond the limit: the largest cases have gigabytes."""

EXPENSIVE = 10
"""Times the limit for a backend of expensive signatures, which compiles."""

HASTE = 20
"""Times the slowest call that was answered, a later one gets after the first that hung: shrinking plays hundreds."""

LEAST_HASTE, BLIND_HASTE = 1.0, 5.0
"""Seconds that every call gets, where some were answered, and where none ever was."""


@dataclass(frozen=True)
class Limits:
    """What a backend may take: ``seconds`` for a call, and ``mebibytes`` beyond what it has once it is loaded."""

    seconds: float = 60.0
    mebibytes: int = 4096

    def time(self, backend: Backend, size: int) -> float:
        """Return the seconds for a call with arrays of so many bytes."""
        times = EXPENSIVE if backend.capabilities.expensive_signatures else 1
        return self.seconds * times + size / BYTES_PER_SECOND


def check_loading(address: str, limits: Limits) -> None:
    """Load a backend in a process of its own, so that nobody else dies of it; raise what says how that failed."""
    _Process(address, limits, Path.cwd()).end()


class Isolated(StandIn):
    """A backend whose cases are played in a process of its own; close it when all is played."""

    def __init__(self, backend: Backend, address: str, limits: Limits = Limits()) -> None:
        super().__init__(backend)
        self.address = address
        self.limits = limits
        self.slowest = 0.0
        """Seconds of a call that was answered."""
        self.hurried = False
        """Whether a call has hung."""
        self._folder = Path.cwd()
        self._process: _Process | None = None
        self._answered: _Request | None = None
        """The last request that was answered."""

    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Play the case there."""
        return self._ask([case], list(looks))[0]

    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Play the cases there, in threads."""
        return self._ask(cases, None)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process:
            self._process.end()
            self._process = None

    def _ask(self, cases: Sequence[Case], looks: list[str] | None) -> list[Observation]:
        request = _Request(cases, looks, *wire.of_cases(cases))
        process = self._process = self._process or self._started()
        limit = self._limit(sum(a.nbytes for a in request.arrays))
        began = time.monotonic()
        try:
            observations = process.answer(request, limit)
        except _Lost as lost:
            self._process = None
            self.hurried |= lost.hung
            step = min(max(lost.step, CONSTRUCTION), len(cases[0].steps) - 1)
            return [Died(step, lost.told(request)).observation()] * len(cases)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._answered = request
        return list(map(self._told_of_memory, observations))

    def _told_of_memory(self, observation: Observation) -> Observation:
        """Return the observation; where memory ran out, it says how much is allowed."""

        def told(answer: Answer) -> Answer:
            raised = answer.error
            if not isinstance(raised, Raised) or "MemoryError" not in raised.kinds:
                return answer
            message = f"{raised.message} ({self.limits.mebibytes} MiB are allowed)".lstrip()
            return replace(answer, error=replace(raised, message=message))

        return replace(observation, answers=tuple(map(told, observation.answers)))

    def _limit(self, size: int) -> float:
        """Return the seconds for a request with arrays of so many bytes."""
        limit = self.limits.time(self.backend, size)
        if self.hurried:
            least = LEAST_HASTE if self.slowest else BLIND_HASTE
            limit = min(limit, max(least, HASTE * self.slowest) + size / BYTES_PER_SECOND)
        return limit

    def _started(self) -> _Process:
        """Return a new process.

        It plays what was answered last, so that what is slow the first time is not taken for a
        hang.
        """
        process = _Process(self.address, self.limits, self._folder)
        if self.hurried and self._answered:
            try:
                process.answer(self._answered, self.limits.seconds)
            except _Lost:
                return _Process(self.address, self.limits, self._folder)
        return process


@dataclass(frozen=True)
class _Request:
    """Cases to be played, and what they are as plain data and arrays."""

    cases: Sequence[Case]
    looks: list[str] | None
    script: list[Any]
    arrays: list[Array]


class _Lost(Exception):
    """A process that is no more: how that came about, at which step, with how much memory, and what it said last."""

    def __init__(self, how: str, step: int, spent: str, said: str, hung: bool) -> None:
        super().__init__(how)
        self.how, self.step, self.spent, self.said, self.hung = how, step, spent, said, hung

    def told(self, request: _Request) -> str:
        """Return how it ended, where in the case, where in the code, and its last words."""
        steps, where = request.cases[0].steps, ""
        if request.looks is None:
            where = " while layers were driven by several threads"
        elif self.step == CONSTRUCTION:
            where = " while the layer was built"
        elif 0 <= self.step < len(steps):
            where = f" in step {self.step + 1} ({type(steps[self.step]).__name__.lower()})"
        return f"{self.how}{where}{_place(self.said)}{self.spent}{_words(self.said)}"


_CODE = """\
import json, sys
connection, note, address, mebibytes, path = sys.argv[1:]
sys.path[:] = json.loads(path)
from bn_spec.play.worker import main
main(int(connection), int(note), address, int(mebibytes))
"""

SLICE = 0.25
"""Seconds after which who waits looks whether the process is still there: its own children can hold the channel."""

GOING = 1.0
"""Seconds in which a process ends after it was told to."""

_BLOCK = 2**24


class _Process:
    """A process that has loaded a backend.

    Raises:
        BackendError: it could not.

    """

    def __init__(self, address: str, limits: Limits, folder: Path) -> None:
        self.limits, self.number = limits, 0
        self.said = bytearray()
        self.channel, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as note:
            note.truncate(mmap.PAGESIZE)
            self.noted = mmap.mmap(note.fileno(), mmap.PAGESIZE)
            fds = (theirs.fileno(), note.fileno())
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _CODE,
                    *map(str, fds),
                    address,
                    str(limits.mebibytes),
                    json.dumps(sys.path),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                pass_fds=fds,
                start_new_session=True,  # so that nobody's Ctrl-C ends it, and its children end with it
            )
        self.peak, self.inherited = 0, _taken()
        """MiB of memory that the process had at most, once it is no more, and that were counted as its own before."""
        self.listener = Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.limit, self.deadline = LOADING, time.monotonic() + LOADING
        self._expect_ready(address)

    def _listen(self) -> None:
        """Keep the last of what the process says, however much that is."""
        assert self.process.stdout
        with suppress(OSError, ValueError):
            while part := os.read(self.process.stdout.fileno(), 4096):
                self.said += part
                del self.said[:-MOST_SAID]

    def _expect_ready(self, address: str) -> None:
        """Wait until the backend is loaded; raise the error that it raised there, or one that says how it died."""
        where = "in a process of its own"
        try:
            answer, _ = self._received()
        except _Lost as lost:
            words = _place(lost.said) + _words(lost.said)
            raise BrokenBackend(
                f"backend {address!r} does not load {where}: {lost.how}{words}"
            ) from None
        except wire.WireError:
            answer = None
        match answer:
            case {"ready": _}:
                return
            case {"refused": [str(kind), message]} if kind in _REFUSALS:
                self.end()
                raise _REFUSALS[kind](f"{message} ({where})")
        self.end()
        raise BrokenBackend(
            f"backend {address!r}: loaded {where}, it wrote into the channel of its answers"
        )

    def answer(self, request: _Request, seconds: float) -> list[Observation]:
        """Return what was observed.

        Raises:
            _Lost: the process is no more.

        """
        self.limit, self.deadline = seconds, time.monotonic() + seconds
        self.number += 1
        self.said.clear()
        self.noted[0:4] = _BUILDING
        script = {
            "number": self.number,
            "seconds": seconds,
            "cases": request.script,
            "looks": request.looks,
        }
        self._send(memoryview(wire.frame(script, request.arrays)))
        try:
            reply, arrays = self._received()
            if reply["number"] != self.number:
                raise wire.WireError("an answer to another request")
            return wire.to_observations(
                reply["observations"], [*request.arrays, *arrays], request.cases
            )
        except (wire.WireError, KeyError, TypeError):
            raise self._lost(
                "wrote what is no answer into the channel of its answers", patience=0.0
            ) from None

    def _send(self, content: memoryview) -> None:
        while content:
            content = content[self._guarded(self.channel.send, content[:_BLOCK]) :]

    def _received(self) -> tuple[Any, list[Array]]:
        """Return what comes, by the deadline."""
        header, size = wire.lengths(bytes(self._bytes(wire.PREFIX.size)))
        return wire.unframed(self._bytes(header), self._bytes(size))

    def _bytes(self, size: int) -> bytearray:
        """Return so many bytes; no more memory is taken than comes."""
        received = bytearray()
        while missing := size - len(received):
            part = self._guarded(self.channel.recv, min(missing, _BLOCK))
            if not part:
                raise self._lost("closed the channel of its answers")
            received += part
        return received

    def _guarded(self, call: Callable[[Any], Any], argument: object) -> Any:
        """Return what a call on the channel returns; raise :class:`_Lost` past the deadline, or once it is closed."""
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise self._lost(f"gave no answer within {self.limit:.3g} s", hung=True)
            self.channel.settimeout(min(left, SLICE))
            try:
                return call(argument)
            except TimeoutError:
                if self._gone():
                    raise self._lost("ended") from None
            except OSError:
                raise self._lost("closed the channel of its answers") from None

    def _lost(self, how: str, *, hung: bool = False, patience: float = GOING) -> _Lost:
        """End what is left of the process, and return how it ended."""
        step = int.from_bytes(self.noted[0:4], "little", signed=True)
        if hung:
            self._signal(signal.SIGABRT)  # it tells where it is
        if self._gone(patience) and not hung:
            code = self.process.returncode
            how = (
                f"killed by {signal.Signals(-code).name}"
                if code < 0
                else f"exited with code {code}"
            )
        self.end()
        # What the system counts begins with what this process had when it started the other one.
        much = self.peak >= self.limits.mebibytes and self.peak > self.inherited
        spent = f" ({self.peak} MiB of memory were taken)" if much else ""
        return _Lost(how, step, spent, self.said.decode("utf-8", "replace"), hung)

    def _gone(self, seconds: float = 0.0) -> bool:
        """Whether the process ends within these seconds."""
        until = time.monotonic() + seconds
        while self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.peak = _mebibytes(usage)
                self.process.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                return False
            else:
                time.sleep(0.001)
        return True

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.process.pid, number)

    def end(self) -> None:
        """End the process, and those that it has started."""
        self.channel.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._gone(60.0)
        self.listener.join(GOING)
        if self.process.stdout and not self.listener.is_alive():
            self.process.stdout.close()


_BUILDING = (-1).to_bytes(4, "little", signed=True)
_REFUSALS: dict[str, type[BackendError]] = {
    kind.__name__: kind for kind in (UnknownBackend, BrokenBackend, UnavailableBackend)
}
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (\S+)$', re.MULTILINE)
_LIBRARY = Path(sysconfig.get_path("stdlib"))


def _taken() -> int:
    """Return the MiB of memory that this process had at most."""
    import resource  # which POSIX alone has

    return _mebibytes(resource.getrusage(resource.RUSAGE_SELF))


def _mebibytes(usage: Any) -> int:
    return int(usage.ru_maxrss) // (1024 if sys.platform == "linux" else 2**20)


def _place(said: str) -> str:
    """Return where in the code it was, as Python's fault handler has told it."""
    current = said.partition("most recent call first")[2]
    for path, line, function in _FRAME.findall(current):
        if not Path(path).is_relative_to(_LIBRARY) or "site-packages" in path:
            return f", at {Path(path).name}:{line} in {function}"
    return ""


def _words(said: str) -> str:
    """Return the last words, but for those of the fault handler."""
    lines = [line.strip() for line in said.partition("Fatal Python error")[0].splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    readable = "".join(c for c in last if c.isprintable())[:MOST_WORDS]
    return f"; it said: {readable}" if readable else ""


MOST_SAID, MOST_WORDS = 2**16, 160
"""Bytes of what a process says that are kept, and characters of its last words that are told."""
