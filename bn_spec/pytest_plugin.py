"""The pytest plugin: options, parametrisation, and a summary. It imports nothing heavy until the suite runs."""

from __future__ import annotations

import os
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .errors import BnSpecError, ConfigError
from .profiles import PROFILES, Profile
from .report.records import CRASHED, FAIL, KNOWN, NOT_CLAIMED, PASS, UNEXPECTED_PASS, VACUOUS, Record, Run, having
from .report.table import summary
from .requirements import requirements_matching
from .suite import SUITE, suite_folder

if TYPE_CHECKING:
    from .backend import Backend
    from .cell import Cell, Property
    from .databases import Databases
    from .isolation import Limits
    from .known_failures import Entry
    from .registry import Selection
    from .store import Store, Stored

RUN = pytest.StashKey[Run]()
_SELECTION = pytest.StashKey["Selection"]()
_SEED = pytest.StashKey[int]()
_STORED = pytest.StashKey[list["Stored"]]()
_ENTRIES = pytest.StashKey[tuple["Entry", ...]]()
_STAND_INS = pytest.StashKey[tuple[dict[str, Any], dict[str, Any]]]()
_RECORDER = pytest.StashKey[Any]()
_CONCERNED = pytest.StashKey[Counter[int]]()
_DATABASES = pytest.StashKey["Databases | None"]()

_ATTRIBUTE = "bn_spec"
"""Of the report of a cell: what travels with it from a worker to who gathers the records."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# Options -----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the group ``bn_spec``; each has an ini key of the same name."""
    group = parser.getgroup("bn_spec", "conformance of BatchNorm2d kernels (bn-spec)")

    def option(name: str, ini_type: Any, text: str, **kwargs: Any) -> None:
        group.addoption(f"--bn-{name}", dest=f"bn_{_key(name)}", default=None, help=text, **kwargs)
        parser.addini(f"bn_{_key(name)}", text, type=ini_type, default=None)

    option(
        "backend",
        "args",
        "backend to check: a registered name, package.module:attribute, path/to/file.py:attribute, or 'all'"
        " (repeatable; default: the reference, and PyTorch's on the devices of this machine)",
        action="append",
        metavar="NAME",
    )
    option("profile", "string", f"how hard to look: {', '.join(PROFILES)} (default: ci)", choices=tuple(PROFILES))
    option("max-examples", "string", "examples per property, backend and dtype", type=_positive, metavar="N")
    option("seed", "string", "seed of the run (default: 0, or a new one for nightly)", type=int, metavar="N")
    option("requirement", "string", "check only the requirements that match, as in 'RUN-*'", metavar="GLOB")
    option(
        "isolate",
        "string",
        "'process': play each backend in a process of its own, which may crash, hang or run out of memory",
        choices=("no", "process"),
    )
    option(
        "timeout", "string", "seconds for one call of a backend in a process that may die (default: 60)", **_SECONDS
    )
    option("memory", "string", "MiB for a backend that is isolated (default: 4096)", type=_positive, metavar="MIB")
    option("known-failures", "string", "failures that are known, each with its reason (TOML)", metavar="FILE")
    group.addoption(
        "--bn-known-failures-update",
        action="store_true",
        help="add the failures of this run to the file of known failures, reasons left to be filled in",
    )
    option(
        "report-dir",
        "string",
        "folder for the record of the run (run.json) and the cases of its findings (default: .bn_spec)",
        metavar="DIR",
    )
    option(
        "database",
        "string",
        "keep what made a check fail, and try it first: a folder, redis://HOST:PORT/NUMBER (written to) or"
        " github:OWNER/REPO (read); several joined by commas, of which the first is written to (default: none)",
        metavar="WHERE",
    )


def _key(name: str) -> str:
    return name.replace("-", "_")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


_SECONDS = {"type": _seconds, "metavar": "SECONDS"}


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"bn_{name}")
    return given if given is not None else (config.getini(f"bn_{name}") or None)


