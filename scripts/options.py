"""Writes ``docs/options.md`` and ``docs/exit-codes.md`` from the parsers: ``python scripts/options.py``."""

from __future__ import annotations

import re
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
    """Return the paragraphs of a command's help, each in one line."""
    return [" ".join(text.split()) for text in (command.help or "").split("\n\n")]


@dataclass
class Recorder:
    """In the place of pytest's parser: keeps what the plugin adds."""

    options: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def getgroup(self, *_: str) -> Recorder:
        """Return the group, which is this."""
        return self

    def addoption(self, name: str, **given: Any) -> None:
        """Keep an option."""
        self.options.append((name, given))

    def addini(self, name: str, *_: Any, **__: Any) -> None:
        """Keep an ini key."""
        self.keys.append(name)


def options_page() -> str:
    """Return the page of options."""
    lines = [
        "# Options",
        "",
        "Written by `scripts/options.py` from what the commands and the plugin of pytest's declare.",
    ]
    for name, command in commands():
        said = [text for text in paragraphs(command) if not text.startswith(CODES)]
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        lines += [
            "",
            f"## {name}",
            "",
            f"`{name} {usage}`",
            *(line for text in said for line in ("", text)),
        ]
        if rows := [_row(p) for p in command.params if isinstance(p, click.Option)]:
            lines += ["", "| option | meaning |", "|---|---|", *rows]
    recorder = Recorder()
    pytest_plugin.pytest_addoption(recorder)  # type: ignore[arg-type]
    lines += [
        "",
        "## pytest",
        "",
        "`pytest --pyargs bn_spec.conformance`, with any of pytest's own options.",
        "",
    ]
    lines += ["| option | ini key | meaning |", "|---|---|---|"]
    for name, given in recorder.options:
        key = name.removeprefix("--").replace("-", "_")
        in_ini = f"`{key}`" if key in recorder.keys else ""
        lines.append(f"| `{_with_value(name, given)}` | {in_ini} | {_cell(given['help'])} |")
    return "\n".join(lines) + "\n"


def _with_value(name: str, given: dict[str, Any]) -> str:
    value = _cell("|".join(given["choices"])) if "choices" in given else given.get("metavar", "")
    return f"{name} {value}".strip()


def _row(option: click.Option) -> str:
    kind = option.type
    choices = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else ""
    value = "" if option.is_flag else choices or option.metavar or kind.name.upper()
    names = " ".join(filter(None, [", ".join(option.opts), _cell(value)]))
    return f"| `{names}` | {_cell(option.help or '')} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def exit_codes_page() -> str:
    """Return the page of exit codes."""
    lines = [
        "# Exit codes",
        "",
        "Written by `scripts/options.py` from the help of the commands.",
        "",
    ]
    lines += ["| command | code | meaning |", "|---|---|---|"]
    for name, command in commands():
        text = next((text for text in paragraphs(command) if text.startswith(CODES)), f"{CODES}0")
        for part in text.removeprefix(CODES).rstrip(".").split("; "):
            code, meaning = re.fullmatch(r"(\d) ?(.*)", part).groups()  # type: ignore[union-attr]
            lines.append(f"| `{name}` | {code} | {meaning or 'done'} |")
    lines += [
        "",
        "pytest keeps its own codes: 0 passed, 1 something failed, 2 interrupted, 3 an error inside pytest, 4 a",
    ]
    lines += ["wrong option or a backend that does not load, 5 nothing collected."]
    return "\n".join(lines) + "\n"


PAGES = {OPTIONS: options_page, EXIT_CODES: exit_codes_page}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
