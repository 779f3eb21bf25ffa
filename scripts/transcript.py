"""Writes ``docs/first-kernel.md``, a tour for new users: ``python scripts/transcript.py``.

The script runs every command in a new virtual environment. The page shows what the commands print;
``...`` marks where it is shortened. The script needs a network, since it calls pip.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-kernel.md"
"""The page that this script writes."""


@dataclass(frozen=True)
class Step:
    """One command of the page.

    Attributes:
        says: The text before the command.
        command: The command. ``{id}`` in it stands for the last case id that was shown.
        shown: The parts of the output to show, each as two patterns: a part begins with the first
            line that matches the first pattern, and ends before the next line that matches the
            second.

    """

    says: str
    command: str
    shown: tuple[tuple[str, str], ...] = ()


KERNEL = "mykernel/mykernel/__init__.py"
END = r"\Z(?!)"
"""A pattern that no line matches: the part ends with the output."""

TABLE = (r"backend +dtype", r"^regions")
VERDICT = (r"^mykernel: ", r"^(=|RUN)")

STEPS = (
    Step(
        "Create a package with a kernel of three NumPy functions, to be replaced by your own:",
        "bn-spec new-backend mykernel",
        ((r".", END),),
    ),
    Step(
        "Install the package, so that `bn-spec` finds the kernel under its name:",
        "pip install --quiet -e mykernel",
    ),
    Step(
        "The kernel conforms as it is. This page checks the requirements of the running statistics"
        " only:",
        "bn-spec run mykernel --requirement 'RUN-*' -n 2",
        (TABLE, VERDICT),
    ),
    Step(
        "Now make a mistake that many frameworks have made: update `running_var` with the biased"
        " variance.",
        f"sed -i 's|var \\* n / (n - 1)|var|' {KERNEL}",
    ),
    Step(
        "Several requirements fail. The suite shows the simplest finding, on the smallest input"
        " that it has found. It names the mistake, with the issues in which others report it, and"
        " says how many failures the mistake explains:",
        "bn-spec run mykernel --requirement 'RUN-*' -n 2",
        (TABLE, (r"^RUN-\d\d  ", r"^=+"), VERDICT),
    ),
    Step(
        "The failing case is stored. You can replay it while you look for the cause:",
        "bn-spec replay {id}",
        ((".", END),),
    ),
    Step(
        "Put the factor back. Now the case passes, and its file is removed:",
        f"sed -i 's|(running_var, var,|(running_var, var * n / (n - 1),|' {KERNEL}",
    ),
    Step("", "bn-spec replay {id}", ((".", END),)),
    Step(
        "All other requirements pass too:",
        "bn-spec run mykernel --requirement 'RUN-*' -n 2",
        (TABLE, VERDICT),
    ),
)

HEAD = """# Your first kernel

This page shows how to test a kernel with `bn-spec`. `scripts/transcript.py` has run all commands
and written their output. Before you start, install `bn-spec` as the [README](../README.md) says,
and activate its environment.
"""


def transcript(folder: Path, environment: Mapping[str, str], skip: str = "") -> Iterator[str]:
    """Run the steps, and yield the lines of the page.

    Args:
        folder: The folder in which the commands are run.
        environment: The environment variables.
        skip: Start of the commands that are shown but not run.

    Raises:
        ValueError: The output of a command has no line to show.

    """
    case = ""
    yield from HEAD.splitlines()
    for step in STEPS:
        command = step.command.replace("{id}", case)
        output = ""
        if not (skip and command.startswith(skip)):
            output = _output(command, folder, environment)
        shown: list[str] = []
        for start, end in step.shown:
            if shown:
                shown.append("...")
            shown += _part(output, start, end, command)
        found = re.search(r"bn-spec replay (\w+)", "\n".join(shown))
        if found:
            case = found[1]
        if step.says:
            yield from ("", step.says)
        yield from ("", "```console", f"$ {command}", *shown, "```")


def _output(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=dict(environment), capture_output=True, text=True
    )
    return _without_time(done.stdout + done.stderr).replace(str(folder), "~")


def _without_time(text: str) -> str:
    return re.sub(r"[\d.]+ ?s\b", "1 s", text)


def _part(text: str, start: str, end: str, command: str) -> list[str]:
    """Return the lines from the first that matches ``start`` to the last before a match of ``end``.

    Empty lines at the end are left out.
    """
    part: list[str] = []
    for line in map(str.rstrip, text.splitlines()):
        if part and re.match(end, line):
            break
        if part or re.match(start, line):
            part.append(line)
    if not part:
        raise ValueError(f"{command!r} printed nothing that matches {start!r}:\n{text}")
    while not part[-1]:
        part.pop()
    return part


def main() -> None:
    """Create an environment, run the steps in it, and write the page."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scripts = folder / ".venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
        subprocess.run(
            [scripts / "pip", "install", "--quiet", "-c", "constraints.txt", "-e", "."],
            cwd=ROOT,
            check=True,
        )
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        lines = list(transcript(folder, os.environ | {"PATH": path, "COLUMNS": "110"}))
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