def _number(config: pytest.Config, name: str) -> int | None:
    value = _option(config, name)
    try:
        return None if value is None else int(value)
    except ValueError:
        raise pytest.UsageError(f"bn_{name} is {value!r}; allowed: a whole number") from None


def _limits(config: pytest.Config) -> Limits:
    from .isolation import Limits

    usual, given = Limits(), _option(config, "timeout")
    try:
        seconds = usual.seconds if given is None else _seconds(str(given))
    except ValueError:
        raise pytest.UsageError(f"bn_timeout is {given!r}; allowed: a positive number of seconds") from None
    return Limits(seconds, _number(config, "memory") or usual.mebibytes)


def _isolates(config: pytest.Config) -> bool:
    """Whether backends are played in processes of their own: where that was asked for, and once a worker has died."""
    from .isolation import AVAILABLE

    asked = _option(config, "isolate")
    if asked not in (None, "no", "process"):
        raise pytest.UsageError(f"bn_isolate is {asked!r}; allowed: no, process")
    if asked == "process" and not AVAILABLE:
        raise pytest.UsageError("bn_isolate is 'process', which needs a POSIX system; leave it out")
    return asked == "process" or bool(_handed(config).get("bn_isolate"))


def _handed(config: pytest.Config) -> Mapping[str, Any]:
    """Return what the controller hands to a worker."""
    handed: Mapping[str, Any] = getattr(config, "workerinput", {})
    return handed


def _profile(config: pytest.Config) -> Profile:
    name: str = _option(config, "profile") or "ci"
    if name not in PROFILES:
        raise pytest.UsageError(f"bn_profile is {name!r}; allowed: {', '.join(PROFILES)}")
    return PROFILES[name]


def _report_dir(config: pytest.Config) -> Path:
    from .store import FOLDER

    return _path(config, "report_dir") or config.invocation_params.dir / FOLDER


def _path(config: pytest.Config, name: str) -> Path | None:
    """Return a path that was given."""
    said = _option(config, name)
    return _folder_of(config, name) / str(said) if said else None


def _folder_of(config: pytest.Config, name: str) -> Path:
    """Return what paths of an option are relative to: where pytest was started, or the ini file that says them."""
    if config.getoption(f"bn_{name}"):
        return config.invocation_params.dir
    return (config.inipath or config.rootpath / "ini").parent


def _store(config: pytest.Config) -> Store:
    from .store import Store

    return Store(_report_dir(config) / "cases")


def _pattern(config: pytest.Config) -> str | None:
    pattern: str | None = _option(config, "requirement")
    try:
        if pattern is not None:
            requirements_matching(pattern)
    except ConfigError as error:
        raise pytest.UsageError(f"bn_requirement: {error}") from None
    return pattern


# Set-up ------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Load the backends at once if this session runs the suite, so that a wrong name fails before anything else."""
    run = config.stash[RUN] = Run()
    run.stopped = bool(config.getoption("maxfail", 0))
    config.pluginmanager.register(_Ledger(run, config), "bn_spec_ledger")
    if _runs_the_suite(config):
        _pattern(config)
        _limits(config)
        _selection(config)
        _entries(config)
        _check_report_dir(config)
        _databases(config)
        _recover(config)


def _entries(config: pytest.Config) -> tuple[Entry, ...]:
    """Return the known failures of the file, if there is one; those whose time is over excuse nobody any more."""
    if _ENTRIES in config.stash:
        return config.stash[_ENTRIES]
    from .known_failures import load, superfluous

    path, updated = _path(config, "known_failures"), config.getoption("bn_known_failures_update")
    if path is None and updated:
        raise pytest.UsageError("--bn-known-failures-update needs to know of which file: --bn-known-failures FILE")
    try:
        entries = load(path) if path and (path.exists() or not updated) else ()
    except ConfigError as error:
        raise pytest.UsageError(f"bn-spec: {error}") from None
    today, run = datetime.now(UTC).date(), config.stash[RUN]
    run.faults += [
        f"{e} expired on {e.expires}: {e.reason}; mend it, or renew it" for e in entries if e.expired(today)
    ]
    entries = tuple(entry for entry in entries if not entry.expired(today))
    run.faults += superfluous(entries, _selection(config).backends.values())
    config.stash[_ENTRIES] = entries
    return entries


