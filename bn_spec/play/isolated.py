"""Isolation: cases are played in another process, which may crash, hang or run out of memory.

Each backend gets one process, which loads the backend by its address (:mod:`bn_spec.play.worker`).
When the process dies, a new one replaces it. Its answers are bytes (:mod:`bn_spec.play.wire`), and
are checked before they are used. If the process dies, the observation says how: a discrepancy that
shrinks like any other.

This works on POSIX systems alone, because it uses sockets, signals and process groups. Only Linux
limits the memory.
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
"""Whether isolation works on this system."""

LOADING = 600.0
"""Seconds within which a backend must load."""

BYTES_PER_SECOND = 10e6
"""Bytes of arrays for which the time limit grows by a second: the largest cases have gigabytes."""

EXPENSIVE = 10
"""Factor of the time limit for a backend with expensive signatures, which compiles."""

HASTE = 20
"""After the first hang, the time limit as a multiple of the slowest call that was answered.

Shrinking a hang plays hundreds of cases, many of which hang.
"""

LEAST_HASTE, BLIND_HASTE = 1.0, 5.0
"""Minimum of the time limit after a hang, in seconds.

The first number holds if a call was answered before, the second one if none was.
"""


@dataclass(frozen=True)
class Limits:
    """The limits of a backend in a process of its own.

    Attributes:
        seconds: Time for one call that plays a case.
        mebibytes: Memory in MiB, beyond what the process has once the backend is loaded.

    """

    seconds: float = 60.0
    mebibytes: int = 4096

    def time(self, backend: Backend, size: int) -> float:
        """Return the time limit in seconds for a call with arrays of ``size`` bytes."""
        times = EXPENSIVE if backend.capabilities.expensive_signatures else 1
        return self.seconds * times + size / BYTES_PER_SECOND


def check_loading(address: str, limits: Limits) -> None:
    """Load a backend in another process, and end it.

    Raises:
        BackendError: The backend does not load there. If the process died, the message says how.

    """
    _Process(address, limits, Path.cwd()).end()


class Isolated(StandIn):
    """A backend that plays its cases in another process; :meth:`close` ends the process.

    Attributes:
        backend: The backend as this process has loaded it: its name and its claims.
        address: The name under which the other process loads it.
        limits: Its limits.
        slowest: Duration in seconds of the slowest call that was answered.
        hurried: Whether a call has hung, so that later calls get less time.

    """

    def __init__(self, backend: Backend, address: str, limits: Limits = Limits()) -> None:
        super().__init__(backend)
        self.address = address
        self.limits = limits
        self.slowest = 0.0
        self.hurried = False
        self._folder = Path.cwd()
        self._process: _Process | None = None
        self._answered: _Request | None = None
        """The last request that was answered."""

    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Play a case in the other process."""
        return self._ask([case], list(looks))[0]

    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Play cases in threads of the other process."""
        return self._ask(cases, None)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process:
            self._process.end()
            self._process = None

    def _ask(self, cases: Sequence[Case], looks: list[str] | None) -> list[Observation]:
        """Play cases one after the other or, without looks, together."""
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
            return [Died(step, lost.sentence(request)).observation()] * len(cases)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._answered = request
        return list(map(self._with_memory_limit, observations))

    def _with_memory_limit(self, observation: Observation) -> Observation:
        """Return an observation with the limit of memory in the message of each MemoryError."""

        def with_limit(answer: Answer) -> Answer:
            raised = answer.error
            if not isinstance(raised, Raised) or "MemoryError" not in raised.kinds:
                return answer
            message = f"{raised.message} ({self.limits.mebibytes} MiB are allowed)".lstrip()
            return replace(answer, error=replace(raised, message=message))

        return replace(observation, answers=tuple(map(with_limit, observation.answers)))

    def _limit(self, size: int) -> float:
        """Return the time limit in seconds for a request with arrays of ``size`` bytes."""
        limit = self.limits.time(self.backend, size)
        if self.hurried:
            least = LEAST_HASTE if self.slowest else BLIND_HASTE
            limit = min(limit, max(least, HASTE * self.slowest) + size / BYTES_PER_SECOND)
        return limit

    def _started(self) -> _Process:
        """Return a new process.

        If a call has hung, the process plays the last answered request again. Its first call may
        be slow, and must not be taken for a hang.
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
    """Cases to be played, also as the plain data and the arrays of a frame."""

    cases: Sequence[Case]
    looks: list[str] | None
    script: list[Any]
    arrays: list[Array]


