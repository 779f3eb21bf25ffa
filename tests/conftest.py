"""Coverage of the tests, where it is measured: the slowest modules are left out.

`.ci/run` sets COVERAGE_PROCESS_START for the tests. Tracing lines and branches makes a test take
half as long again. The modules in UNMEASURED take most of the time of all tests, and reach few
lines that no other module reaches, so they run untraced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

VARIABLES = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""Environment variables that start coverage in each new process."""

UNMEASURED = frozenset(
    (
        "test_accuracy",
        "test_ambiguities",
        "test_audit",
        "test_bounds",
        "test_gradient_bounds",
        "test_hosts",
        "test_installed",
        "test_isolated",
        "test_laws_mutations",
        "test_mutants",
        "test_readme",
        "test_specimens",
        "test_torch",
        "test_torch_cuda",
        "test_torch_paths",
        "test_walkthrough",
    )
)
"""Modules of tests that run without coverage."""


@pytest.fixture(autouse=True, scope="module")
def untraced_if_slow(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop coverage while a slow module runs, here and in the processes that it starts."""
    if "COVERAGE_PROCESS_START" not in os.environ or request.path.stem not in UNMEASURED:
        yield
        return
    from coverage import Coverage  # a tool of development, and needed only here

    running = Coverage.current()
    assert running is not None
    running.stop()
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        yield
    running.start()
