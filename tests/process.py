"""Commands run as a user would run them: in a process and a folder of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

STRANGE_BACKENDS = Path(__file__).parent / "strange_backends.py"
"""The file of the strange backends; a backend is named ``strange_backends.py:attribute``."""


def run(*command: str | Path, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command without the variables that pytest and pytest-xdist set in this process.

    PYTHONDONTWRITEBYTECODE goes too. With it, pytest rewrites Hypothesis's modules in every run,
    which takes half of the time of a short one.
    """
    foreign = ("PYTEST", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | {"COLUMNS": "120"} | variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def python(
    *arguments: str | Path, cwd: Path, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run Python with these arguments."""
    return run(sys.executable, *arguments, cwd=cwd, **variables)


def pytest_suite(
    *arguments: str, cwd: Path, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run the suite through pytest; the reference is judged unless a backend is named."""
    named = any(argument.startswith("--bn-backend") for argument in arguments)
    backend = () if named else ("--bn-backend=reference",)
    suite = REPOSITORY / "conformance"
    return python(
        "-m", "pytest", suite, "-p", "no:cacheprovider", *backend, *arguments, cwd=cwd, **variables
    )


def bn_spec(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run the ``bn-spec`` command; ``bn-spec run`` has no workers unless ``-n`` says so."""
    alone = ("-n", "0") if arguments[0] == "run" and "-n" not in arguments else ()
    return python("-m", "bn_spec.cli", *arguments[:1], *alone, *arguments[1:], cwd=cwd)


def table_of(output: str) -> list[str]:
    """Return the lines of the summary that do not depend on the clock."""
    lines = output.partition(" bn-spec ===")[2].splitlines()
    return [line for line in lines[1:] if line and not re.search(r" in [\d.]+s", line)]


def strange(name: str) -> str:
    """Return the address of a strange backend."""
    return f"{STRANGE_BACKENDS}:{name}"
