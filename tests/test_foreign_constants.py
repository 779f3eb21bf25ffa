"""What is drawn depends on the seed, and not on which modules a worker happens to have loaded."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis.internal.conjecture import providers

from bn_spec import Case
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.suite.cell import Cell
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

load_suite()


def drawn() -> list[str]:
    """Return what a cell draws for a property whose values are free."""
    found: list[str] = []
    prop = PROPERTIES["RUN-01"]

    def body(cell: Cell, case: Case) -> None:
        found.append(str(case))
        prop.body(cell, case)

    Search(
        Cell(replace(prop, body=body), Reference(), "float32"), PROFILES["ci"].settings(60)
    ).examine()
    return found


def load_numbers(path: Path) -> None:
    """Load a module of one's own, with constants that Hypothesis would draw."""
    floats, integers = (f"{[number + part for number in range(40)]}" for part in (0.123, 123457))
    path.write_text(f"FLOATS = {floats}\nINTEGERS = {integers}\n")
    spec = spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    sys.modules[path.stem] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def test_a_module_loaded_meanwhile_changes_nothing_that_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn()
    monkeypatch.setitem(sys.modules, "numbers_of_a_kernel", sys)  # which is undone at the end
    load_numbers(tmp_path / "numbers_of_a_kernel.py")
    assert drawn() == before
    # Without the guard, Hypothesis draws the constants of that module.
    monkeypatch.setattr("bn_spec.suite.search.without_foreign_constants", nullcontext)
    monkeypatch.setattr(providers, "CONSTANTS_CACHE", type(providers.CONSTANTS_CACHE)(1024))
    assert drawn() != before
