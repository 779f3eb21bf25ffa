"""The layers of the package, as in ARCHITECTURE.md: a module imports only from layers above it."""

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

LAYERS = (
    "bn_spec.errors",
    "bn_spec.specification",
    "bn_spec.case",
    "bn_spec.oracle.reference",
    "bn_spec.oracle",
    "bn_spec.backend",
    "bn_spec.play",
    "bn_spec.judge",
    "bn_spec.specimens",
    "bn_spec.strategies",
    "bn_spec.suite",
    "bn_spec.tools",
    "bn_spec.report",
    "bn_spec.session",
    "bn_spec.cli",
    "bn_spec.backend.adapters",
    "conformance",
)
"""The layers from the top down: a module may import from its own layer and from layers above it."""

ADAPTERS = "bn_spec.backend.adapters"
FRAMEWORKS = (
    "equinox",
    "flax",
    "haiku",
    "jax",
    "keras",
    "mlx",
    "onnx",
    "onnxruntime",
    "paddle",
    "tensorflow",
    "tinygrad",
    "torch",
)
EVERYWHERE = frozenset(("numpy", "ml_dtypes"))
THIRD_PARTY = {
    **dict.fromkeys(FRAMEWORKS, (ADAPTERS,)),
    "pytest": ("bn_spec.session", "bn_spec.cli"),
    "_pytest": ("bn_spec.session.outcomes",),
    "hypothesis": (
        "bn_spec.strategies.hypothesis_cases",
        "bn_spec.suite.search",
        "bn_spec.suite.profiles",
        "bn_spec.suite.databases",
        "bn_spec.suite.foreign_constants",
        "bn_spec.tools.vectors",
    ),
    "click": ("bn_spec.cli",),
    "rich": ("bn_spec.cli",),
    "redis": ("bn_spec.suite.databases",),
    "jinja2": ("bn_spec.report.html",),
    "markupsafe": ("bn_spec.report.html",),
}
"""Third-party packages, each with the modules that may import it."""


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"))


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Return each module that a file imports anywhere in it, with the line of the import."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                found.append((node.lineno, member if member in MODULES else str(node.module)))
    return tuple(found)


def within(module: str, family: str) -> bool:
    """Whether a module is a package, here called a family, or lies in it."""
    return f"{module}.".startswith(f"{family}.")


def layer_of(module: str) -> int:
    """Return the place in LAYERS of the innermost layer that a module lies in."""
    families = [layer for layer in LAYERS if within(module, layer)]
    return LAYERS.index(max(families, key=len))


def arrows_back(module: str) -> list[str]:
    """Return the imports of a module that lead to a layer below its own."""
    path, own = MODULES[module], layer_of(module)
    return [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for line, target in imports(path)
        if target in MODULES and target != "bn_spec" and layer_of(target) > own
    ]


ROOMS = [module for module in MODULES if module != "bn_spec"]


@pytest.mark.parametrize("module", ROOMS)
def test_a_module_imports_only_from_the_layers_above_it(module: str) -> None:
    assert arrows_back(module) == []


@pytest.mark.parametrize("module", ROOMS)
def test_the_package_itself_is_imported_for_its_version_alone(module: str) -> None:
    for node in ast.walk(parsed(MODULES[module])):
        if isinstance(node, ast.ImportFrom) and node.module == "bn_spec":
            assert [alias.name for alias in node.names] == ["__version__"]


def test_every_layer_exists() -> None:
    assert {layer for layer in LAYERS if not any(within(m, layer) for m in MODULES)} == set()


def test_an_arrow_back_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stray = tmp_path / "stray.py"
    stray.write_text("def later():\n    from bn_spec.suite.cell import Cell\n")
    monkeypatch.setitem(MODULES, "bn_spec.case.stray", stray)
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert arrows_back("bn_spec.case.stray") == ["stray.py:2 imports bn_spec.suite.cell"]


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_are_imported_only_where_they_may_be(module: str) -> None:
    own = {"bn_spec", "conformance"} | sys.stdlib_module_names | EVERYWHERE
    for line, target in imports(MODULES[module]):
        package = target.partition(".")[0]
        if package not in own:
            allowed = THIRD_PARTY.get(package, ())
            assert any(within(module, family) for family in allowed), f"line {line}: {target}"


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_every_permission_is_used(name: str) -> None:
    users = {m for m, p in MODULES.items() for _, t in imports(p) if within(t, name)}
    used = {family for family in THIRD_PARTY[name] if any(within(user, family) for user in users)}
    dynamic = {"keras"}  # its adapter passes the name to a function, so no import statement exists
    assert name in dynamic or used == set(THIRD_PARTY[name])


