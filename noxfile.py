"""Nox sessions: the steps of `.ci/run`, one at a time, each in an environment of its own.

`nox -l` lists them; `nox -s lint types` runs two. Arguments after `--` go to the tool:
`nox -s tests -- tests/test_case.py`.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "docs"]
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.5"


def install(session: nox.Session, extras: str) -> None:
    """Install bn-spec with some extras, in the versions that `constraints.txt` pins."""
    session.install("-c", "constraints.txt", "-e", f".[{extras}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the code with ruff, and check its format."""
    session.install("-c", "constraints.txt", "ruff")
    session.run("ruff", "check", *(session.posargs or ["."]))
    session.run("ruff", "format", "--check", *(session.posargs or ["."]))


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy, in strict mode; no framework is needed for it."""
    install(session, "dev")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on all cores."""
    install(session, "torch,dev")
    session.run("pytest", *(session.posargs or ["tests", "-n", "auto"]))


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure line and branch coverage of the quick tests; below the floor the session fails."""
    install(session, "torch,dev")
    session.run("coverage", "erase")
    chosen = session.posargs or ["-n", "auto", "@tests/measured.txt"]
    session.run("coverage", "run", "-m", "pytest", "-q", *chosen)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the API pages into `build/api`; a docstring that names what does not exist fails."""
    install(session, "dev")
    strict = ("--nitpicky", "--fail-on-warning", "--keep-going")
    session.run("sphinx-build", *strict, *session.posargs, "docs/api", "build/api")
