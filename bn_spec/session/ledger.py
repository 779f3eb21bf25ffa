"""The ledger of a session: it gathers the records, wherever the tests ran, writes them and shows them at the end."""

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
    """Gathers the records of a session, wherever its tests ran, and shows them at the end."""

    def __init__(self, run: Run, config: pytest.Config) -> None:
        self.run, self.config = run, config
        self.started = datetime.now(UTC), time.monotonic()
        self.reports: list[tuple[Record, Any]] = []
        self.cases: dict[str, str] = {}
        self.passed_again: list[str] = []
        self.failures: dict[int, list[tuple[int, str]]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is to be reported."""
        self.run.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note what is to be reported by a worker."""
        self.run.collected.update(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Say why a worker did not start, and whether it judged with what is installed here."""
        where = f"{node.gateway.id} ({setup.place(node.gateway.spec)})"
        lines = str(error or "").strip().splitlines()
        if len(lines) > 1:  # a traceback from there
            self.run.lost.append(f"{where} ended: {lines[-1]}")
        there = getattr(node, "workeroutput", {}).get(outcomes.ATTRIBUTE, {})
        if not there or setup.SELECTION not in self.config.stash:
            return
        here = setup.installed(self.config)
        if differing := [
            f"{name} {there[name]}, not {here[name]}" for name in there if there[name] != here[name]
        ]:
            self.run.faults.append(
                f"{where} judged with {'; '.join(differing)}: install there what is installed here"
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Make a record of the cell in which a worker died, with the case that killed it."""
        self.run.lost.append(f"it crashed in {crashitem}")
        if told := deaths.crash(self.config, report.node.gateway.id):
            text, record, cases = told
            report.longrepr = outcomes.failure(report, text)
            outcomes.attach(report, record, cases)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what a report says of its cell."""
        self.run.reported.add(report.nodeid)
        record, sent = outcomes.record_of(report), getattr(report, outcomes.ATTRIBUTE, None)
        if record is not None and sent is not None:
            self.run.records.append(record)
            self.reports.append((record, report))
            self.cases |= sent["cases"]
            self.passed_again += sent["passed"]
            self.run.notes += [note for note in sent["notes"] if note not in self.run.notes]
            for place, concerned, did in sent["failures"]:
                self.failures.setdefault(place, []).append((concerned, did))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge the known failures, and write what is to be kept."""
        if setup.SELECTION not in self.config.stash:
            return
        if setup.is_worker(self.config):
            self.config.workeroutput[outcomes.ATTRIBUTE] = setup.installed(self.config)  # type: ignore[attr-defined]
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
        """Of failures that one fault explains, let pytest show the plainest alone, unless asked for more by ``-v``.

        The mark is that by which pytest's debugger says that it has shown a failure.
        """
        if self.config.get_verbosity() > 0:
            return
        spared = {
            id(each)
            for cause in causes(self.run.records)
            for each in cause.records
            if each is not cause.plainest
        }
        for record, report in self.reports:
            if id(record) in spared:
                report._pdbshown = True

    def _judge_known_failures(self) -> None:
        """Say which entries of the file are of no use any more; write others where that was asked for."""
        from bn_spec.suite.search import MISSED, SEEN, UNSETTLED

        for place, entry in enumerate(setup.entries(self.config)):
            done = self.failures.get(place, [])
            fates = {fate for _, fate in done}
            if not done or len(done) < done[0][0] or fates & {SEEN, UNSETTLED}:
                continue  # not all that it concerns was run, or it is what it says
            gone = (
                "passes unexpectedly"
                if MISSED in fates
                else "matches nothing: no case is in its regions"
            )
            self.run.faults.append(f"{entry} {gone}; its reason was: {entry.reason}; remove it")
        path = options.path(self.config, "known_failures")
        if path and self.config.getoption("bn_known_failures_update"):
            from bn_spec.suite.known_failures_file import append

            added = append(path, self._new_failures())
            self.run.notes.append(f"{path}: entries added: {added}; fill in their reasons")

    def _new_failures(self) -> list[tuple[str, str, str, str]]:
        """Return the failures of this run: requirement, backend, dtype (or all) and observable."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for record in having(self.run.records, FAIL):
            found.setdefault((record.requirement, record.backend, record.observable), []).append(
                record.dtype
            )
        tested = Counter(
            (r.requirement, r.backend) for r in self.run.records if r.status != NOT_CLAIMED
        )
        return [
            (requirement, backend, dtype, observable)
            for (requirement, backend, observable), dtypes in sorted(found.items())
            for dtype in (["*"] if len(dtypes) == tested[requirement, backend] else dtypes)
        ]

    def _write(self) -> None:
        """Write the record of the run, and what it found; let go of what passes again."""
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
        """Show what came of the run."""
        if not setup.is_worker(self.config) and (self.run.records or self.run.lost):
            terminalreporter.section("bn-spec")
            for line in summary(self.run):
                terminalreporter.write_line(line)
