"""``bn-spec new-backend``: a package that works as it is written."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bn_spec.cli import main
from bn_spec.suite.chapters import suite_tests
from bn_spec.tools import scaffold
from bn_spec.tools.scaffold import EXAMPLE, rendered, template_folder, write
from tests.process import REPOSITORY, python


def new(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["new-backend", *map(str, arguments)])


def test_the_example_is_what_is_written_under_its_name() -> None:
    files = {place: (template_folder() / place).read_text("utf-8") for place in rendered(EXAMPLE)}
    assert rendered(EXAMPLE) == files
    assert {path.as_posix() for path in files} == {
        ".github/workflows/bn-spec.yml",
        ".github/workflows/conformance.yml",
        "README.md",
        "example_kernel/__init__.py",
        "known-failures.toml",
        "pyproject.toml",
        "tests/test_conformance.py",
    }


def test_under_another_name_nothing_is_left_of_the_example() -> None:
    files = rendered("my-kernel")
    assert Path("my_kernel/__init__.py") in files
    for place, text in files.items():
        assert "example-kernel" not in text.replace("_", "-"), place
        assert place.suffix != ".toml" or tomllib.loads(text) is not None


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a new package lies, and what an installation of it would add."""
    folder = tmp_path_factory.mktemp("adopter")
    done = new("my-kernel", "--output", folder)
    assert done.exit_code == 0, done.output
    assert "bn-spec run my-kernel -n auto" in done.output
    package = folder / "my-kernel"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / "my_kernel-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (group, points), *others = project["entry-points"].items()
    assert not others
    text = "\n".join(f"{name} = {target}" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{text}\n")
    return package


def test_what_is_written_conforms(installed: Path) -> None:
    call = ("-m", "bn_spec.cli", "run", "my-kernel", "--profile", "smoke", "--requirement", "RUN-*")
    done = python(*call, cwd=installed, PYTHONPATH=f"{installed}{os.pathsep}{REPOSITORY}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my-kernel: conforms (" in done.stdout


def test_its_tests_are_the_suite_with_the_options_of_its_project(installed: Path) -> None:
    call = (
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--bn-profile",
        "smoke",
        "--bn-requirement",
        "[TE]??-0[12]",
    )
    done = python(*call, cwd=installed, PYTHONPATH=f"{installed}{os.pathsep}{REPOSITORY}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my-kernel: conforms (12 checks" in done.stdout


def test_all_tests_of_the_suite_are_handed_out() -> None:
    chapters = (REPOSITORY / "conformance").glob("test_*.py")
    declared = sum(path.read_text("utf-8").count("\n@requirement(") for path in chapters)
    assert len(suite_tests()) == declared


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My Kernel", "did you mean 'my-kernel'?"),
        ("3d-norm", "a letter first, as in 'my-kernel'"),
        ("-x", "No such option"),
        ("../x", "a package cannot be called '../x'; allowed: lower-case letters, digits,"),
        ("class", "since Python or bn-spec uses that name"),
        ("json", "since Python or bn-spec uses that name"),
        ("bn-spec", "since Python or bn-spec uses that name"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused(
    name: str, sentence: str, tmp_path: Path
) -> None:
    done = new(name, "--output", tmp_path)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "my-kernel").mkdir()
    done = new("my-kernel", "--output", tmp_path)
    assert done.exit_code == 2
    assert "exists, and is not overwritten; name a new folder" in " ".join(done.output.split())
    assert not list((tmp_path / "my-kernel").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["my-kernel"]


def test_after_an_error_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**rendered("my-kernel"), Path("README.md", "inside-a-file"): ""}
    monkeypatch.setattr(scaffold, "rendered", lambda _: files)
    with pytest.raises(OSError, match="README"):
        write("my-kernel", tmp_path)
    assert not list(tmp_path.iterdir())
