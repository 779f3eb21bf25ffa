"""Writes ``docs/first-kernel.md``, what a new user sees: ``python scripts/transcript.py``.

Every command is run in an environment of its own, made anew, and what it prints is what the page
shows, shortened where it says so. Needs a network, since pip does.
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


@dataclass(frozen=True)
class Step:
    """What is said before a command, the command, and the parts of its output that are shown, as patterns.

    Of each pattern, the first match is shown, from there to where a line matches the second one,
    without that line. ``{id}`` in a command stands for the last id that a command has shown.
    """

    says: str
    command: str
    shown: tuple[tuple[str, str], ...] = ()


KERNEL = "mykernel/mykernel/__init__.py"
END = r"\Z(?!)"
TABLE = (r"backend +dtype", r"^regions")
VERDICT = (r"^mykernel: ", r"^(=|RUN)")

STEPS = (
    Step(
        "A package with a kernel of three NumPy functions, which you replace by yours:",
        "bn-spec new-backend mykernel",
        ((r".", END),),
    ),
    Step("Installed, it is found under its name:", "pip install --quiet -e mykernel"),
    Step(
        "It conforms as it is. Here, and below, are only the requirements of the running statistics:",
        "bn-spec run mykernel --requirement 'RUN-*' -n 2",
        (TABLE, VERDICT),
    ),
    Step(
        "Now a mistake that many frameworks have made: the biased variance goes into `running_var`.",
        f"sed -i 's|var \\* n / (n - 1)|var|' {KERNEL}",
    ),
    Step(
        "Several requirements fail by it. The suite shows the plainest finding, on the smallest input that it can,"
        " names the mistake, with the issues of those who made it before, and says how many failures it explains:",
        "bn-spec run mykernel --requirement 'RUN-*' -n 2",
        (TABLE, (r"^RUN-\d\d  ", r"^=+"), VERDICT),
    ),
    Step(
        "The case is kept. It can be played again, while you look for the cause:",
        "bn-spec replay {id}",
        ((".", END),),
    ),
    Step(
        "With the factor back in its place, the case passes, and is let go:",
        f"sed -i 's|(running_var, var,|(running_var, var * n / (n - 1),|' {KERNEL}",
    ),
    Step("", "bn-spec replay {id}", ((".", END),)),
    Step(
        "So does everything else:",
        "bn-spec run mykernel --requirement 'RUN-*' -n 2",
        (TABLE, VERDICT),
    ),
)

HEAD = """# Your first kernel

What it is like to put a kernel under test: written by `scripts/transcript.py`, which runs all that is shown here. It
starts where the [README](../README.md) has installed `bn-spec` and its environment is active.
"""


def transcript(folder: Path, environment: Mapping[str, str], skip: str = "") -> Iterator[str]:
    """Run the steps in a folder, but for those that start with ``skip``, and yield the lines of the page.

    Raises:
        ValueError: a command printed nothing of what is to be shown.

    """
    name = ""
    yield from HEAD.splitlines()
    for step in STEPS:
        command = step.command.format(id=name) if "{id}" in step.command else step.command
        output = "" if skip and command.startswith(skip) else _output(command, folder, environment)
        shown = [
            part for pattern in step.shown for part in (*_part(output, *pattern, command), "...")
        ][:-1]
        if found := re.search(r"bn-spec replay (\w+)", "\n".join(shown)):
            name = found[1]
        yield from (["", step.says] if step.says else [])
        yield from ["", "```console", f"$ {command}", *shown, "```"]


def _output(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=dict(environment), capture_output=True, text=True
    )
    return _without_time(done.stdout + done.stderr).replace(str(folder), "~")


def _without_time(text: str) -> str:
    return re.sub(r"[\d.]+ ?s\b", "1 s", text)


def _part(text: str, start: str, end: str, command: str) -> list[str]:
    """Return the lines from the first that matches ``start`` up to one that matches ``end``, or to the last."""
    lines = [line.rstrip() for line in text.splitlines()]
    first = next((i for i, line in enumerate(lines) if re.match(start, line)), None)
    if first is None:
        raise ValueError(f"{command!r} printed nothing that matches {start!r}:\n{text}")
    last = next((i for i in range(first + 1, len(lines)) if re.match(end, lines[i])), len(lines))
    while last > first and not lines[last - 1]:
        last -= 1
    return lines[first:last]


def main() -> None:
    """Make an environment, run the steps in it, and write the page."""
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
