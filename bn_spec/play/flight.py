"""A flight recorder: what was being played when a process died, in a file that outlives it.

The file is mapped into memory, so that a note costs no more than to write a case down as bytes
(:mod:`bn_spec.play.wire`); the system keeps what was written, whatever becomes of the process.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from struct import Struct, error

from bn_spec.backend.contract import Backend
from bn_spec.case.script import Case
from bn_spec.play import wire
from bn_spec.play.isolated import AVAILABLE, Limits
from bn_spec.play.observation import CONSTRUCTION, Died, Observation
from bn_spec.play.player import StandIn, play, play_together

FOLDER = "flight"
"""Where the notes lie, in the folder of a report."""

SIZE = 2**20
"""Bytes of a note; a larger case is not written down."""

ABOUT = ("test", "requirement", "property", "backend", "address", "dtype")
"""What is said of the cell whose cases are noted."""

_HEAD = Struct("<IiIQ")
_IDLE, _PLAYING, _TOO_LARGE = range(3)


@dataclass(frozen=True)
class Note:
    """What was last played: ``about`` says for whom, ``cases`` are those played at a time, none if too large.

    ``step`` is the one that was being played, if ``playing``: otherwise the cases had been
    answered.
    """

    about: Mapping[str, str]
    cases: tuple[Case, ...]
    playing: bool
    step: int = CONSTRUCTION


class Recorder:
    """Notes what is being played, in a file that is there from the first note until :meth:`close` removes it.

    Raises:
        OSError: the file cannot be made.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = b""

    @cached_property
    def memory(self) -> mmap.mmap:
        """The file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w+b") as file:
            file.truncate(SIZE)
            return mmap.mmap(file.fileno(), SIZE)

    def begin(self, about: Mapping[str, str]) -> None:
        """Note for whom the cases that follow are played."""
        self.about = json.dumps(dict(about)).encode()
        self.memory[_HEAD.size : _HEAD.size + len(self.about)] = self.about
        self._head(_IDLE, 0)

    @contextmanager
    def playing(self, cases: Sequence[Case]) -> Iterator[Callable[[int], None]]:
        """Note that cases are being played; yields what notes the step."""
        script, arrays = wire.of_cases(cases)
        start = _HEAD.size + len(self.about)
        content = b"" if sum(a.nbytes for a in arrays) > SIZE else wire.frame(script, arrays)
        if 0 < len(content) <= SIZE - start:
            self.memory[start : start + len(content)] = content
            self._head(_PLAYING, len(content))
        else:
            self._head(_TOO_LARGE, 0)
        try:
            yield self._at_step
        finally:
            self.memory[0:4] = _IDLE.to_bytes(4, "little")

    def _head(self, state: int, size: int) -> None:
        _HEAD.pack_into(self.memory, 0, state, CONSTRUCTION, len(self.about), size)

    def _at_step(self, step: int) -> None:
        self.memory[4:8] = step.to_bytes(4, "little", signed=True)

    def step(self) -> int:
        """Return the step that was noted last."""
        return int.from_bytes(self.memory[4:8], "little", signed=True)

    def close(self) -> None:
        """Remove the file: all went well."""
        if "memory" in vars(self):
            self.memory.close()
        self.path.unlink(missing_ok=True)


def read(path: Path) -> Note | None:
    """Return what a recorder noted, or None if there is nothing that can be read."""
    try:
        content = path.read_bytes()
        state, step, about_size, size = _HEAD.unpack_from(content)
        start = _HEAD.size + about_size
        told = json.loads(content[_HEAD.size : start])
        about = {name: str(told[name]) for name in ABOUT}
        return Note(about, tuple(_cases(content[start : start + size])), state != _IDLE, step)
    except (OSError, ValueError, LookupError, TypeError, error, wire.WireError):
        return None  # it was not finished, or a wild pointer has written into it


def _cases(content: bytes) -> list[Case]:
    if not content:
        return []
    start = wire.PREFIX.size
    header, size = wire.lengths(content[:start])
    memory = bytearray(content[start + header : start + header + size])
    return wire.to_cases(*wire.unframed(content[start : start + header], memory))


def left_behind(folder: Path) -> Iterator[tuple[Path, Note | None]]:
    """Yield the notes of processes that are no more; their files are called ``PID-...``."""
    for path in sorted(folder.glob("*-*")):
        pid = path.name.partition("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            yield path, read(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class Recorded(StandIn):
    """A backend whose cases are noted before they are played.

    With ``limits``, an alarm ends the process if it has not answered in time: where another one
    sees that.
    """

    def __init__(self, backend: Backend, recorder: Recorder, limits: Limits | None = None) -> None:
        super().__init__(backend)
        self.recorder = recorder
        self.limits = limits

    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Note the case, and play it."""
        with self._noted([case]) as at_step:
            try:
                return play(case, self.backend, looks, at_step)
            except KeyboardInterrupt:
                if self.limits is None:
                    raise
                # A person's interrupts who watches this process, so it is the backend's.
                return Died(
                    self.recorder.step(), "raised KeyboardInterrupt, which ends a process"
                ).observation()

    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Note the cases, and play them."""
        with self._noted(cases):
            return play_together(cases, self.backend)

    @contextmanager
    def _noted(self, cases: Sequence[Case]) -> Iterator[Callable[[int], None]]:
        with self.recorder.playing(cases) as at_step:
            size = sum(x.nbytes for case in cases for x in case.forwards())
            with _alarm(self.limits.time(self.backend, size) if self.limits else 0.0):
                yield at_step


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Let the system end this process after so many seconds, unless somebody else has a use for its alarm."""
    if not seconds or not AVAILABLE or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
