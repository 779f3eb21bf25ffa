"""The options of the suite: declared for the command line and ini files, and read as values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bn_spec.errors import ConfigError
from bn_spec.suite.chapters import requirements_matching
from bn_spec.suite.profiles import PROFILES, Profile

if TYPE_CHECKING:
    from bn_spec.play.isolated import Limits
    from bn_spec.tools.stored_cases import Store


def add(parser: pytest.Parser) -> None:
    """Add the options of the group ``bn_spec``; each has an ini key of the same name."""
    group = parser.getgroup("bn_spec", "conformance of BatchNorm2d kernels (bn-spec)")

    def option(name: str, ini_type: Any, text: str, **kwargs: Any) -> None:
        group.addoption(f"--bn-{name}", dest=f"bn_{_key(name)}", default=None, help=text, **kwargs)
        parser.addini(f"bn_{_key(name)}", text, type=ini_type, default=None)

    option(
        "backend",
        "args",
        "backend to check: a registered name, package.module:attribute, path/to/file.py:attribute,"
        " or 'all' (repeatable; default: the reference and PyTorch on the devices of this machine)",
        action="append",
        metavar="NAME",
    )
    option(
        "profile",
        "string",
        f"number of examples and whether slow checks run: {', '.join(PROFILES)} (default: ci)",
        choices=tuple(PROFILES),
    )
    option(
        "max-examples",
        "string",
        "examples per property, backend and dtype",
        type=_positive,
        metavar="N",
    )
    option(
        "seed",
        "string",
        "seed of the run (default: 0, or a new one for nightly)",
        type=int,
        metavar="N",
    )
    option(
        "requirement",
        "string",
        "check only the requirements that match, as in 'RUN-*'",
        metavar="GLOB",
    )
    option(
        "isolate",
        "string",
        "'process': run each backend in a process of its own, so that it may crash, hang or run out"
        " of memory",
        choices=("no", "process"),
    )
    option(
        "timeout",
        "string",
        "time limit of one call of a backend in a worker or an isolated process, in seconds"
        " (default: 60)",
        type=_seconds,
        metavar="SECONDS",
    )
    option(
        "memory",
        "string",
        "memory limit of an isolated backend, in MiB (default: 4096)",
        type=_positive,
        metavar="MIB",
    )
    option(
        "known-failures",
        "string",
        "TOML file of known failures, each with its reason",
        metavar="FILE",
    )
    group.addoption(
        "--bn-known-failures-update",
        action="store_true",
        help="append the failures of this run to the file of known failures, with empty reasons",
    )
    option(
        "report-dir",
        "string",
        "folder for the record of the run (run.json) and the cases of its findings"
        " (default: .bn_spec)",
        metavar="DIR",
    )
    option(
        "database",
        "string",
        "store failing examples and try them first in the next run: a folder,"
        " redis://HOST:PORT/NUMBER or github:OWNER/REPO (read-only); or several with commas"
        " between, where only the first is written to (default: none)",
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


def option(config: pytest.Config, name: str) -> Any:
    """Return the value of an option, from the command line or else from an ini file."""
    value = config.getoption(f"bn_{name}")
    if value is not None:
        return value
    return config.getini(f"bn_{name}") or None


def number(config: pytest.Config, name: str) -> int | None:
    """Return the value of an option that is a number, or None if the option is not set.

    Raises:
        pytest.UsageError: The value is not a whole number.

    """
    value = option(config, name)
    try:
        return None if value is None else int(value)
    except ValueError:
        raise pytest.UsageError(f"bn_{name} is {value!r}; allowed: a whole number") from None


def limits(config: pytest.Config) -> Limits:
    """Return the limits of time and memory of a backend.

    Raises:
        pytest.UsageError: A limit is not a positive number.

    """
    from bn_spec.play.isolated import Limits

    default, timeout = Limits(), option(config, "timeout")
    try:
        seconds = default.seconds if timeout is None else _seconds(str(timeout))
    except ValueError:
        raise pytest.UsageError(
            f"bn_timeout is {timeout!r}; allowed: a positive number of seconds"
        ) from None
    return Limits(seconds, number(config, "memory") or default.mebibytes)


def isolates(config: pytest.Config) -> bool:
    """Whether backends are isolated: because an option asks for it, or because a worker has died.

    Raises:
        pytest.UsageError: The option is unknown, or this system cannot isolate.

    """
    from bn_spec.play.isolated import AVAILABLE

    asked = option(config, "isolate")
    if asked not in (None, "no", "process"):
        raise pytest.UsageError(f"bn_isolate is {asked!r}; allowed: no, process")
    if asked == "process" and not AVAILABLE:
        raise pytest.UsageError("bn_isolate is 'process', which needs a POSIX system; leave it out")
    return asked == "process" or bool(from_controller(config).get("bn_isolate"))


def from_controller(config: pytest.Config) -> Mapping[str, Any]:
    """Return the values that the controller of pytest-xdist has sent to this worker."""
    values: Mapping[str, Any] = getattr(config, "workerinput", {})
    return values


def profile(config: pytest.Config) -> Profile:
    """Return the profile of the run.

    Raises:
        pytest.UsageError: There is no profile of this name.

    """
    name: str = option(config, "profile") or "ci"
    if name not in PROFILES:
        raise pytest.UsageError(f"bn_profile is {name!r}; allowed: {', '.join(PROFILES)}")
    return PROFILES[name]


def report_dir(config: pytest.Config) -> Path:
    """Return the folder for the record and the cases of the run."""
    from bn_spec.tools.stored_cases import FOLDER

    return path(config, "report_dir") or config.invocation_params.dir / FOLDER


def path(config: pytest.Config, name: str) -> Path | None:
    """Return the value of an option that is a path, or None if the option is not set."""
    value = option(config, name)
    return folder_of(config, name) / str(value) if value else None


def folder_of(config: pytest.Config, name: str) -> Path:
    """Return the folder that the paths of an option are relative to.

    On the command line, it is the folder where pytest was started; in an ini file, its own folder.
    """
    if config.getoption(f"bn_{name}"):
        return config.invocation_params.dir
    return (config.inipath or config.rootpath / "ini").parent


def store(config: pytest.Config) -> Store:
    """Return the store of failing cases."""
    from bn_spec.tools.stored_cases import Store

    return Store(report_dir(config) / "cases")


def pattern(config: pytest.Config) -> str | None:
    """Return the glob of the requirements to check, or None for all.

    Raises:
        pytest.UsageError: The glob matches no requirement.

    """
    pattern: str | None = option(config, "requirement")
    try:
        if pattern is not None:
            requirements_matching(pattern)
    except ConfigError as error:
        raise pytest.UsageError(f"bn_requirement: {error}") from None
    return pattern


def check_report_dir(config: pytest.Config) -> None:
    """Create the report folder now, so that a bad path fails before the run and not after it.

    Raises:
        pytest.UsageError: The folder cannot be created.

    """
    folder = option(config, "report_dir")
    if not folder:
        return
    try:
        report_dir(config).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(
            f"bn_report_dir is {folder!r}, which cannot be created: {error}"
        ) from None