class _Lost(Exception):
    """Raised when the process has ended.

    Attributes:
        how: How it ended.
        step: Index of the step in which it ended, or CONSTRUCTION.
        spent: A phrase about the memory that it took, if this was too much.
        said: The last of its output.
        hung: Whether it exceeded the time limit.

    """

    def __init__(self, how: str, step: int, spent: str, said: str, hung: bool) -> None:
        super().__init__(how)
        self.how = how
        self.step = step
        self.spent = spent
        self.said = said
        self.hung = hung

    def sentence(self, request: _Request) -> str:
        """Return how it ended, in which step and line of code, and the last line of its output."""
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
"""The program of the process."""

SLICE = 0.25
"""Seconds between two looks at whether the process still runs.

The channel alone does not show that: children of the process can keep it open.
"""

GOING = 1.0
"""Seconds within which a process ends after its channel was closed or it got a signal."""

_BLOCK = 2**24
"""Maximum number of bytes that are sent or received at once."""


class _Process:
    """A process that has loaded a backend.

    Attributes:
        limits: Its limits.
        number: Number of requests so far.
        said: The last :data:`MOST_SAID` bytes of its output.
        channel: The socket of requests and answers.
        noted: Memory that both processes share, with the index of the current step.
        process: The process.
        peak: Peak memory of the process in MiB, once it has ended.
        inherited: Peak memory of this process in MiB when it started the other one.
        listener: The thread that reads the output.
        limit: The current time limit in seconds.
        deadline: The end of the current time limit, on the monotonic clock.

    Raises:
        BackendError: The process could not load the backend.

    """

    def __init__(self, address: str, limits: Limits, folder: Path) -> None:
        self.limits, self.number = limits, 0
        self.said = bytearray()
        self.channel, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as note:
            note.truncate(mmap.PAGESIZE)
            self.noted = mmap.mmap(note.fileno(), mmap.PAGESIZE)
            fds = (theirs.fileno(), note.fileno())
            arguments = [*map(str, fds), address, str(limits.mebibytes), json.dumps(sys.path)]
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                pass_fds=fds,
                # In a session of its own, Ctrl-C does not end it, and its children end with it.
                start_new_session=True,
            )
        self.peak, self.inherited = 0, _own_peak()
        self.listener = Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.limit, self.deadline = LOADING, time.monotonic() + LOADING
        self._expect_ready(address)

    def _listen(self) -> None:
        """Read the output of the process to its end, and keep the last of it."""
        assert self.process.stdout
        with suppress(OSError, ValueError):
            while part := os.read(self.process.stdout.fileno(), 4096):
                self.said += part
                del self.said[:-MOST_SAID]

    def _expect_ready(self, address: str) -> None:
        """Wait until the process has loaded the backend.

        Raises:
            BackendError: Loading failed with this error, or the process died.

        """
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
            f"backend {address!r}: while it was loaded {where}, it wrote into the answer channel;"
            " a backend must not write to file descriptors that it has not opened"
        )

    def answer(self, request: _Request, seconds: float) -> list[Observation]:
        """Return the observations of the cases of a request.

        Raises:
            _Lost: The process has ended, or exceeded the time limit.

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
                "wrote something that is not an answer into the answer channel", patience=0.0
            ) from None

    def _send(self, content: memoryview) -> None:
        while content:
            content = content[self._guarded(self.channel.send, content[:_BLOCK]) :]

    def _received(self) -> tuple[Any, list[Array]]:
        """Return the plain data and the arrays of the next frame."""
        header, size = wire.lengths(bytes(self._bytes(wire.PREFIX.size)))
        return wire.unframed(self._bytes(header), self._bytes(size))

    def _bytes(self, size: int) -> bytearray:
        """Return the next ``size`` bytes; memory grows only with the bytes that arrive."""
        received = bytearray()
        while len(received) < size:
            part = self._guarded(self.channel.recv, min(size - len(received), _BLOCK))
            if not part:
                raise self._lost("closed the answer channel")
            received += part
        return received

    def _guarded(self, call: Callable[[Any], Any], argument: object) -> Any:
        """Return what a call on the channel returns.

        Raises:
            _Lost: The deadline has passed, the process has ended, or it has closed the channel.

        """
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
                raise self._lost("closed the answer channel") from None

    def _lost(self, how: str, *, hung: bool = False, patience: float = GOING) -> _Lost:
        """End the process, and return how it ended.

        Args:
            how: How it ended, unless its exit code says more.
            hung: Whether it exceeded the time limit.
            patience: Seconds to wait for it to end by itself.

        """
        step = int.from_bytes(self.noted[0:4], "little", signed=True)
        if hung:
            self._signal(signal.SIGABRT)  # Python's fault handler then prints the current line
        if self._gone(patience) and not hung:
            code = self.process.returncode
            if code < 0:
                how = f"killed by {signal.Signals(-code).name}"
            else:
                how = f"exited with code {code}"
        self.end()
        # The system counts from the memory of this process when it started the other one.
        much = self.peak >= self.limits.mebibytes and self.peak > self.inherited
        spent = f" ({self.peak} MiB of memory were taken)" if much else ""
        return _Lost(how, step, spent, self.said.decode("utf-8", "replace"), hung)

    def _gone(self, seconds: float = 0.0) -> bool:
        """Return whether the process ends within ``seconds``."""
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
        """End the process and its children."""
        self.channel.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._gone(60.0)
        self.listener.join(GOING)
        if self.process.stdout and not self.listener.is_alive():
            self.process.stdout.close()


_BUILDING = CONSTRUCTION.to_bytes(4, "little", signed=True)
"""The content of the note while the layer is built."""

_REFUSALS: dict[str, type[BackendError]] = {
    kind.__name__: kind for kind in (UnknownBackend, BrokenBackend, UnavailableBackend)
}
"""The errors of a backend that does not load, by name."""

_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (\S+)$', re.MULTILINE)
"""A line of a traceback by Python's fault handler: file, line and function."""

