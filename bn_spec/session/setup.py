"""The inputs of a session: backends, seed, known failures, databases and stored cases.

Each is made once, when it is first needed, and kept in the stash of pytest's configuration.
"""

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
    from bn_spec.suite.known_failures_file import KnownFailureEntry
    from bn_spec.tools.stored_cases import Stored

RUN = pytest.StashKey[Run]()
SELECTION = pytest.StashKey["Selection"]()
SEED = pytest.StashKey[int]()
STORED = pytest.StashKey[list["Stored"]]()
ENTRIES = pytest.StashKey[tuple["KnownFailureEntry", ...]]()
DATABASES = pytest.StashKey["Databases | None"]()

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables by which frameworks choose their number of threads."""


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
    """Return the backends of the run.

    Raises:
        pytest.UsageError: A backend cannot be loaded.

    """
    if SELECTION not in config.stash:
        from bn_spec.backend.registry import select

        if options.from_controller(config).get("workercount", 1) > 1:
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
    """Load the named backends in another process first, in case loading one ends the process."""
    from bn_spec.play.isolated import check_loading

    for name in options.option(config, "backend") or ():
        if name != "all":
            check_loading(name, options.limits(config))


def entries(config: pytest.Config) -> tuple[KnownFailureEntry, ...]:
    """Return the entries of the file of known failures that have not expired.

    Expired and superfluous entries become faults of the run.

    Raises:
        pytest.UsageError: The file cannot be read, or it is to be updated and no file is named.

    """
    if ENTRIES in config.stash:
        return config.stash[ENTRIES]
    from bn_spec.suite.known_failures_file import superfluous

    loaded = _loaded_entries(config)
    today, run = datetime.now(UTC).date(), config.stash[RUN]
    for entry in loaded:
        if entry.expired(today):
            run.faults.append(
                f"{entry} expired on {entry.expires}: {entry.reason}; fix the failure, or renew it"
            )
    valid = tuple(entry for entry in loaded if not entry.expired(today))
    run.faults += superfluous(valid, selection(config).backends.values())
    config.stash[ENTRIES] = valid
    return valid


def _loaded_entries(config: pytest.Config) -> tuple[KnownFailureEntry, ...]:
    from bn_spec.suite.known_failures_file import load

    path = options.path(config, "known_failures")
    updated = config.getoption("bn_known_failures_update")
    if path is None:
        if updated:
            raise pytest.UsageError(
                "--bn-known-failures-update needs a file: --bn-known-failures FILE"
            )
        return ()
    if updated and not path.exists():
        return ()  # the update creates it
    try:
        return load(path)
    except ConfigError as error:
        raise pytest.UsageError(f"bn-spec: {error}") from None


def databases(config: pytest.Config) -> Databases | None:
    """Return the example databases, or None if no option names one."""
    where = options.option(config, "database")
    if DATABASES not in config.stash:
        config.stash[DATABASES] = _opened(config, where) if where else None
    return config.stash[DATABASES]


def _opened(config: pytest.Config, where: str) -> Databases:
    from bn_spec.suite.databases import open_databases

    relative_to = options.folder_of(config, "database")
    downloads = options.report_dir(config) / "artifacts"
    try:
        return open_databases(where, relative_to=relative_to, downloads=downloads)
    except ConfigError as error:
        raise pytest.UsageError(f"bn_database: {error}") from None


def seed(config: pytest.Config) -> int:
    """Return the seed of the run; the controller chooses it and sends it to the workers."""
    if SEED not in config.stash:
        chosen = options.number(config, "seed")
        if chosen is None:
            chosen = options.from_controller(config).get("bn_seed")
        if chosen is None:
            chosen = options.profile(config).seed()
        config.stash[SEED] = chosen
    return config.stash[SEED]


def workers(config: pytest.Config) -> int:
    """Return the number of pytest-xdist workers that share the run, here and on other machines."""
    if config.getoption("dist", "no") == "no":
        return 0
    count = 0
    for spec in config.getoption("tx", None) or ():
        # A spec may start with a number of workers, as in 3*popen.
        times, star, _ = spec.partition("*")
        count += int(times) if star and times.isdigit() else 1
    return count


def place(spec: object) -> str:
    """Return a place of ``--tx`` as the user wrote it, without the prefix of pytest-xdist."""
    return str(spec).removeprefix("execmodel=main_thread_only//")


def excused(
    config: pytest.Config, backend: str, requirement: str, dtype: str
) -> tuple[KnownFailure, ...]:
    """Return the known failures that the file excuses in a cell."""
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
    """Return the versions of bn-spec, of its packages and of the backends, by name."""
    from bn_spec.report.run_file import packages

    backends = {each.name: f"({each.description})" for each in selection(config).backends.values()}
    return {"bn-spec": str(judged_by(config)["bn-spec"])} | packages() | backends


def judged_by(config: pytest.Config) -> dict[str, Any]:
    """Return the versions and settings that decide how backends are judged."""
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
