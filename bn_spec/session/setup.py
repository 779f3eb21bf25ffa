"""What a session stands on, each part made once: backends, seed, known failures, databases, stored cases."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from bn_spec.errors import BnSpecError, ConfigError
from bn_spec.report.records import Run
from bn_spec.session import options
from bn_spec.suite.chapters import SUITE, suite_folder

if TYPE_CHECKING:
    from bn_spec.backend.known_failure import KnownFailure
    from bn_spec.backend.registry import Selection
    from bn_spec.suite.databases import Databases
    from bn_spec.suite.known_failures_file import Entry
    from bn_spec.tools.stored_cases import Stored

RUN = pytest.StashKey[Run]()
SELECTION = pytest.StashKey["Selection"]()
SEED = pytest.StashKey[int]()
STORED = pytest.StashKey[list["Stored"]]()
ENTRIES = pytest.StashKey[tuple["Entry", ...]]()
DATABASES = pytest.StashKey["Databases | None"]()

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def runs_the_suite(config: pytest.Config) -> bool:
    """Whether the session was asked to run the suite."""
    folder = suite_folder()

    def inside(argument: str) -> bool:
        path = argument.partition("::")[0]
        return path.startswith(SUITE) or (
            config.invocation_params.dir / path
        ).resolve().is_relative_to(folder)

    return any(inside(str(argument)) for argument in config.args)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def selection(config: pytest.Config) -> Selection:
    """Return the backends of the run; raise UsageError if one cannot be had."""
    if SELECTION not in config.stash:
        from bn_spec.backend.registry import select

        if options.handed(config).get("workercount", 1) > 1:
            # Workers share the cores; a framework reads these when it is imported.
            for variable in THREADS:
                os.environ.setdefault(variable, "1")
        try:
            if options.isolates(config) and not is_worker(config):
                _check_loading(config)
            config.stash[SELECTION] = selection = select(options.option(config, "backend") or ())
        except BnSpecError as error:
            raise pytest.UsageError(f"bn-spec: {error}") from error
        config.stash[RUN].unavailable = selection.unavailable
    return config.stash[SELECTION]


def _check_loading(config: pytest.Config) -> None:
    """Load what was asked for elsewhere first, so that a backend that kills who loads it is told so."""
    from bn_spec.play.isolated import check_loading

    for name in options.option(config, "backend") or ():
        if name != "all":
            check_loading(name, options.limits(config))


def entries(config: pytest.Config) -> tuple[Entry, ...]:
    """Return the known failures of the file, if there is one; those whose time is over excuse nobody any more."""
    if ENTRIES in config.stash:
        return config.stash[ENTRIES]
    from bn_spec.suite.known_failures_file import load, superfluous

    path, updated = (
        options.path(config, "known_failures"),
        config.getoption("bn_known_failures_update"),
    )
    if path is None and updated:
        raise pytest.UsageError(
            "--bn-known-failures-update needs to know of which file: --bn-known-failures FILE"
        )
    try:
        entries = load(path) if path and (path.exists() or not updated) else ()
    except ConfigError as error:
        raise pytest.UsageError(f"bn-spec: {error}") from None
    today, run = datetime.now(UTC).date(), config.stash[RUN]
    run.faults += [
        f"{e} expired on {e.expires}: {e.reason}; mend it, or renew it"
        for e in entries
        if e.expired(today)
    ]
    entries = tuple(entry for entry in entries if not entry.expired(today))
    run.faults += superfluous(entries, selection(config).backends.values())
    config.stash[ENTRIES] = entries
    return entries


def databases(config: pytest.Config) -> Databases | None:
    """Return the example databases, if there are to be any."""
    where = options.option(config, "database")
    if DATABASES not in config.stash:
        config.stash[DATABASES] = _opened(config, where) if where else None
    return config.stash[DATABASES]


def _opened(config: pytest.Config, where: str) -> Databases:
    from bn_spec.suite.databases import open_databases

    relative_to, downloads = (
        options.folder_of(config, "database"),
        options.report_dir(config) / "artifacts",
    )
    try:
        return open_databases(where, relative_to=relative_to, downloads=downloads)
    except ConfigError as error:
        raise pytest.UsageError(f"bn_database: {error}") from None


def seed(config: pytest.Config) -> int:
    """Return the seed of the run; the controller draws it and hands it to the workers."""
    if SEED not in config.stash:
        given = options.number(config, "seed")
        handed: int | None = options.handed(config).get("bn_seed")
        config.stash[SEED] = next(
            (seed for seed in (given, handed) if seed is not None),
            options.profile(config).seed(),
        )
    return config.stash[SEED]


def workers(config: pytest.Config) -> int:
    """Return how many workers of pytest-xdist share the run, here and on other machines."""
    if config.getoption("dist", "no") == "no":
        return 0
    specs = [spec.partition("*") for spec in config.getoption("tx", None) or ()]
    return sum(int(times) if rest and times.isdigit() else 1 for times, _, rest in specs)


def place(spec: object) -> str:
    """Return a place of ``--tx`` as it was given, without what pytest-xdist puts before it."""
    return str(spec).removeprefix("execmodel=main_thread_only//")


def excused(
    config: pytest.Config, backend: str, requirement: str, dtype: str
) -> tuple[KnownFailure, ...]:
    """Return the known failures of the file that a cell may have."""
    return tuple(
        entry.failure for entry in entries(config) if entry.concerns(backend, requirement, dtype)
    )


def stored(config: pytest.Config, requirement: str, backend: str, dtype: str) -> list[Stored]:
    """Return the cases on which a backend violated a requirement in a dtype in earlier runs."""
    if STORED not in config.stash:
        config.stash[STORED] = list(options.store(config))
    wanted = (requirement, backend, dtype)
    return [
        each
        for each in config.stash[STORED]
        if (each.requirement, each.backend, each.case.config.dtype) == wanted
    ]


def installed(config: pytest.Config) -> dict[str, str]:
    """Return what decides what a run says: the versions of all that takes part, as far as they are known."""
    from bn_spec.report.run_file import packages

    backends = {each.name: f"({each.description})" for each in selection(config).backends.values()}
    return {"bn-spec": str(judged_by(config)["bn-spec"])} | packages() | backends


def judged_by(config: pytest.Config) -> dict[str, Any]:
    """Return what judges, and how."""
    from bn_spec import __version__
    from bn_spec.specification.requirement import SPECIFICATION

    profile = options.profile(config)
    return {
        "bn-spec": __version__,
        "specification": SPECIFICATION,
        "profile": profile.name,
        "examples": options.number(config, "max_examples") or profile.examples,
        "seed": seed(config),
    }
