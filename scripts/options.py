"""Writes ``docs/options.md`` and ``docs/exit-codes.md`` from the declared options.

Usage: ``python scripts/options.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from bn_spec.cli import main as bn_spec
from bn_spec.session import plugin as pytest_plugin

OPTIONS = Path(__file__).parents[1] / "docs" / "options.md"
EXIT_CODES = OPTIONS.with_name("exit-codes.md")

CODES = "Exit codes: "
"""Start of the paragraph of a command's help that lists its exit codes."""


def commands(
    group: click.Group = bn_spec, before: str = "bn-spec"
) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands with their full names, in the order of the help."""
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def paragraphs(command: click.Command) -> list[str]:
    """Return the paragraphs of a command's help, each on one line."""
    return [" ".join(text.split()) for text in (command.help or "").split("\n\n")]


@dataclass
class OptionRecorder:
    """Stands in for pytest's parser, and records the options of the plugin.

    Attributes:
        options: Name and declaration of each option.
        keys: Names of the ini keys.

    """

    options: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def getgroup(self, *_: str) -> OptionRecorder:
        """Return the recorder, which stands in for the option group too."""
        return self

    def addoption(self, name: str, **declaration: Any) -> None:
        """Record an option."""
        self.options.append((name, declaration))

    def addini(self, name: str, *_: Any, **__: Any) -> None:
        """Record an ini key."""
        self.keys.append(name)


def options_page() -> str:
    """Return the page of options."""
    lines = [
        "# Options",
        "",
        "`scripts/options.py` writes this page from the options that the commands and the pytest"
        " plugin declare.",
    ]
    for name, command in commands():
        lines += _section(name, command)
    recorder = OptionRecorder()
    pytest_plugin.pytest_addoption(recorder)  # type: ignore[arg-type]
    lines += [
        "",
        "## pytest",
        "",
        "`pytest --pyargs bn_spec.conformance`, with any of pytest's own options.",
        "",
        "| option | ini key | meaning |",
        "|---|---|---|",
    ]
    for name, declaration in recorder.options:
        key = name.removeprefix("--").replace("-", "_")
        in_ini = f"`{key}`" if key in recorder.keys else ""
        usage, meaning = _with_value(name, declaration), _cell(declaration["help"])
        lines.append(f"| `{usage}` | {in_ini} | {meaning} |")
    return "\n".join(lines) + "\n"


def _section(name: str, command: click.Command) -> list[str]:
    """Return the lines about one command."""
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    lines = ["", f"## {name}", "", f"`{name} {usage}`"]
    for text in paragraphs(command):
        if not text.startswith(CODES):
            lines += ["", text]
    rows = [_row(each) for each in command.params if isinstance(each, click.Option)]
    if rows:
        lines += ["", "| option | meaning |", "|---|---|", *rows]
    return lines


def _with_value(name: str, declaration: dict[str, Any]) -> str:
    """Return an option of pytest with its value, as on the command line."""
    value = declaration.get("metavar", "")
    if "choices" in declaration:
        value = _cell("|".join(declaration["choices"]))
    return f"{name} {value}".strip()


def _row(option: click.Option) -> str:
    names = ", ".join(option.opts)
    if not option.is_flag:
        names += f" {_cell(_value(option))}"
    return f"| `{names}` | {_cell(option.help or '')} |"


def _value(option: click.Option) -> str:
    """Return the value of an option, as its usage shows it."""
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.metavar or option.type.name.upper()


def _cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def exit_codes_page() -> str:
    """Return the page of exit codes."""
    lines = [
        "# Exit codes",
        "",
        "`scripts/options.py` writes this page from the help of the commands.",
        "",
        "| command | code | meaning |",
        "|---|---|---|",
    ]
    for name, command in commands():
        (text,) = [text for text in paragraphs(command) if text.startswith(CODES)]
        for part in text.removeprefix(CODES).rstrip(".").split("; "):
            code, meaning = part.split(" ", 1)
            lines.append(f"| `{name}` | {code} | {meaning} |")
    lines += [
        "",
        "pytest keeps its own codes: 0 all tests passed, 1 a test failed, 2 interrupted, 3 an error"
        " inside pytest, 4 invalid option, or a backend does not load, 5 no test collected.",
    ]
    return "\n".join(lines) + "\n"


PAGES = {OPTIONS: options_page, EXIT_CODES: exit_codes_page}
"""The pages, by their files."""

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
