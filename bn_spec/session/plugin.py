"""The pytest plugin: the hooks by which a session runs the suite.

Every pytest session loads this module, so it imports heavy modules only inside functions.
"""

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


# Set-up -------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the group ``bn_spec``; each has an ini key of the same name."""
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Load the backends now if this session runs the suite, so that a wrong name fails first."""
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
    """Refuse to run the suite of a checkout on other machines, and download databases once.

    A worker that starts in another folder counts as one on another machine.
    """
    elsewhere = [spec for spec in specs if spec.chdir or not spec.popen]
    if elsewhere and _names_a_checkout(config):
        raise pytest.UsageError(
            f"--tx {setup.place(elsewhere[0])}: workers elsewhere cannot run the suite of a"
            f" checkout, {suite_folder().resolve()}; install bn-spec here and there (pip install"
            f" .), and name the suite --pyargs {SUITE}, as `bn-spec run` then does"
        )
    databases = config.stash.get(setup.DATABASES, None)
    if databases is not None:
        databases.look()
        config.stash[setup.RUN].notes += databases.notes


def _names_a_checkout(config: pytest.Config) -> bool:
    """Whether an argument of pytest is a path inside the folder of the suite."""
    folder = suite_folder().resolve()
    paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return any(path.is_relative_to(folder) for path in paths)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, None, None]:
    """Turn the traceback of an unreachable machine into a usage error."""
    try:
        yield
    except OSError as error:
        if not setup.workers(session.config):
            raise
        machines = ", ".join(session.config.getoption("tx"))
        raise pytest.UsageError(
            f"--tx: one of {machines} cannot be reached ({error});"
            " start the server there, or leave it out"
        ) from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send a worker of pytest-xdist the seed, the name of its note, and whether to isolate."""
    node.workerinput["bn_seed"] = setup.seed(node.config)
    # A note that a worker writes in another folder, as on another machine, would never be read.
    here = node.gateway.spec.popen and not node.gateway.spec.chdir
    node.workerinput["bn_flight"] = deaths.flight_name(node.gateway.id) if here else ""
    node.workerinput["bn_isolate"] = deaths.after_a_crash(node.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return lines that say what is checked, and how."""
    if setup.SELECTION not in config.stash:
        return []
    selection, by = config.stash[setup.SELECTION], setup.judged_by(config)
    profile = f"profile {by['profile']}"
    examples = options.number(config, "max_examples")
    if examples:
        profile += f" with {examples} examples"
    threads = "threads as the framework chooses"
    if setup.workers(config) > 1:
        threads = "1 thread per worker"
    lines = [
        f"bn-spec: {by['bn-spec']}, specification {by['specification']}, {profile},"
        f" seed {by['seed']}, {threads}"
    ]
    if options.isolates(config):
        limits = options.limits(config)
        lines.append(
            f"  isolated: {limits.seconds:g} s for a call,"
            f" {limits.mebibytes} MiB of memory for a backend"
        )
    for backend in selection.backends.values():
        lines += _described(backend)
    lines += [f"  {name}: not run ({reason})" for name, reason in selection.unavailable.items()]
    databases = setup.databases(config)
    if databases:
        lines.append(f"  failing examples are stored in and read from {databases}")
    return lines


def _described(backend: Backend) -> list[str]:
    """Return the lines of the header about one backend."""
    line = f"  {backend.name}: {backend.description}"
    if backend.capabilities.expensive_signatures:
        line += "; few signatures, as each is expensive"
    departures = backend.capabilities.dialect.departures()
    return [line, *(f"    not as in PyTorch: {sentence}" for sentence in departures)]


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
    """Return the dtypes in which a property is judged, or one to report it as not claimed."""
    claimed = backend.capabilities.dtypes
    return [dtype for dtype in claimed if dtype in prop.dtypes] or claimed[:1]


def _parameter(search: Search) -> Any:
    """Return a search as a pytest parameter, with its chapter as a marker."""
    cell = search.cell
    requirement = cell.prop.requirement
    marks = [getattr(pytest.mark, requirement.chapter)]
    if reason := cell.not_claimed:
        marks.append(pytest.mark.skip(reason=f"not claimed: {reason}"))
    # Example databases and pytest's cache use the id as a key: it must not change between runs.
    name = f"{requirement.id}-{cell.backend.name}-{cell.dtype}"
    return pytest.param(search, id=name, marks=marks)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect cells that do not match ``--bn-requirement``, and slow ones that are not named."""
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
    unwanted = [item for item in items if not wanted(item)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if wanted(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note which cell is judged, so that the note explains the death of this process."""
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
    """End the isolated processes, and remove the notes: this process did not die."""
    _, isolated = config.stash.get(deaths.STAND_INS, ({}, {}))
    for backend in isolated.values():
        backend.close()
    recorder = config.stash.get(deaths.RECORDER, None)
    if recorder is not None:
        recorder.close()
    if setup.SELECTION in config.stash and not setup.is_worker(config):
        for path in deaths.flight_folder(config).glob(deaths.flight_name("*")):
            path.unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the outcome of a cell into a record, and show a finding as its own text.

    The record becomes an attribute of the report, and so reaches the controller. JUnit files get
    the short values.
    """
    report = yield
    search = outcomes.search_of(item)
    # A cell ends with its call, or with a set-up that skips or fails.
    ends = call.when == "call" or (call.when == "setup" and not report.passed)
    if search is None or not ends:
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
