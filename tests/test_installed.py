"""What users install: the wheel in an empty environment, and the example plugin beside it."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .process import REPOSITORY, run

# One environment serves all tests of this module, so they stay on one worker.
pytestmark = pytest.mark.xdist_group("installed")

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a project and return its path."""
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source, cwd=folder)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """Return a way to run the tools of an environment that holds the wheel and the example plugin alone."""
    environment = tmp_path_factory.mktemp("environment")
    example = environment / "source"
    shutil.copytree(REPOSITORY / "examples" / "example-kernel", example)
    run(sys.executable, "-m", "venv", environment, cwd=environment)

    def tool(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return run(environment / "bin" / name, *arguments, cwd=environment)

    for project in (wheel, example):
        done = tool("pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", project)
        assert done.returncode == 0, done.stderr
    return tool


def test_the_wheel_holds_the_suite_and_nothing_else_at_top_level(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {re.sub(r"-.*\.dist-info", ".dist-info", name.partition("/")[0]) for name in names} == {
        "bn_spec",
        "bn_spec.dist-info",
    }
    assert {"bn_spec/py.typed", "bn_spec/conformance/test_run.py", "bn_spec/reference/layer.py"} <= set(names)
    suite = {name for name in names if name.startswith("bn_spec/conformance/test_")}
    assert len(suite) == len(list((REPOSITORY / "conformance").glob("test_*.py")))


def test_the_suite_runs_from_the_wheel(installed: Tool) -> None:
    done = installed("pytest", "--pyargs", "bn_spec.conformance", "--bn-profile", "smoke", "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reference: conforms (777 checks" in done.stdout
    assert "torch-cpu: not run: PyTorch is not installed" in done.stdout


def test_bn_spec_runs_from_the_wheel(installed: Tool) -> None:
    done = installed("bn-spec", "run", "reference", "--profile", "smoke", "--requirement", "TRN-*")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bn_spec/conformance/test_trn.py" in done.stdout


def test_torch_asked_for_without_torch_says_what_to_install(installed: Tool) -> None:
    done = installed("bn-spec", "run", "torch-cpu")
    assert done.returncode == 2
    assert "pip install 'bn-spec[torch]'" in done.stderr


def test_the_example_plugin_conforms_through_its_entry_point(installed: Tool) -> None:
    assert "example-kernel" in installed("bn-spec", "backends").stdout
    done = installed("bn-spec", "run", "example-kernel", "--profile", "smoke", "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "example-kernel: conforms (238 checks" in done.stdout
