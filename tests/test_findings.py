"""The scripts in docs/findings: each is listed with its summary, and does not import bn_spec."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
LIST = (FOLDER / "README.md").read_text("utf-8")


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_a_script_is_listed_with_its_summary_and_does_not_import_this_package(script: Path) -> None:
    tree = ast.parse(script.read_text("utf-8"))
    summary, _, _ = (ast.get_docstring(tree) or "").partition("\n\n")
    assert f"- [`{script.name}`]({script.name}): {' '.join(summary.split())}\n" in LIST
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imports.add(node.module or "")
        elif isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
    assert imports
    assert not any(name.startswith("bn_spec") for name in imports)


def test_the_list_names_exactly_the_scripts_in_order() -> None:
    listed = [line.split("`")[1] for line in LIST.splitlines() if line.startswith("- [`")]
    assert listed == sorted(path.name for path in FOLDER.glob("*.py"))
