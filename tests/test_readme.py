"""README and documentation tell the truth: their commands do what they say they do."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process import REPOSITORY, run

README = (REPOSITORY / "README.md").read_text("utf-8")
PAGES = README + "".join(
    path.read_text("utf-8") for path in sorted((REPOSITORY / "docs").glob("*.md"))
)
COMMANDS = dict(re.findall(r"<!-- command: (.+) -->\n```sh\n(.+)\n```", PAGES))
QUICK = {name: command for name, command in COMMANDS.items() if "exit code" in name}


def test_every_shell_command_is_named_and_so_is_run() -> None:
    assert PAGES.count("```sh") == len(COMMANDS) == 11
    assert set(COMMANDS) - set(QUICK) == {"main", "tests"}


def test_every_link_leads_somewhere() -> None:
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_every_page_of_the_documentation_is_within_reach_of_the_readme() -> None:
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert f"docs/{page.name}" in README, page.name


@pytest.mark.parametrize("name", ["main", "tests"])
def test_the_main_commands_do_all_the_set_up_with_pinned_versions(name: str) -> None:
    assert COMMANDS[name].startswith(
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[torch"
    )
    assert re.search(r"(?m)^torch==", (REPOSITORY / "constraints.txt").read_text())
    assert 'readme_command "$name"' in (REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_command_ends_as_the_readme_says(name: str, tmp_path: Path) -> None:
    command = QUICK[name].replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = run("bash", "-c", command, cwd=REPOSITORY, TMPDIR=str(tmp_path))
    assert done.returncode == int(name.rpartition(" ")[2]), done.stdout + done.stderr


def test_the_failure_is_printed_as_the_readme_shows_it() -> None:
    (name,) = (name for name in QUICK if name.startswith("failure"))
    shown = README.partition("```text\nRUN-03")[2].partition("```")[0]
    command = QUICK[name].replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    assert (
        f"RUN-03{shown}"
        in run("bash", "-c", f"{command} -- -p no:cacheprovider", cwd=REPOSITORY).stdout
    )


def test_the_python_example_is_valid() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["backend"].name == "my-kernel"
