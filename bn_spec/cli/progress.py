"""How far a run is, for people: a line that moves on a terminal, lines now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest

from bn_spec.report.records import BAD, Record
from bn_spec.session.outcomes import record_of
from bn_spec.session.setup import RUN

STEPS = 10
"""Lines of a run whose output is not a terminal."""

PAUSE = 0.1
"""Seconds between two changes of the line on a terminal."""


class Progress:
    """A plugin of pytest's, in the place of its dots; somebody who asks for more or less than these gets that."""

    def __init__(self) -> None:
        self.done = self.bad = 0
        self.told: set[tuple[str, str]] = set()
        self.shown = 0
        """Tenths that were told."""
        self.began = self.changed = time.monotonic()
        self.reporter: Any = None
        self.active = False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Take the place of the dots."""
        self.reporter = session.config.pluginmanager.getplugin("terminalreporter")
        self.active = self.reporter is not None and session.config.get_verbosity() == 0
        if self.active:
            self.reporter.showfspath = False

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """Let no letter be written."""
        status = yield
        return (status[0], "", "") if self.active and status else status

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell how far the run is by now."""
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
        """Leave nothing of a line that moved."""
        if self.active and self.reporter.isatty:
            self.reporter.rewrite("", erase=True)
            self.reporter.rewrite("")

    def _tell_once(self, record: Record) -> None:
        """Tell of a requirement that fails; in other dtypes, it is told no more."""
        if (failing := (record.backend, record.requirement)) not in self.told:
            self.told.add(failing)
            self._write(f"  {record.requirement} {record.status}: {record.backend}, {record.dtype}")

    def _line(self, total: int, record: Record | None = None) -> str:
        seconds = time.monotonic() - self.began
        percent = 100 * self.done // max(total, 1)
        left = seconds * (total - self.done) / self.done
        found = f"{self.bad} failed" if self.bad else "none failed"
        now = (
            f", {left:.0f} s left: {record.requirement} {record.backend} {record.dtype}"
            if record
            else ""
        )
        return f"{percent:>3} %  {self.done} of {total} checks, {found}, {seconds:.0f} s{now}"

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