def circles() -> list[set[str]]:
    """Return the groups of modules that import each other in a circle.

    Imports for type checking alone count too.
    """
    targets = {
        module: {target for _, target in imports(path) if target in MODULES and target != "bn_spec"}
        for module, path in MODULES.items()
    }
    reached = {module: set(found) for module, found in targets.items()}
    for middle in MODULES:
        for module in MODULES:
            if middle in reached[module]:
                reached[module] |= reached[middle]
    return [
        {other for other in reached[module] if module in reached[other]}
        for module in MODULES
        if module in reached[module]
    ]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


def test_there_are_few_rooms_at_the_top() -> None:
    assert len([p for p in (ROOT / "bn_spec").iterdir() if p.name != "__pycache__"]) <= 16


def test_no_two_modules_share_a_name() -> None:
    names = [m.rpartition(".")[2] for m in MODULES if m.startswith("bn_spec.")]
    names = [name for name in names if name != "__main__"]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def public_classes() -> Iterator[tuple[str, str]]:
    """Yield the name of each public class or type alias of the package, with its module."""
    for module in ROOMS:
        for node in parsed(MODULES[module]).body:
            match node:
                case ast.ClassDef(name=name):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                    pass
                case _:
                    continue
            if not name.startswith("_"):
                yield name, module


def test_no_two_public_classes_share_a_name() -> None:
    names = [name for name, _ in public_classes()]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_no_class_has_more_than_fifteen_public_methods() -> None:
    large = {}
    for module, path in MODULES.items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                methods = [m.name for m in node.body if isinstance(m, ast.FunctionDef)]
                public = [name for name in methods if not name.startswith("_")]
                if len(public) > 15:
                    large[f"{module}.{node.name}"] = len(public)
    assert large == {}


def newly_imported(statement: str) -> set[str]:
    """Return the packages beyond the standard library that a statement imports in a new process."""
    script = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "new = {name.partition('.')[0] for name in sys.modules.keys() - before}\n"
        "print(*new - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-c", script]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_imports_numpy_and_its_dtypes_alone() -> None:
    assert newly_imported("import bn_spec") == {"bn_spec", "numpy", "ml_dtypes"}


def test_the_pytest_plugin_imports_neither_a_framework_nor_hypothesis() -> None:
    found = newly_imported("import bn_spec.session.plugin")
    assert {"bn_spec", "pytest"} <= found
    assert found.isdisjoint({"hypothesis", "torch", "click", "jinja2", "rich"})


def test_a_command_imports_neither_a_framework_nor_hypothesis_before_it_is_called() -> None:
    found = newly_imported("import bn_spec.cli")
    assert {"bn_spec", "click", "pytest"} <= found
    assert found.isdisjoint({"hypothesis", "torch", "jinja2"})


def test_the_specification_is_read_without_pytest_and_hypothesis() -> None:
    found = newly_imported(
        "from bn_spec.suite.chapters import load_suite; load_suite()\n"
        "from bn_spec.specification.requirement import REQUIREMENTS\n"
        "assert REQUIREMENTS"
    )
    assert found.isdisjoint({"hypothesis", "pytest", "_pytest", "torch"})


OUR_TEXTS = [
    *(ROOT / "bn_spec").rglob("*.py"),
    *(ROOT / "conformance").rglob("*.py"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "examples").rglob("*.md"),
    *(ROOT / "examples").rglob("*.toml"),
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
]


@pytest.mark.parametrize("path", OUR_TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_names_a_place_on_somebodys_machine(path: Path) -> None:
    places = re.findall(
        r"(?<![\w.:/])/(?:home|mnt|opt|private|root|tmp|Users|var|work)/[^\s\"']*",
        path.read_text("utf-8"),
    )
    assert not places


def test_the_public_names_are_sorted_and_exist() -> None:
    assert bn_spec.__all__ == sorted(bn_spec.__all__)
    assert all(hasattr(bn_spec, name) for name in bn_spec.__all__)


@pytest.mark.parametrize(
    "package",
    [
        "bn_spec.backend",
        "bn_spec.case",
        "bn_spec.oracle.reference",
        "bn_spec.specimens",
        "bn_spec.strategies",
    ],
)
def test_a_package_offers_what_it_says_it_offers(package: str) -> None:
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)
