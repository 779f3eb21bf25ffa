"""Who may import whom: the specification stands on NumPy alone, and nothing leans on what lies above it."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import bn_spec

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("bn_spec", "conformance")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
FRAMEWORKS = {
    "equinox",
    "flax",
    "haiku",
    "jax",
    "mlx",
    "onnx",
    "onnxruntime",
    "paddle",
    "tensorflow",
    "tinygrad",
    "torch",
}
THIRD_PARTY = {
    "_pytest",
    "click",
    "hypothesis",
    "jinja2",
    "markupsafe",
    "ml_dtypes",
    "numpy",
    "pytest",
    "redis",
    "rich",
} | FRAMEWORKS
OUR_TEXTS = [
    *(p for folder in ("bn_spec", "conformance", "examples") for p in sorted((ROOT / folder).rglob("*.py"))),
    *(ROOT / "examples").rglob("*.md"),
    *(ROOT / "examples").rglob("*.toml"),
    ROOT / "README.md",
]


@cache
def imported(module: str) -> set[str]:
    """Return the modules that a module imports anywhere in it, in full."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return set(_imports(ast.parse(path.read_text("utf-8")), package))


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            members = {f"{origin}.{alias.name}" for alias in node.names}
            yield from members & MODULES.keys()
            if not members <= MODULES.keys():
                yield origin


def within(module: str, *families: str) -> bool:
    """Whether a module is one of the families or lies in one."""
    return any(f"{module}.".startswith(f"{family}.") for family in families)


def importers(target: str) -> set[str]:
    """Return the modules of ours, outside ``target``, that import it."""
    return {
        module
        for module in MODULES
        if not within(module, target) and any(within(name, target) for name in imported(module))
    }


def newly_imported(statement: str) -> set[str]:
    """Return the top-level modules beyond the standard library that a fresh interpreter imports for ``statement``."""
    script = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "print(*{name.partition('.')[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_numpy_and_its_dtypes_alone() -> None:
    assert newly_imported("import bn_spec") == {"bn_spec", "numpy", "ml_dtypes"}


def test_the_pytest_plugin_imports_neither_a_framework_nor_hypothesis() -> None:
    found = newly_imported("import bn_spec.pytest_plugin")
    assert {"bn_spec", "pytest"} <= found
    assert found.isdisjoint({"hypothesis", "torch", "click", "jinja2", "rich"})


def test_a_command_imports_neither_a_framework_nor_hypothesis_before_it_is_called() -> None:
    found = newly_imported("import bn_spec.cli")
    assert {"bn_spec", "click", "pytest"} <= found
    assert found.isdisjoint({"hypothesis", "torch", "jinja2"})


def test_every_import_of_ours_is_understood() -> None:
    modules = ("backward", "catalogue", "dialects", "faulty", "inaccurate", "sound", "unfriendly")
    assert imported("bn_spec.specimens") == {f"bn_spec.specimens.{name}" for name in modules}
    assert {"bn_spec.bounds", "bn_spec.reference", "bn_spec.reference.formulas"} <= imported("bn_spec.block")
    foreign = {name.partition(".")[0] for module in MODULES for name in imported(module)} - sys.stdlib_module_names
    assert foreign == THIRD_PARTY | {"bn_spec"}


@pytest.mark.parametrize(
    "module", [module for module in MODULES if within(module, "bn_spec.reference", "bn_spec.bounds")]
)
def test_reference_and_bounds_know_the_config_the_dtypes_and_numpy_alone(module: str) -> None:
    known = ("bn_spec.reference", "bn_spec.config", "bn_spec.dialect", "bn_spec.dtypes", "bn_spec.errors", "numpy")
    strangers = {name for name in imported(module) if not within(name, *known, *sys.stdlib_module_names)}
    assert not strangers


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        *((framework, {"bn_spec.backends"}) for framework in sorted(FRAMEWORKS)),
        ("pytest", {"bn_spec.pytest_plugin", "bn_spec.session", "bn_spec.commands", "conformance"}),
        ("_pytest", {"bn_spec.session.outcomes"}),
        ("click", {"bn_spec.cli", "bn_spec.commands"}),
        ("redis", {"bn_spec.databases"}),
        ("rich", {"bn_spec.commands"}),
        ("jinja2", {"bn_spec.report.html"}),
        ("markupsafe", {"bn_spec.report.html"}),
        (
            "hypothesis",
            {
                "bn_spec.strategies",
                "bn_spec.cell",
                "bn_spec.profiles",
                "bn_spec.audit",
                "bn_spec.databases",
                "bn_spec.foreign_constants",
                "bn_spec.vectors",
                "conformance",
            },
        ),
        ("bn_spec.report", {"bn_spec.commands", "bn_spec.pytest_plugin", "bn_spec.session"}),
        ("bn_spec.commands", {"bn_spec.cli"}),
        ("bn_spec.cli", set()),
        ("bn_spec.pytest_plugin", set()),
        ("bn_spec.session", {"bn_spec.commands", "bn_spec.pytest_plugin"}),
        ("bn_spec.backends", set()),
        (
            "bn_spec.specimens",
            {"bn_spec.audit", "bn_spec.cell", "bn_spec.commands", "bn_spec.diagnosis", "bn_spec.entries"},
        ),
    ],
)
def test_only_those_who_may_import_it_do(target: str, allowed: set[str]) -> None:
    assert {module for module in importers(target) if not within(module, *allowed)} == set()


@pytest.mark.parametrize("path", OUR_TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_names_a_place_on_somebodys_machine(path: Path) -> None:
    places = re.findall(
        r"(?<![\w.:/])/(?:home|mnt|opt|private|root|tmp|Users|var|work)/[^\s\"']*", path.read_text("utf-8")
    )
    assert not places


def test_the_public_names_are_sorted_and_exist() -> None:
    assert bn_spec.__all__ == sorted(bn_spec.__all__)
    assert all(hasattr(bn_spec, name) for name in bn_spec.__all__)


@pytest.mark.parametrize("package", ["bn_spec.reference", "bn_spec.specimens", "bn_spec.strategies"])
def test_a_package_offers_what_it_says_it_offers(package: str) -> None:
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)


ADAPTERS = [
    path
    for path in (ROOT / "bn_spec" / "backends").glob("*.py")
    if path.stem != "torch" and not path.stem.endswith("_known")  # what PyTorch does is normative; tables of reasons
]


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_an_adapter_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 120
