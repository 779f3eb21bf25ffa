"""The ledger of a session: gathers the records of all workers, writes them, and shows a summary."""

from __future__ import annotations

import time
from base64 import b64decode
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from bn_spec.report.causes import causes
from bn_spec.report.records import FAIL, NOT_CLAIMED, Record, Run, having
from bn_spec.report.table import summary
from bn_spec.session import deaths, options, outcomes, setup


class Ledger:
    """Gathers the records of a session, whichever worker sent them, and shows a summary at the end.

    Attributes:
        run: The run whose record is written.
        config: The configuration of the session.
        started: Time of day and monotonic time, in seconds, at the start.
        reports: Records with the pytest reports that carried them.
        cases: Files of the cases to keep, base64-encoded, by id.
        passed_again: Ids of the stored cases that no longer fail.
        failures: For each entry of the file of known failures, by its place: the number of cells
            that it concerns, and its fate, once for each cell that has run.

    """

    def __init__(self, run: Run, config: pytest.Config) -> None:
        self.run, self.config = run, config
        self.started = datetime.now(UTC), time.monotonic()
        self.reports: list[tuple[Record, Any]] = []
        self.cases: dict[str, str] = {}
        self.passed_again: list[str] = []
        self.failures: dict[int, list[tuple[int, str]]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the tests that this process will report."""
        self.run.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note the tests that the workers will report."""
        self.run.collected.update(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Report why a worker ended early, and whether it judged with other versions than here."""
        where = f"{node.gateway.id} ({setup.place(node.gateway.spec)})"
        lines = str(error or "").strip().splitlines()
        if len(lines) > 1:
            # More than one line is a traceback from the worker; the last line is its error.
            self.run.lost.append(f"{where} ended: {lines[-1]}")
        there = getattr(node, "workeroutput", {}).get(outcomes.ATTRIBUTE, {})
        if not there or setup.SELECTION not in self.config.stash:
            return
        here = setup.installed(self.config)
        names = [name for name in there if there[name] != here[name]]
        if names:
            differing = "; ".join(f"{name} {there[name]}, not {here[name]}" for name in names)
            self.run.faults.append(
                f"{where} judged with {differing}: install there what is installed here"
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Make a record of the cell in which a worker died, with the case that killed it."""
        self.run.lost.append(f"it crashed in {crashitem}")
        reproduced = deaths.crash(self.config, report.node.gateway.id)
        if reproduced is not None:
            text, record, cases = reproduced
            report.longrepr = outcomes.failure(report, text)
            outcomes.attach(report, record, cases)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather the record of a cell, and what else its report carries."""
        self.run.reported.add(report.nodeid)
        record, sent = outcomes.record_of(report), getattr(report, outcomes.ATTRIBUTE, None)
        if record is not None and sent is not None:
            self.run.records.append(record)
            self.reports.append((record, report))
            self.cases |= sent["cases"]
            self.passed_again += sent["passed"]
            self.run.notes += [note for note in sent["notes"] if note not in self.run.notes]
            for place, concerned, fate in sent["failures"]:
                self.failures.setdefault(place, []).append((concerned, fate))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge the known failures; write the record of the run and the cases."""
        if setup.SELECTION not in self.config.stash:
            return
        if setup.is_worker(self.config):
            output = self.config.workeroutput  # type: ignore[attr-defined]
            output[outcomes.ATTRIBUTE] = setup.installed(self.config)
            return
        self._spare_the_terminal()
        self._judge_known_failures()
        if self.run.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        try:
            self._write()
        except OSError as error:
            self.run.notes.append(
                f"the record and the cases of this run could not be written: {error}"
            )

    def _spare_the_terminal(self) -> None:
        """Make pytest show one failure per cause, the simplest, unless ``-v`` asks for more."""
        if self.config.get_verbosity() > 0:
            return
        spared: set[int] = set()
        for cause in causes(self.run.records):
            spared |= {id(each) for each in cause.records if each is not cause.plainest}
        for record, report in self.reports:
            if id(record) in spared:
                outcomes.hide(report)

    def _judge_known_failures(self) -> None:
        """Add a fault for each useless entry of the file, and append new entries if asked to."""
        from bn_spec.suite.search import MISSED, SEEN, UNSETTLED

        for place, entry in enumerate(setup.entries(self.config)):
            done = self.failures.get(place, [])
            fates = {fate for _, fate in done}
            if not done or len(done) < done[0][0]:
                continue  # not all cells that the entry concerns have run
            if fates & {SEEN, UNSETTLED}:
                continue  # the failure still occurs, or too few cases were judged to tell
            gone = "matches nothing: no case is in its regions"
            if MISSED in fates:
                gone = "passes unexpectedly"
            self.run.faults.append(f"{entry} {gone}; its reason was: {entry.reason}; remove it")
        path = options.path(self.config, "known_failures")
        if path and self.config.getoption("bn_known_failures_update"):
            from bn_spec.suite.known_failures_file import append

            added = append(path, self._new_failures())
            self.run.notes.append(f"{path}: entries added: {added}; fill in their reasons")

    def _new_failures(self) -> list[tuple[str, str, str, str]]:
        """Return the failures of this run as tuples of requirement, backend, dtype and observable.

        The dtype is ``*`` if the requirement failed in all dtypes that were judged.
        """
        found: dict[tuple[str, str, str], list[str]] = {}
        for record in having(self.run.records, FAIL):
            key = record.requirement, record.backend, record.observable
            found.setdefault(key, []).append(record.dtype)
        judged = [record for record in self.run.records if record.status != NOT_CLAIMED]
        tested = Counter((record.requirement, record.backend) for record in judged)
        failures = []
        for (requirement, backend, observable), dtypes in sorted(found.items()):
            if len(dtypes) == tested[requirement, backend]:
                dtypes = ["*"]
            failures += [(requirement, backend, dtype, observable) for dtype in dtypes]
        return failures

    def _write(self) -> None:
        """Write the record and the cases of the run; remove stored cases that pass again."""
        from bn_spec.report.run_file import NAME, RunFile

        folder, store = options.report_dir(self.config), options.store(self.config)
        began, clock = self.started
        timing = {
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "workers": setup.workers(self.config),
        }
        backends = self.config.stash[setup.SELECTION].backends
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", "utf-8")
        RunFile.of(self.run, setup.judged_by(self.config), backends, timing).save(folder / NAME)
        for name, content in self.cases.items():
            store.put(name, b64decode(content))
        for name in self.passed_again:
            store.remove(name)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the summary of the run."""
        if not setup.is_worker(self.config) and (self.run.records or self.run.lost):
            terminalreporter.section("bn-spec")
            for line in summary(self.run):
                terminalreporter.write_line(line)