def _databases(config: pytest.Config) -> Databases | None:
    """Return the example databases, if there are to be any."""
    where = _option(config, "database")
    if _DATABASES not in config.stash:
        config.stash[_DATABASES] = _opened(config, where) if where else None
    return config.stash[_DATABASES]


def _opened(config: pytest.Config, where: str) -> Databases:
    from .databases import open_databases

    relative_to, downloads = _folder_of(config, "database"), _report_dir(config) / "artifacts"
    try:
        return open_databases(where, relative_to=relative_to, downloads=downloads)
    except ConfigError as error:
        raise pytest.UsageError(f"bn_database: {error}") from None


def _check_report_dir(config: pytest.Config) -> None:
    """Make the folder that was asked for, so that nobody learns after the run that there cannot be one."""
    if folder := _option(config, "report_dir"):
        try:
            _report_dir(config).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"bn_report_dir is {folder!r}, which cannot be made: {error}") from None


def _runs_the_suite(config: pytest.Config) -> bool:
    folder = suite_folder()

    def inside(argument: str) -> bool:
        path = argument.partition("::")[0]
        return path.startswith(SUITE) or (config.invocation_params.dir / path).resolve().is_relative_to(folder)

    return any(inside(str(argument)) for argument in config.args)


def _selection(config: pytest.Config) -> Selection:
    if _SELECTION not in config.stash:
        from .registry import select

        if _handed(config).get("workercount", 1) > 1:
            # Workers share the cores; a framework reads these when it is imported.
            for variable in _THREADS:
                os.environ.setdefault(variable, "1")
        try:
            if _isolates(config) and not _is_worker(config):
                _check_loading(config)
            config.stash[_SELECTION] = selection = select(_option(config, "backend") or ())
        except BnSpecError as error:
            raise pytest.UsageError(f"bn-spec: {error}") from error
        config.stash[RUN].unavailable = selection.unavailable
    return config.stash[_SELECTION]


def _check_loading(config: pytest.Config) -> None:
    """Load what was asked for elsewhere first, so that a backend that kills who loads it is told so."""
    from .isolation import check_loading

    for name in _option(config, "backend") or ():
        if name != "all":
            check_loading(name, _limits(config))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _seed(config: pytest.Config) -> int:
    """Return the seed of the run; the controller draws it and hands it to the workers."""
    if _SEED not in config.stash:
        given = _number(config, "seed")
        handed: int | None = _handed(config).get("bn_seed")
        config.stash[_SEED] = next(
            (seed for seed in (given, handed) if seed is not None),
            _profile(config).seed(),
        )
    return config.stash[_SEED]


def _workers(config: pytest.Config) -> int:
    """Return how many workers of pytest-xdist share the run, here and on other machines."""
    if config.getoption("dist", "no") == "no":
        return 0
    specs = [spec.partition("*") for spec in config.getoption("tx", None) or ()]
    return sum(int(times) if rest and times.isdigit() else 1 for times, _, rest in specs)


