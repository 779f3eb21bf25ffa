"""The flight recorder: the case and the step in which a process died are on record."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.case.source import array
from bn_spec.case.steps import Forward, Train
from bn_spec.play.flight import ABOUT, Note, Recorded, Recorder, left_behind, read
from bn_spec.play.isolated import Limits
from bn_spec.play.observation import Died
from bn_spec.play.player import play
from tests.strange_backends import HOSTILE

WIDE = Case(Config(2), steps=(Train(), Forward(array([0, 1, 2, 3], (2, 2, 1, 1)))))

LIMITS = Limits(seconds=1.0, mebibytes=256)

OF = dict(zip(ABOUT, ABOUT, strict=True))


class Watcher:
    """A backend that reads the note of its own case while it is played."""

    def __init__(self, path: Path) -> None:
        self.inner: Any = HOSTILE["leaves"]
        self.path, self.notes = path, list[Note | None]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def to_native(self, a: Any) -> Any:
        self.notes.append(read(self.path))
        return a


def test_a_case_is_noted_before_it_is_played_and_the_step_with_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "notes" / "1-main")
    recorder.begin(OF)
    watcher: Any = Watcher(recorder.path)
    play(WIDE, Recorded(watcher, recorder))
    (during,) = watcher.notes
    assert (during.about, during.playing, during.step) == (OF, True, 1)
    assert np.array_equal(during.cases[0].steps[1].x, WIDE.steps[1].x)  # type: ignore[union-attr]
    after = read(recorder.path)
    assert after is not None
    assert not after.playing
    recorder.close()
    assert not recorder.path.exists()


def test_who_is_watched_takes_an_interrupt_for_the_backends(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "1-main")
    recorder.begin(OF)
    found = play(WIDE, Recorded(HOSTILE["interrupts"], recorder, LIMITS)).initial
    assert found == Died(1, "raised KeyboardInterrupt, which ends a process")
    with pytest.raises(KeyboardInterrupt):
        play(WIDE, Recorded(HOSTILE["interrupts"], recorder))
    recorder.close()


def test_who_is_watched_and_hangs_is_ended_by_an_alarm_and_leaves_a_note(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "1-main")
    recorder.begin(OF)
    watched = Recorded(HOSTILE["hangs"], recorder, Limits(seconds=0.2))
    child = os.fork()
    if not child:
        play(WIDE, watched)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGALRM
    note = read(recorder.path)
    assert note is not None
    assert (note.playing, note.step) == (True, 1)
    recorder.close()


def test_a_case_that_is_too_large_is_noted_as_that(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "1-main")
    recorder.begin(OF)
    large = Case(Config(1), steps=(Forward(np.zeros((1, 1, 1024, 1024), np.float32)),))
    with recorder.playing([large]):
        assert read(recorder.path) == Note(OF, (), True)
    recorder.close()


@pytest.mark.parametrize("content", [b"", b"\xff" * 4096, bytes(4096)])
def test_what_is_no_note_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1-main"
    path.write_bytes(content)
    assert read(path) is None


def test_only_the_notes_of_the_dead_are_left_behind(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    for name in (f"{os.getpid()}-gw0", f"{child}-gw1", "nobody-gw2"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path, _ in left_behind(tmp_path)] == [f"{child}-gw1"]
