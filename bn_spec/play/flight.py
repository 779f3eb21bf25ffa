"""A flight recorder: a file with the cases that a process was playing when it died.

The file is mapped into memory, so that a note costs no more than converting a case to bytes
(:mod:`bn_spec.play.wire`). The operating system keeps the content of the file, however the process
ends.
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
"""Name of the folder of notes, in the folder of a report."""

SIZE = 2**20
"""Size of a note in bytes; the note on a larger case does not contain the case."""

ABOUT = ("test", "requirement", "property", "backend", "address", "dtype")
"""Names of the entries about the cell whose cases are noted."""

_HEAD = Struct("<IiIQ")
"""Head of a note: state, step, size of the entries about the cell, and size of the cases."""

_IDLE, _PLAYING, _TOO_LARGE = range(3)


@dataclass(frozen=True)
class Note:
    """The last note of a process.

    Attributes:
        about: Test, requirement, property, backend, address and dtype of the cell, as in
            :data:`ABOUT`.
        cases: The cases that were played together; none if they were too large for the note.
        playing: Whether the cases were still being played.
        step: Index of the step that was being played, or
            :data:`bn_spec.play.observation.CONSTRUCTION`.

    """

    about: Mapping[str, str]
    cases: tuple[Case, ...]
    playing: bool
    step: int = CONSTRUCTION


class Recorder:
    """Writes notes to a file, which exists from the first note until :meth:`close`.

    Attributes:
        path: The file.
        about: The entries about the cell, as JSON.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = b""

    @cached_property
    def memory(self) -> mmap.mmap:
        """The content of the file, which the first access creates.

        Raises:
            OSError: The file cannot be created.

        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w+b") as file:
            file.truncate(SIZE)
            return mmap.mmap(file.fileno(), SIZE)

    def begin(self, about: Mapping[str, str]) -> None:
        """Note the cell whose cases follow, with the entries of :data:`ABOUT`."""
        self.about = json.dumps(dict(about)).encode()
        self.memory[_HEAD.size : _HEAD.size + len(self.about)] = self.about
        self._head(_IDLE, 0)

    @contextmanager
    def playing(self, cases: Sequence[Case]) -> Iterator[Callable[[int], None]]:
        """Note that cases are being played, until the end of the context.

        Yields:
            A function that notes the index of the step that is played next.

        """
        script, arrays = wire.of_cases(cases)
        start = _HEAD.size + len(self.about)
        content = b""
        if sum(a.nbytes for a in arrays) <= SIZE:
            content = wire.frame(script, arrays)
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
        """Return the index of the step that was noted last."""
        return int.from_bytes(self.memory[4:8], "little", signed=True)

    def close(self) -> None:
        """Remove the file, as a process that ends normally does."""
        if "memory" in vars(self):  # otherwise, there was no note
            self.memory.close()
        self.path.unlink(missing_ok=True)


def read(path: Path) -> Note | None:
    """Return the last note in a file, or None if there is none that can be read."""
    try:
        content = path.read_bytes()
        state, step, about_size, size = _HEAD.unpack_from(content)
        start = _HEAD.size + about_size
        entries = json.loads(content[_HEAD.size : start])
        about = {name: str(entries[name]) for name in ABOUT}
        return Note(about, tuple(_cases(content[start : start + size])), state != _IDLE, step)
    except (OSError, ValueError, LookupError, TypeError, error, wire.WireError):
        return None  # the note is incomplete, or a stray pointer has damaged it


def _cases(content: bytes) -> list[Case]:
    if not content:
        return []
    start = wire.PREFIX.size
    header, size = wire.lengths(content[:start])
    memory = bytearray(content[start + header : start + header + size])
    return wire.to_cases(*wire.unframed(content[start : start + header], memory))


def left_behind(folder: Path) -> Iterator[tuple[Path, Note | None]]:
    """Yield the files in a folder whose processes have ended, and their notes.

    The name of a file starts with the id of its process and a hyphen.
    """
    for path in sorted(folder.glob("*-*")):
        pid = path.name.partition("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            yield path, read(path)


def _alive(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it exists, but belongs to another user
    return True


class Recorded(StandIn):
    """A backend that notes each case before it plays it in this process.

    Attributes:
        backend: The backend that plays the cases.
        recorder: Writes the notes.
        limits: If another process watches this one, the limits within which a case must be played.
            An alarm then ends this process when it exceeds the time.

    """

    def __init__(self, backend: Backend, recorder: Recorder, limits: Limits | None = None) -> None:
        super().__init__(backend)
        self.recorder = recorder
        self.limits = limits

    def play(self, case: Case, looks: Collection[str]) -> Observation:
        """Note a case, and play it."""
        with self._noted([case]) as at_step:
            try:
                return play(case, self.backend, looks, at_step)
            except KeyboardInterrupt:
                if self.limits is None:
                    raise
                # The user interrupts the watching process, so the backend has raised this one.
                sentence = "raised KeyboardInterrupt, which ends a process"
                return Died(self.recorder.step(), sentence).observation()

    def play_together(self, cases: Sequence[Case]) -> list[Observation]:
        """Note cases, and play them at the same time."""
        with self._noted(cases):
            return play_together(cases, self.backend)

    @contextmanager
    def _noted(self, cases: Sequence[Case]) -> Iterator[Callable[[int], None]]:
        with self.recorder.playing(cases) as at_step:
            if self.limits is None:
                yield at_step
                return
            size = sum(x.nbytes for case in cases for x in case.forwards())
            with _alarm(self.limits.time(self.backend, size)):
                yield at_step


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """End this process when the context takes longer than ``seconds``.

    This uses the system's alarm, unless there is none or other code handles it.
    """
    if not AVAILABLE or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