def _place(spec: object) -> str:
    """Return a place of ``--tx`` as it was given, without what pytest-xdist puts before it."""
    return str(spec).removeprefix("execmodel=main_thread_only//")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Refuse to share a run of a checkout with workers that start in another folder, as on other machines.

    And have done, before there are workers, what they need to find done.
    """
    elsewhere = [spec for spec in specs if spec.chdir or not spec.popen]
    folder = suite_folder().resolve()
    if elsewhere and any(Path(arg.partition("::")[0]).resolve().is_relative_to(folder) for arg in config.args):
        raise pytest.UsageError(
            f"--tx {_place(elsewhere[0])}: workers elsewhere cannot be handed the suite of a checkout, {folder};"
            f" install bn-spec here and there (pip install .), and name the suite --pyargs {SUITE}, as `bn-spec run`"
            " then does"
        )
    if databases := config.stash.get(_DATABASES, None):
        databases.look()
        config.stash[RUN].notes += databases.notes


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, None, None]:
    """Say in a sentence that a machine cannot be reached."""
    try:
        yield
    except OSError as error:
        if not _workers(session.config):
            raise
        machines = ", ".join(session.config.getoption("tx"))
        raise pytest.UsageError(
            f"--tx: one of {machines} cannot be reached ({error}); start what is to listen there, or leave it out"
        ) from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand a worker of pytest-xdist the seed of the run, where to note its cases, and whether others have died."""
    node.workerinput["bn_seed"] = _seed(node.config)
    node.workerinput["bn_flight"] = _flight_name(node.gateway.id)
    node.workerinput["bn_isolate"] = _after_a_crash(node.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Print what is checked, and how."""
    if _SELECTION not in config.stash:
        return []
    selection, by = config.stash[_SELECTION], _judged_by(config)
    examples = _number(config, "max_examples")
    lines = [
        f"bn-spec: {by['bn-spec']}, specification {by['specification']}, profile {by['profile']}"
        f"{f' with {examples} examples' if examples else ''}, seed {by['seed']},"
        f" {'1 thread per worker' if _workers(config) > 1 else 'threads as the framework chooses'}"
    ]
    if _isolates(config):
        limits = _limits(config)
        lines += [f"  isolated: {limits.seconds:g} s for a call, {limits.mebibytes} MiB of memory for a backend"]
    for backend in selection.backends.values():
        few = "; few signatures, as each is expensive" if backend.capabilities.expensive_signatures else ""
        lines.append(f"  {backend.name}: {backend.description}{few}")
        lines += [f"    not as in PyTorch: {sentence}" for sentence in backend.capabilities.dialect.departures()]
    lines += [f"  {name}: not run ({reason})" for name, reason in selection.unavailable.items()]
    if databases := _databases(config):
        lines.append(f"  examples that failed are kept in and tried from {databases}")
    return lines


def _installed(config: pytest.Config) -> dict[str, str]:
    """Return what decides what a run says: the versions of all that takes part, as far as they are known."""
    from .report.run_file import packages

    backends = {each.name: f"({each.description})" for each in _selection(config).backends.values()}
    return {"bn-spec": str(_judged_by(config)["bn-spec"])} | packages() | backends


def _judged_by(config: pytest.Config) -> dict[str, Any]:
    """Return what judges, and how."""
    from . import __version__
    from .requirements import SPECIFICATION

    profile = _profile(config)
    return {
        "bn-spec": __version__,
        "specification": SPECIFICATION,
        "profile": profile.name,
        "examples": _number(config, "max_examples") or profile.examples,
        "seed": _seed(config),
    }


# Collection --------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each property one cell per backend and claimed dtype, in a stable order."""
    prop = getattr(metafunc.function, "bn_property", None)
    if prop is None:
        return
    from .cell import OTHER_DTYPES, Cell
    from .judge import SURVIVAL

    config = metafunc.config
    playing, isolated = _stand_ins(config)
    settings = _profile(config).settings(_number(config, "max_examples"))
    cells = [
        Cell(
            prop,
            playing.get(address, backend),
            dtype,
            settings,
            _seed(config),
            address,
            OTHER_DTYPES if place else 1.0,
            tuple(e.failure for e in _entries(config) if e.concerns(backend.name, prop.requirement.id, dtype)),
            {each.id: each.case for each in stored},
            frozenset(each.id for each in stored if each.observable == SURVIVAL),
            isolated.get(address),
            _databases(config),
        )
        for address, backend in _selection(config).backends.items()
        for place, dtype in enumerate(_dtypes(prop, backend))
        for stored in [_stored(config, prop.requirement.id, backend.name, dtype)]
    ]
    metafunc.parametrize("cell", [_parameter(cell) for cell in cells])


def _stored(config: pytest.Config, requirement: str, backend: str, dtype: str) -> list[Stored]:
    """Return the cases on which a backend violated a requirement in a dtype in earlier runs."""
    if _STORED not in config.stash:
        config.stash[_STORED] = list(_store(config))
    wanted = (requirement, backend, dtype)
    return [
        each for each in config.stash[_STORED] if (each.requirement, each.backend, each.case.config.dtype) == wanted
    ]


def _dtypes(prop: Property, backend: Backend) -> Sequence[str]:
    """Return the dtypes in which a property is judged; if there are none, one in which it is not claimed."""
    claimed = backend.capabilities.dtypes
    return [dtype for dtype in claimed if dtype in prop.dtypes] or claimed[:1]


def _parameter(cell: Cell) -> Any:
    reason = cell.not_claimed
    marks = [pytest.mark.skip(reason=f"not claimed: {reason}")] if reason else []
    return pytest.param(cell, id=f"{cell.backend.name}-{cell.dtype}", marks=marks)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect cells whose requirement does not match ``--bn-requirement``, and those that nobody asked for."""
    pattern = _pattern(config) or "*"
    deep = _profile(config).deep

    def wanted(item: pytest.Item) -> bool:
        cell = _cell(item)
        if cell is None:
            return True
        requirement = cell.prop.requirement.id
        everyday = not cell.prop.huge and (deep or not cell.prop.deep)
        return requirement == pattern or (everyday and fnmatchcase(requirement, pattern))

    def everyday(item: pytest.Item) -> bool:
        cell = _cell(item)
        return cell is not None and not cell.not_claimed and not cell.prop.huge and (deep or not cell.prop.deep)

    config.stash[_CONCERNED] = Counter(
        place for item in items if everyday(item) for place in _concerning(config, _cell(item))
    )
    if unwanted := [item for item in items if not wanted(item)]:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if wanted(item)]


def _concerning(config: pytest.Config, cell: Cell | None) -> list[int]:
    """Return the places of the known failures, among those of the file, that a cell may have."""
    excused = cell.excused if cell else ()
    return [place for place, entry in enumerate(_entries(config)) if entry.failure in excused]


# Processes that die ------------------------------------------------------------------------------------


def _stand_ins(config: pytest.Config) -> tuple[dict[str, Backend], dict[str, Backend]]:
    """Return, by address, who plays the cases of the backends, and who those that have killed a process."""
    from .flight import Recorded, Recorder
    from .isolation import AVAILABLE, Isolated

    if _STAND_INS not in config.stash:
        limits, backends = _limits(config), _selection(config).backends
        isolated: dict[str, Backend] = {}
        if AVAILABLE:
            isolated = {address: Isolated(backend, address, limits) for address, backend in backends.items()}
        playing = isolated
        if not _isolates(config):
            folder, name = _flight_folder(config), _handed(config).get("bn_flight", _flight_name("main"))
            recorder = config.stash[_RECORDER] = Recorder(folder / name)
            watched = limits if _is_worker(config) else None
            playing = {address: Recorded(backend, recorder, watched) for address, backend in backends.items()}
        config.stash[_STAND_INS] = playing, isolated
    return config.stash[_STAND_INS]


def _flight_folder(config: pytest.Config) -> Path:
    from .flight import FOLDER

    return _report_dir(config) / FOLDER


def _flight_name(worker: str) -> str:
    """Return what the note of a process is called: its first part says who must live so that it is looked after."""
    return f"{os.getpid()}-{worker}"


def _after_a_crash(config: pytest.Config) -> bool:
    from .isolation import AVAILABLE

    return AVAILABLE and bool(config.stash[RUN].lost)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note which cell is run, for who finds this process dead."""
    cell = _cell(item)
    if cell is not None and _RECORDER in item.config.stash:
        names = {"test": item.nodeid, "requirement": cell.prop.requirement.id, "property": cell.prop.body.__name__}
        of = {"backend": cell.backend.name, "address": cell.address, "dtype": cell.dtype}
        item.config.stash[_RECORDER].begin(names | of)
    yield


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the processes of this one, and remove its notes: it has lived to see the end."""
    for isolated in config.stash.get(_STAND_INS, ({}, {}))[1].values():
        isolated.close()
    if recorder := config.stash.get(_RECORDER, None):
        recorder.close()
    if _SELECTION in config.stash and not _is_worker(config):
        for path in _flight_folder(config).glob(_flight_name("*")):
            path.unlink(missing_ok=True)


def _recover(config: pytest.Config) -> None:
    """Keep what an earlier run was playing when it died, to be played first in this one, and say so."""
    from .flight import left_behind

    if _is_worker(config):
        return
    for path, note in left_behind(_flight_folder(config)):
        if note and note.playing:
            from .crashes import noted_violation

            kept = _kept(config, noted_violation(note))
            for name, content in kept.cases.items():
                _store(config).put(name, b64decode(content))
            first = f"the case is played first, in a process of its own: {', '.join(kept.cases)}"
            then = first if kept.cases else "the case is too large to be kept"
            config.stash[RUN].notes.append(f"an earlier run died in {note.about['test']}; {then}")
        path.unlink(missing_ok=True)


def _crash(config: pytest.Config, worker: str) -> tuple[str, dict[str, Any]] | None:
    """Return how the death of a worker reads, and what is sent of its cell; None if it has noted nothing."""
    from .crashes import crashed_cell, noted_violation, reproduced
    from .flight import read
    from .isolation import AVAILABLE, Isolated

    note = read(_flight_folder(config) / _flight_name(worker))
    if note is None:
        return None
    start, by = time.monotonic(), _judged_by(config)
    address = note.about["address"]
    with closing(Isolated(_selection(config).backends[address], address, _limits(config))) as isolated:
        cell = crashed_cell(note, isolated, by["examples"], by["seed"])
        found = reproduced(note, cell) if AVAILABLE else noted_violation(note)
    kept = _kept(config, found)
    how = found.finding.discrepancy.got if found else "in a case too large to note"
    text = f"a worker died: {how}" + (f"\n{kept.error}" if kept.error else "")
    record = _record(cell, CRASHED, text, time.monotonic() - start, kept)
    return text, {"record": record.to_dict(), "cases": kept.cases, "passed": [], "failures": []}


# Reports -----------------------------------------------------------------------------------------------


def _cell(item: pytest.Item) -> Cell | None:
    call = getattr(item, "callspec", None)
    cell = call.params.get("cell") if call else None
    return cell if hasattr(getattr(item, "function", None), "bn_property") else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the outcome of a cell into a record, and a finding into its own text.

    The record becomes an attribute of the report, which travels with it; JUnit files get what is short.
    """
    report = yield
    cell = _cell(item)
    if cell is not None and (call.when == "call" or (call.when == "setup" and not report.passed)):
        kept = _kept(item.config, call.excinfo.value if call.excinfo else None)
        status, text = _status(cell, report, kept.error)
        _show(report, status, text)
        record = _record(cell, status, text, call.duration, kept)
        sent = {"record": record.to_dict(), "cases": kept.cases, "passed": cell.passed_again}
        sent["notes"] = cell.databases.notes if cell.databases else []
        setattr(report, _ATTRIBUTE, sent | {"failures": _failures(item.config, cell)})
        item.user_properties += _junit(record)
    return report


def record_of(report: pytest.TestReport) -> Record | None:
    """Return the record of the cell that a report is of, or None where it is of none or not of its end."""
    sent = getattr(report, _ATTRIBUTE, None)
    return sent and Record.from_dict(sent["record"])


def _failures(config: pytest.Config, cell: Cell) -> list[tuple[int, int, str]]:
    """Return of each entry of the file that concerns a cell: its place, how many it concerns, and its fate."""
    entries, concerned = _entries(config), config.stash[_CONCERNED]

    return [(place, concerned[place], cell.fate(entries[place].failure)) for place in _concerning(config, cell)]


class _Kept(NamedTuple):
    """An error, which says how to play its case again, and the files of the cases that are to be kept, by id."""

    error: BaseException | None
    cases: dict[str, str]


def _kept(config: pytest.Config, error: BaseException | None) -> _Kept:
    from .cell import Violation
    from .store import Stored

    if not isinstance(error, Violation) or (stored := Stored.of(error.finding, error.drawn)) is None:
        return _Kept(error, {})
    folder = _option(config, "report_dir")
    name = str(_store(config).path(stored.id)) if folder else stored.id
    told = type(error)(replace(error.finding, replay=f"bn-spec replay {name}"))
    return _Kept(told, {stored.id: b64encode(stored.content).decode()})


LONGEST_CASE = 4096
"""Values and characters beyond which the case of the worst err / bound is not written into a record."""


def _record(cell: Cell, status: str, text: str, seconds: float, kept: _Kept) -> Record:
    from .case import source
    from .cell import Violation

    found = kept.error.finding.discrepancy.observable if isinstance(kept.error, Violation) else ""

    worst = cell.worst_case
    small = worst is not None and sum(x.size for x in worst.forwards()) <= LONGEST_CASE
    code = source(worst) if worst is not None and small else ""
    return Record(
        cell.prop.requirement.id,
        cell.backend.name,
        cell.dtype,
        status,
        examples=cell.examples,
        discarded=cell.discarded,
        judged=cell.judged,
        outside=cell.outside,
        seconds=round(seconds, 4),
        shares=cell.shares,
        worst_case=code if len(code) <= LONGEST_CASE else "",
        text=text,
        observable=found,
        cases=tuple(kept.cases),
        grade=cell.measured_grade,
        claimed_grade=cell.claims.grade,
        conditioning=cell.conditioning,
        reached=dict(cell.reached),
    )


def _junit(record: Record) -> list[tuple[str, object]]:
    """Return what JUnit files say of a cell."""
    worst = [] if record.worst is None else [("worst err/bound", f"{record.worst:.4g}")]
    return [("requirement", record.requirement), ("status", record.status), *worst]


def _status(cell: Cell, report: pytest.TestReport, error: BaseException | None) -> tuple[str, str]:
    from .cell import Vacuous, Violation

    if report.skipped:
        return NOT_CLAIMED, cell.not_claimed
    if isinstance(error, Vacuous):
        return VACUOUS, str(error)
    if isinstance(error, Violation):
        return FAIL, str(error)
    if error is not None:
        return CRASHED, f"{type(error).__name__}: {error}"
    if unseen := cell.no_longer_failing:
        return UNEXPECTED_PASS, (
            f"{cell.prop.requirement.id} holds for {cell.backend.name}, which declares a known failure of it"
            f" ({unseen[0].observable}: {unseen[0].reason}); remove the declaration"
        )
    if cell.known:
        return KNOWN, "\n".join(dict.fromkeys(known.reason for known in cell.known))
    return PASS, ""


def _show(report: pytest.TestReport, status: str, text: str) -> None:
    if status in (FAIL, VACUOUS, UNEXPECTED_PASS):
        report.outcome, report.longrepr = "failed", text
    elif status == KNOWN:
        report.outcome, report.wasxfail = "skipped", text


class _Ledger:
    """Gathers the records of a session, wherever its tests ran, and shows them at the end."""

    def __init__(self, run: Run, config: pytest.Config) -> None:
        self.run, self.config = run, config
        self.started = datetime.now(UTC), time.monotonic()
        self.cases: dict[str, str] = {}
        self.passed_again: list[str] = []
        self.failures: dict[int, list[tuple[int, str]]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.run.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.run.collected.update(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Say why a worker did not start, and whether it judged with what is installed here."""
        where = f"{node.gateway.id} ({_place(node.gateway.spec)})"
        lines = str(error or "").strip().splitlines()
        if len(lines) > 1:  # a traceback from there
            self.run.lost.append(f"{where} ended: {lines[-1]}")
        there = getattr(node, "workeroutput", {}).get(_ATTRIBUTE, {})
        if not there or _SELECTION not in self.config.stash:
            return
        here = _installed(self.config)
        if differing := [f"{name} {there[name]}, not {here[name]}" for name in there if there[name] != here[name]]:
            self.run.faults.append(
                f"{where} judged with {'; '.join(differing)}: install there what is installed here"
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Make a record of the cell in which a worker died, with the case that killed it."""
        self.run.lost.append(f"it crashed in {crashitem}")
        if told := _crash(self.config, report.node.gateway.id):
            report.longrepr = told[0]
            setattr(report, _ATTRIBUTE, told[1])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.run.reported.add(report.nodeid)
        record, sent = record_of(report), getattr(report, _ATTRIBUTE, None)
        if record is not None and sent is not None:
            self.run.records.append(record)
            self.cases |= sent["cases"]
            self.passed_again += sent["passed"]
            self.run.notes += [note for note in sent["notes"] if note not in self.run.notes]
            for place, concerned, did in sent["failures"]:
                self.failures.setdefault(place, []).append((concerned, did))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if _SELECTION not in self.config.stash:
            return
        if _is_worker(self.config):
            self.config.workeroutput[_ATTRIBUTE] = _installed(self.config)  # type: ignore[attr-defined]
            return
        self._judge_known_failures()
        if self.run.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        try:
            self._write()
        except OSError as error:
            self.run.notes.append(f"the record and the cases of this run could not be written: {error}")

    def _judge_known_failures(self) -> None:
        """Say which entries of the file are of no use any more; write others where that was asked for."""
        from .cell import MISSED, SEEN, UNSETTLED

        for place, entry in enumerate(_entries(self.config)):
            done = self.failures.get(place, [])
            fates = {fate for _, fate in done}
            if not done or len(done) < done[0][0] or fates & {SEEN, UNSETTLED}:
                continue  # not all that it concerns was run, or it is what it says
            gone = "passes unexpectedly" if MISSED in fates else "matches nothing: no case is in its regions"
            self.run.faults.append(f"{entry} {gone}; its reason was: {entry.reason}; remove it")
        path = _path(self.config, "known_failures")
        if path and self.config.getoption("bn_known_failures_update"):
            from .known_failures import append

            added = append(path, self._new_failures())
            self.run.notes.append(f"{path}: {added} entries were added; fill in their reasons")

    def _new_failures(self) -> list[tuple[str, str, str, str]]:
        """Return the failures of this run: requirement, backend, dtype (or all) and observable."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for record in having(self.run.records, FAIL):
            found.setdefault((record.requirement, record.backend, record.observable), []).append(record.dtype)
        tested = Counter((r.requirement, r.backend) for r in self.run.records if r.status != NOT_CLAIMED)
        return [
            (requirement, backend, dtype, observable)
            for (requirement, backend, observable), dtypes in sorted(found.items())
            for dtype in (["*"] if len(dtypes) == tested[requirement, backend] else dtypes)
        ]

    def _write(self) -> None:
        """Write the record of the run, and what it found; let go of what passes again."""
        from .report.run_file import NAME, RunFile

        folder, store = _report_dir(self.config), _store(self.config)
        began, clock = self.started
        timing = {
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "workers": _workers(self.config),
        }
        backends = list(self.config.stash[_SELECTION].backends.values())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", "utf-8")
        RunFile.of(self.run, _judged_by(self.config), backends, timing).save(folder / NAME)
        for name, content in self.cases.items():
            store.put(name, b64decode(content))
        for name in self.passed_again:
            store.remove(name)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not _is_worker(self.config) and (self.run.records or self.run.lost):
            terminalreporter.section("bn-spec")
            for line in summary(self.run):
                terminalreporter.write_line(line)