_LIBRARY = Path(sysconfig.get_path("stdlib"))
"""The folder of the standard library."""


def _own_peak() -> int:
    """Return the peak memory of this process in MiB."""
    import resource  # only POSIX systems have this module

    return _mebibytes(resource.getrusage(resource.RUSAGE_SELF))


def _mebibytes(usage: Any) -> int:
    """Return the peak memory in MiB; Linux counts KiB, and macOS bytes."""
    return int(usage.ru_maxrss) // (1024 if sys.platform == "linux" else 2**20)


def _place(said: str) -> str:
    """Return a phrase about the line that was running, from the output of Python's fault handler.

    It is the innermost line outside the standard library.
    """
    current = said.partition("most recent call first")[2]
    for path, line, function in _FRAME.findall(current):
        if not Path(path).is_relative_to(_LIBRARY) or "site-packages" in path:
            return f", at {Path(path).name}:{line} in {function}"
    return ""


def _words(said: str) -> str:
    """Return a phrase about the last line of output before that of Python's fault handler."""
    lines = [line.strip() for line in said.partition("Fatal Python error")[0].splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    readable = "".join(c for c in last if c.isprintable())[:MOST_WORDS]
    return f"; last output: {readable}" if readable else ""


MOST_SAID = 2**16
"""Maximum number of bytes of output that are kept."""

MOST_WORDS = 160
"""Maximum number of characters of the last line of output in a message."""
