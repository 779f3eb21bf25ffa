"""The progress of a run: one line that is rewritten on a terminal, and a few lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest

from bn_spec.report.records import BAD, Record
from bn_spec.session.outcomes import record_of
from bn_spec.session.setup import RUN

STEPS = 10
"""Number of progress lines of a run whose output is not a terminal."""

PAUSE = 0.1
"""Minimum time between two changes of the line on a terminal, in seconds."""


class Progress:
    """A pytest plugin that replaces pytest's dots, unless ``-v`` or ``-q`` is given.

    Attributes:
        done: Number of checks that have ended.
        bad: Number of checks that have failed.
        told: Backends and requirements whose failure has been printed.
        shown: Number of progress lines that have been printed.
        began: Start of the run, in seconds of the monotonic clock.
        changed: Last change of the line, in seconds of the monotonic clock.
        reporter: pytest's terminal reporter.
        active: Whether to print anything.

    """

    def __init__(self) -> None:
        self.done = self.bad = 0
        self.told: set[tuple[str, str]] = set()
        self.shown = 0
        self.began = self.changed = time.monotonic()
        self.reporter: Any = None
        self.active = False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Replace pytest's dots."""
        self.reporter = session.config.pluginmanager.getplugin("terminalreporter")
        self.active = self.reporter is not None and session.config.get_verbosity() == 0
        if self.active:
            self.reporter.showfspath = False

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """Suppress pytest's progress characters."""
        status = yield
        return (status[0], "", "") if self.active and status else status

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Update the progress, and print a requirement that fails."""
        record = record_of(report)
        if not self.active or record is None:
            return
        self.done += 1
        if record.status in BAD:
            self.bad += 1
            self._tell_once(record)
        total = len(self.reporter.config.stash[RUN].collected)
        if self.reporter.isatty:
            self._move(self._line(total, record))
        elif total and self.done * STEPS // total > self.shown:
            self.shown = self.done * STEPS // total
            self._write(self._line(total))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Erase the progress line."""
        if self.active and self.reporter.isatty:
            self.reporter.rewrite("", erase=True)
            self.reporter.rewrite("")

    def _tell_once(self, record: Record) -> None:
        """Print a requirement that fails, but only for the first dtype in which it does."""
        failing = record.backend, record.requirement
        if failing not in self.told:
            self.told.add(failing)
            self._write(f"  {record.requirement} {record.status}: {record.backend}, {record.dtype}")

    def _line(self, total: int, record: Record | None = None) -> str:
        seconds = time.monotonic() - self.began
        percent = 100 * self.done // max(total, 1)
        left = seconds * (total - self.done) / self.done
        found = f"{self.bad} failed" if self.bad else "none failed"
        line = f"{percent:>3} %  {self.done} of {total} checks, {found}, {seconds:.0f} s"
        if record is None:
            return line
        cell = f"{record.requirement} {record.backend} {record.dtype}"
        return f"{line}, {left:.0f} s left: {cell}"

    def _move(self, line: str) -> None:
        now = time.monotonic()
        if now - self.changed >= PAUSE:
            self.changed = now
            width = self.reporter._tw.fullwidth - 1
            self.reporter.rewrite(line[:width], erase=True)
            self.reporter.flush()

    def _write(self, line: str) -> None:
        if self.reporter.isatty:
            self.reporter.rewrite("", erase=True)
            self.reporter.rewrite("")
        self.reporter.write_line(line)
        self.reporter.flush()
