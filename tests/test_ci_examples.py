"""The examples for CI: they are valid, and each command line in them is one that exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bn_spec.cli import main
from bn_spec.session import plugin as pytest_plugin
from scripts.options import OptionRecorder
from tests.process import REPOSITORY

WORKFLOWS = REPOSITORY / "examples" / "example-kernel" / ".github" / "workflows"
EXAMPLES = REPOSITORY / "examples" / "ci"
GITLAB = EXAMPLES / "gitlab-ci.yml"
GUIDE = REPOSITORY / "docs" / "ci.md"
TWO_HOSTS = EXAMPLES / "two-hosts.sh"

STUB = f"""#!{sys.executable}
import json, sys
from pathlib import Path
name = Path(sys.argv[0]).name
with open("calls", "a") as file:
    print(json.dumps([name, *sys.argv[1:]]), file=file)
if sys.argv[1:2] == ["report"]:
    folder = Path(sys.argv[sys.argv.index("--output") + 1])
    folder.mkdir()
    (folder / "report.md").write_text("the report")
    sys.exit(1)  # as if the run had findings
"""
"""Source of a stub for a program: it appends its arguments to the file ``calls``."""


def loaded(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file, whose top level is a mapping."""
    content: dict[object, Any] = yaml.safe_load(path.read_text("utf-8"))
    if True in content:  # YAML 1.1 reads the key ``on`` as a truth value
        content["on"] = content.pop(True)
    return {str(name): value for name, value in content.items()}


def calls_of(
    script: str, variables: Mapping[str, str], folder: Path
) -> tuple[list[list[str]], int]:
    """Run a step of a job as a runner does, with stubs for the programs.

    Returns:
        The calls of the stubs, and the exit code of the step.

    """
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("bn-spec", "pip"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    (folder / "calls").unlink(missing_ok=True)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", **variables}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, check=False
    )
    calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return calls, done.returncode


def assert_it_exists(call: Sequence[str]) -> None:
    """Parse a call of ``bn-spec`` as the command itself does; pytest gets what follows ``--``."""
    program, name, *arguments = call
    assert program == "bn-spec"
    try:
        main.commands[name].make_context(name, arguments)
    except click.ClickException as error:
        pytest.fail(f"{shlex.join(call)}: {error.format_message()}")


# GitHub -------------------------------------------------------------------------------


def filled(text: str, inputs: Mapping[str, str]) -> str:
    """Replace each expression of a workflow that is the name of an input by the input."""
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)


CALLED = loaded(EXAMPLES / "github-bn-spec.yml")  # a link to the workflow of the example kernel
INPUTS = CALLED["on"]["workflow_call"]["inputs"]
CALLER = loaded(WORKFLOWS / "conformance.yml")
DEFAULTS = {name: each["default"] for name, each in INPUTS.items() if "default" in each}

