"""The options of the suite: on the command line, in ini files, and as what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bn_spec.errors import ConfigError
from bn_spec.specification.requirement import requirements_matching
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
        "backend to check: a registered name, package.module:attribute, path/to/file.py:attribute, or 'all'"
        " (repeatable; default: the reference, and PyTorch's on the devices of this machine)",
        action="append",
        metavar="NAME",
    )
    option(
        "profile",
        "string",
        f"how hard to look: {', '.join(PROFILES)} (default: ci)",
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
        "'process': play each backend in a process of its own, which may crash, hang or run out of memory",
        choices=("no", "process"),
    )
    option(
        "timeout",
        "string",
        "seconds for one call of a backend in a process that may die (default: 60)",
        **_SECONDS,
    )
    option(
        "memory",
        "string",
        "MiB for a backend that is isolated (default: 4096)",
        type=_positive,
        metavar="MIB",
    )
    option(
        "known-failures",
        "string",
        "failures that are known, each with its reason (TOML)",
        metavar="FILE",
    )
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


def option(config: pytest.Config, name: str) -> Any:
    """Return what was given for an option: on the command line, or else in an ini file."""
    given = config.getoption(f"bn_{name}")
    return given if given is not None else (config.getini(f"bn_{name}") or None)


def number(config: pytest.Config, name: str) -> int | None:
    """Return a number that was given; raise UsageError if it is none."""
    value = option(config, name)
    try:
        return None if value is None else int(value)
    except ValueError:
        raise pytest.UsageError(f"bn_{name} is {value!r}; allowed: a whole number") from None


def limits(config: pytest.Config) -> Limits:
    """Return what a backend may take; raise UsageError where that makes no sense."""
    from bn_spec.play.isolated import Limits

    usual, given = Limits(), option(config, "timeout")
    try:
        seconds = usual.seconds if given is None else _seconds(str(given))
    except ValueError:
        raise pytest.UsageError(
            f"bn_timeout is {given!r}; allowed: a positive number of seconds"
        ) from None
    return Limits(seconds, number(config, "memory") or usual.mebibytes)


def isolates(config: pytest.Config) -> bool:
    """Whether backends are played in processes of their own: where that was asked for, and once a worker has died."""
    from bn_spec.play.isolated import AVAILABLE

    asked = option(config, "isolate")
    if asked not in (None, "no", "process"):
        raise pytest.UsageError(f"bn_isolate is {asked!r}; allowed: no, process")
    if asked == "process" and not AVAILABLE:
        raise pytest.UsageError("bn_isolate is 'process', which needs a POSIX system; leave it out")
    return asked == "process" or bool(handed(config).get("bn_isolate"))


def handed(config: pytest.Config) -> Mapping[str, Any]:
    """Return what the controller hands to a worker."""
    handed: Mapping[str, Any] = getattr(config, "workerinput", {})
    return handed


def profile(config: pytest.Config) -> Profile:
    """Return the profile; raise UsageError if there is none of that name."""
    name: str = option(config, "profile") or "ci"
    if name not in PROFILES:
        raise pytest.UsageError(f"bn_profile is {name!r}; allowed: {', '.join(PROFILES)}")
    return PROFILES[name]


def report_dir(config: pytest.Config) -> Path:
    """Return the folder of what a run leaves behind."""
    from bn_spec.tools.stored_cases import FOLDER

    return path(config, "report_dir") or config.invocation_params.dir / FOLDER


def path(config: pytest.Config, name: str) -> Path | None:
    """Return a path that was given."""
    said = option(config, name)
    return folder_of(config, name) / str(said) if said else None


def folder_of(config: pytest.Config, name: str) -> Path:
    """Return what paths of an option are relative to: where pytest was started, or the ini file that says them."""
    if config.getoption(f"bn_{name}"):
        return config.invocation_params.dir
    return (config.inipath or config.rootpath / "ini").parent


def store(config: pytest.Config) -> Store:
    """Return the store of the cases of findings."""
    from bn_spec.tools.stored_cases import Store

    return Store(report_dir(config) / "cases")


def pattern(config: pytest.Config) -> str | None:
    """Return the glob of the requirements that are asked for, if one is; raise UsageError if it matches none."""
    pattern: str | None = option(config, "requirement")
    try:
        if pattern is not None:
            requirements_matching(pattern)
    except ConfigError as error:
        raise pytest.UsageError(f"bn_requirement: {error}") from None
    return pattern


def check_report_dir(config: pytest.Config) -> None:
    """Make the folder that was asked for, so that nobody learns after the run that there cannot be one."""
    if folder := option(config, "report_dir"):
        try:
            report_dir(config).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(
                f"bn_report_dir is {folder!r}, which cannot be made: {error}"
            ) from None
