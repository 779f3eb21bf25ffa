"""Findings in frameworks: each script is listed with its first sentence, and is Python of one framework alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
LIST = (FOLDER / "README.md").read_text("utf-8")


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_a_finding_is_listed_and_needs_nothing_of_ours(script: Path) -> None:
    tree = ast.parse(script.read_text("utf-8"))
    sentence = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    assert f"- [`{script.name}`]({script.name}): {sentence}\n" in LIST
    imports = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imports |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imports
    assert not any(name.startswith("bn_spec") for name in imports)


def test_the_list_names_no_script_that_is_not_there() -> None:
    listed = [line.split("`")[1] for line in LIST.splitlines() if line.startswith("- [`")]
    assert listed == sorted(path.name for path in FOLDER.glob("*.py"))