OF_CHANGE = "example-kernel --profile ci -n auto --known-failures known-failures.toml"
OF_NIGHTLY = (
    "example-kernel --profile nightly -n auto --known-failures known-failures.toml"
    " --database bn-examples,github:me/mine/hypothesis-example-db"
)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("change", OF_CHANGE.split()),
        ("nightly", OF_NIGHTLY.split()),
        ("plain", ["one", "two", "--profile", "ci", "-n", "auto"]),
    ],
)
def test_a_job_on_github_calls_what_exists(job: str, expected: list[str], tmp_path: Path) -> None:
    inputs = DEFAULTS | {"backend": "one two"}
    if job in CALLER["jobs"]:
        inputs = DEFAULTS | CALLER["jobs"][job]["with"]
    (check,) = CALLED["jobs"].values()
    variables = {name: filled(value, inputs) for name, value in check["env"].items()}
    variables |= {"GITHUB_REPOSITORY": "me/mine", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    scripts = {step["name"]: step["run"] for step in check["steps"] if "run" in step}
    assert not any("${{" in text for text in (*scripts.values(), *variables.values()))
    made = {name: calls_of(script, variables, tmp_path) for name, script in scripts.items()}
    assert made["install"] == ([["pip", "install", "-e", "."]], 0)
    assert made["check"] == ([["bn-spec", "run", *expected]], 0)
    assert made["report"][1] == 1
    assert (tmp_path / "summary").read_text() == "the report"
    for calls, _ in made.values():
        for call in calls:
            if call[0] == "bn-spec":
                assert_it_exists(call)


def test_the_jobs_of_the_example_give_the_inputs_that_there_are() -> None:
    for job in CALLER["jobs"].values():
        assert job["uses"] == "./.github/workflows/bn-spec.yml"
        required = {name for name, each in INPUTS.items() if each.get("required")}
        assert required <= job["with"].keys() <= INPUTS.keys()
    # A called workflow cannot have more permissions than its caller.
    assert CALLER["permissions"] == CALLED["permissions"]
    assert {"push", "pull_request", "schedule"} == CALLER["on"].keys()


def test_what_a_job_writes_is_what_is_kept() -> None:
    (check,) = CALLED["jobs"].values()
    kept = [step["with"] for step in check["steps"] if "upload-artifact" in step.get("uses", "")]
    assert [each["path"].split() for each in kept] == [
        [".bn_spec", "!.bn_spec/artifacts", "bn-report"],
        ["bn-examples"],
    ]
    assert kept[0]["include-hidden-files"]


# GitLab -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("bn-spec", "--profile ci -n auto -- --junitxml=bn-junit.xml"),
        (
            "bn-spec-nightly",
            "--profile nightly -n auto --database bn-examples -- --junitxml=bn-junit.xml",
        ),
    ],
)
def test_a_job_on_gitlab_calls_what_exists(job: str, expected: str, tmp_path: Path) -> None:
    content = loaded(GITLAB)
    base, own = content[content[job]["extends"]], content[job]
    variables = base["variables"] | own.get("variables", {})
    (install, check), _ = calls_of("\n".join(base["script"]), variables, tmp_path)
    assert install == ["pip", "install", "-e", "."]
    assert check == ["bn-spec", "run", "my_kernel.py:backend", *expected.split()]
    (report,), _ = calls_of("\n".join(base["after_script"]), variables, tmp_path)
    assert base["artifacts"]["paths"] == [".bn_spec", report[report.index("--output") + 1]]
    assert f"--junitxml={base['artifacts']['reports']['junit']}" in check
    if "cache" in own:
        assert own["cache"]["paths"] == [own["variables"]["DATABASE"]]
    for call in (check, report):
        assert_it_exists(call)


# The guide ----------------------------------------------------------------------------


def lines_of(path: Path) -> list[list[str]]:
    """Return the words of each command line in the blocks of a page."""
    blocks = re.findall(r"```text\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [shlex.split(line) for line in lines]


def test_every_command_of_the_guide_exists() -> None:
    calls = [words for words in lines_of(GUIDE) if words[0] == "bn-spec"]
    assert len(calls) >= 7
    for call in calls:
        assert_it_exists(call)


@pytest.mark.parametrize(
    "path", [GUIDE, GITLAB, REPOSITORY / "README.md"], ids=lambda path: path.name
)
def test_every_option_of_the_suite_that_is_named_exists(path: Path) -> None:
    recorder = OptionRecorder()
    pytest_plugin.pytest_addoption(recorder)  # type: ignore[arg-type]
    assert set(re.findall(r"--bn-[\w-]+", path.read_text("utf-8"))) <= {
        name for name, _ in recorder.options
    }


def test_the_script_of_two_hosts_is_valid_and_calls_what_exists() -> None:
    checked = subprocess.run(["bash", "-n", TWO_HOSTS], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    text = TWO_HOSTS.read_text("utf-8")
    (default,) = re.findall(r"\|\| set -- (.*)", text)
    (call,) = re.findall(r'-m bn_spec\.cli run "\$@" (.*)', text)
    assert_it_exists(["bn-spec", "run", *shlex.split(default), *shlex.split(call)])


def test_a_command_that_does_not_exist_is_found_out() -> None:
    with pytest.raises(pytest.fail.Exception, match="No such option"):
        assert_it_exists(["bn-spec", "run", "one", "--profil", "ci"])
    with pytest.raises(pytest.fail.Exception, match="'badges'; allowed: html"):
        assert_it_exists(["bn-spec", "report", "--format", "badges"])
