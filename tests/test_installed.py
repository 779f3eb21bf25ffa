"""What users install: the wheel in an empty environment, and the example plugin beside it."""

import re
import shutil
import zipfile
from pathlib import Path

from tests.process import REPOSITORY, python, run

SMOKE = ("--profile", "smoke", "-n", "2")
OF_WHEEL = (
    "--pyargs",
    "bn_spec.conformance",
    "--bn-profile",
    "smoke",
    "--bn-requirement",
    "*-01",
    "-n",
    "2",
)

CALLS = (
    (
        ("pytest", *OF_WHEEL),
        0,
        ("reference: conforms (90 checks", "torch-cpu: not run: torch is not installed"),
    ),
    (
        ("bn-spec", "run", "reference", *SMOKE[:2], "--requirement", "TRN-*"),
        0,
        ("60 of 60 checks, none failed",),
    ),
    (("bn-spec", "report"), 0, ("written: .bn_spec/report/report.html, ",)),
    (("bn-spec", "run", "torch-cpu"), 2, ("pip install 'bn-spec[torch]'",)),
    (("bn-spec", "backends"), 0, ("example-kernel",)),
    (
        ("bn-spec", "new-backend", "my-kernel"),
        0,
        ("my-kernel/my_kernel/__init__.py", "conformance.yml"),
    ),
    (
        ("bn-spec", "run", "example-kernel", *SMOKE, "--requirement", "RUN-*"),
        0,
        ("example-kernel: conforms (",),
    ),
)
"""Commands of the environment, with the exit code of each and some of what it prints."""


def test_what_is_installed_does_what_it_promises(tmp_path: Path) -> None:
    """One test, since it is its environment that takes the time."""
    environment = tmp_path / "environment"
    wheel = install(environment)
    assert_it_holds_the_suite_and_nothing_else_at_top_level(wheel)
    for (tool, *arguments), code, sentences in CALLS:
        done = run(environment / "bin" / tool, *arguments, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        for sentence in sentences:
            assert sentence in done.stdout + done.stderr


def install(environment: Path) -> Path:
    """Install the wheel, which is returned, and the example plugin in a new environment."""
    example = environment / "source"
    shutil.copytree(REPOSITORY / "examples" / "example-kernel", example)
    succeed("venv", "--without-pip", environment, cwd=environment)
    succeed("pip", "wheel", "--quiet", "--no-deps", "-w", environment, REPOSITORY, cwd=environment)
    (wheel,) = environment.glob("*.whl")
    pip = (
        "pip",
        "--python",
        environment,
        "install",
        "--quiet",
        "-c",
        REPOSITORY / "constraints.txt",
    )
    succeed(*pip, wheel, example, cwd=environment)
    return wheel


def succeed(module: str, *arguments: str | Path, cwd: Path) -> None:
    done = python("-m", module, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


def assert_it_holds_the_suite_and_nothing_else_at_top_level(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {re.sub(r"-.*\.dist-info", ".dist-info", name.partition("/")[0]) for name in names} == {
        "bn_spec",
        "bn_spec.dist-info",
    }
    assert {
        "bn_spec/py.typed",
        "bn_spec/conformance/test_run.py",
        "bn_spec/oracle/reference/layer.py",
    } <= set(names)
    assert {"bn_spec/report/run.schema.json", "bn_spec/report/page/report.css"} <= set(names)
    suite = {name for name in names if name.startswith("bn_spec/conformance/test_")}
    assert len(suite) == len(list((REPOSITORY / "conformance").glob("test_*.py")))
