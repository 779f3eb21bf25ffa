"""The pytest plugin: the hooks by which a session runs the suite. It imports nothing heavy until it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bn_spec.report.records import Run
from bn_spec.session import deaths, options, outcomes, setup
from bn_spec.session.ledger import Ledger
from bn_spec.specification.requirement import CHAPTERS
from bn_spec.suite.chapters import SUITE, load_suite, suite_folder

if TYPE_CHECKING:
    from bn_spec.backend.contract import Backend
    from bn_spec.suite.property import Property
    from bn_spec.suite.search import Search


# Set-up ------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the group ``bn_spec``; each has an ini key of the same name."""
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Load the backends at once if this session runs the suite, so that a wrong name fails before anything else."""
    for chapter, title in CHAPTERS.items():
        config.addinivalue_line("markers", f"{chapter}: {title} (bn-spec)")
    run = config.stash[setup.RUN] = Run()
    run.stopped = bool(config.getoption("maxfail", 0))
    config.pluginmanager.register(Ledger(run, config), "bn_spec_ledger")
    if setup.runs_the_suite(config):
        load_suite()
        options.pattern(config)
        options.limits(config)
        setup.selection(config)
        setup.entries(config)
        options.check_report_dir(config)
        setup.databases(config)
        deaths.recover(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Refuse to share a run of a checkout with workers that start in another folder, as on other machines.

    And have done, before there are workers, what they need to find done.
    """
    elsewhere = [spec for spec in specs if spec.chdir or not spec.popen]
    folder = suite_folder().resolve()
    if elsewhere and any(
        Path(arg.partition("::")[0]).resolve().is_relative_to(folder) for arg in config.args
    ):
        raise pytest.UsageError(
            f"--tx {setup.place(elsewhere[0])}: workers elsewhere cannot be handed the suite of a checkout, {folder};"
            f" install bn-spec here and there (pip install .), and name the suite --pyargs {SUITE}, as `bn-spec run`"
            " then does"
        )
    if databases := config.stash.get(setup.DATABASES, None):
        databases.look()
        config.stash[setup.RUN].notes += databases.notes


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, None, None]:
    """Say in a sentence that a machine cannot be reached."""
    try:
        yield
    except OSError as error:
        if not setup.workers(session.config):
            raise
        machines = ", ".join(session.config.getoption("tx"))
        raise pytest.UsageError(
            f"--tx: one of {machines} cannot be reached ({error}); start what is to listen there, or leave it out"
        ) from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand a worker of pytest-xdist the seed of the run, where to note its cases, and whether others have died."""
    node.workerinput["bn_seed"] = setup.seed(node.config)
    here = (
        node.gateway.spec.popen and not node.gateway.spec.chdir
    )  # nobody here reads what is noted elsewhere
    node.workerinput["bn_flight"] = deaths.flight_name(node.gateway.id) if here else ""
    node.workerinput["bn_isolate"] = deaths.after_a_crash(node.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Print what is checked, and how."""
    if setup.SELECTION not in config.stash:
        return []
    selection, by = config.stash[setup.SELECTION], setup.judged_by(config)
    examples = options.number(config, "max_examples")
    lines = [
        f"bn-spec: {by['bn-spec']}, specification {by['specification']}, profile {by['profile']}"
        f"{f' with {examples} examples' if examples else ''}, seed {by['seed']},"
        f" {'1 thread per worker' if setup.workers(config) > 1 else 'threads as the framework chooses'}"
    ]
    if options.isolates(config):
        limits = options.limits(config)
        lines += [
            f"  isolated: {limits.seconds:g} s for a call, {limits.mebibytes} MiB of memory for a backend"
        ]
    for backend in selection.backends.values():
        few = (
            "; few signatures, as each is expensive"
            if backend.capabilities.expensive_signatures
            else ""
        )
        lines.append(f"  {backend.name}: {backend.description}{few}")
        lines += [
            f"    not as in PyTorch: {sentence}"
            for sentence in backend.capabilities.dialect.departures()
        ]
    lines += [f"  {name}: not run ({reason})" for name, reason in selection.unavailable.items()]
    if databases := setup.databases(config):
        lines.append(f"  examples that failed are kept in and tried from {databases}")
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each property one search per backend and claimed dtype, in a stable order."""
    prop = getattr(metafunc.function, "bn_property", None)
    if prop is not None:
        searches = list(_searches(metafunc.config, prop))
        metafunc.parametrize("search", [_parameter(search) for search in searches])


def _searches(config: pytest.Config, prop: Property) -> Iterator[Search]:
    from bn_spec.judge.judging import SURVIVAL
    from bn_spec.suite.cell import Cell
    from bn_spec.suite.search import OTHER_DTYPES, Search
    from bn_spec.tools.diagnosis import explain

    playing, isolated = deaths.stand_ins(config)
    settings = options.profile(config).settings(options.number(config, "max_examples"))
    requirement = prop.requirement.id
    for address, backend in setup.selection(config).backends.items():
        for place, dtype in enumerate(_dtypes(prop, backend)):
            excused = setup.excused(config, backend.name, requirement, dtype)
            stored = setup.stored(config, requirement, backend.name, dtype)
            yield Search(
                Cell(prop, playing.get(address, backend), dtype, address, excused),
                settings,
                setup.seed(config),
                share=OTHER_DTYPES if place else 1.0,
                stored={each.id: each.case for each in stored},
                fatal=frozenset(each.id for each in stored if each.observable == SURVIVAL),
                isolated=isolated.get(address),
                databases=setup.databases(config),
                explain=explain,
            )


def _dtypes(prop: Property, backend: Backend) -> Sequence[str]:
    """Return the dtypes in which a property is judged, or one in which it is not claimed."""
    claimed = backend.capabilities.dtypes
    return [dtype for dtype in claimed if dtype in prop.dtypes] or claimed[:1]


def _parameter(search: Search) -> Any:
    """Return a search as a parameter of pytest, with the requirement in its id and its chapter as a marker."""
    cell = search.cell
    requirement = cell.prop.requirement
    marks = [getattr(pytest.mark, requirement.chapter)]
    if reason := cell.not_claimed:
        marks.append(pytest.mark.skip(reason=f"not claimed: {reason}"))
    name = f"{requirement.id}-{cell.backend.name}-{cell.dtype}"
    return pytest.param(search, id=name, marks=marks)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect cells whose requirement does not match ``--bn-requirement``, and those that nobody asked for."""
    pattern = options.pattern(config) or "*"
    deep = options.profile(config).deep

    def everyday(search: Search) -> bool:
        prop = search.cell.prop
        return not prop.huge and (deep or not prop.deep)

    def wanted(item: pytest.Item) -> bool:
        search = outcomes.search_of(item)
        if search is None:
            return True
        requirement = search.cell.prop.requirement.id
        return requirement == pattern or (everyday(search) and fnmatchcase(requirement, pattern))

    judged = []
    for item in items:
        search = outcomes.search_of(item)
        if search is not None and everyday(search) and not search.cell.not_claimed:
            judged.append(search)
    config.stash[outcomes.CONCERNED] = Counter(
        place for search in judged for place in outcomes.concerning(config, search.cell)
    )
    if unwanted := [item for item in items if not wanted(item)]:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if wanted(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note which cell is judged, for whoever finds this process dead."""
    search = outcomes.search_of(item)
    if search is not None and deaths.RECORDER in item.config.stash:
        cell = search.cell
        names = {
            "test": item.nodeid,
            "requirement": cell.prop.requirement.id,
            "property": cell.prop.body.__name__,
            "backend": cell.backend.name,
            "address": cell.address,
            "dtype": cell.dtype,
        }
        item.config.stash[deaths.RECORDER].begin(names)
    yield


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the processes of this one, and remove its notes: it has lived to see the end."""
    for isolated in config.stash.get(deaths.STAND_INS, ({}, {}))[1].values():
        isolated.close()
    if recorder := config.stash.get(deaths.RECORDER, None):
        recorder.close()
    if setup.SELECTION in config.stash and not setup.is_worker(config):
        for path in deaths.flight_folder(config).glob(deaths.flight_name("*")):
            path.unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the outcome of a cell into a record, and a finding into its own text.

    The record becomes an attribute of the report, which travels with it; JUnit files get what is
    short.
    """
    report = yield
    search = outcomes.search_of(item)
    if search is None or not (call.when == "call" or (call.when == "setup" and not report.passed)):
        return report
    kept = outcomes.kept(item.config, call.excinfo.value if call.excinfo else None)
    status, text = outcomes.status_of(search, report, kept.error)
    outcomes.show(report, status, text)
    record = outcomes.recorded(search.cell, status, text, call.duration, kept)
    outcomes.attach(
        report,
        record,
        kept.cases,
        passed=search.passed_again,
        failures=outcomes.failures_of(item.config, search),
        notes=search.databases.notes if search.databases else (),
    )
    item.user_properties += outcomes.junit(record)
    return report
