"""The tutorial page about a first kernel: its transcript is what the commands print."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from bn_spec.tools.scaffold import rendered
from scripts.transcript import PAGE, transcript


def without_counts(line: str) -> str:
    """Replace the counts and the worst shares in a line.

    They depend on the draws, whose seed depends on the modules that are loaded.
    """
    if not re.match(r"mykernel|    worst", line):
        return line
    return re.sub(r"[\d.,]+(e\+\d+)?", "#", line)


def test_every_step_works_as_the_page_says(tmp_path: Path) -> None:
    info = tmp_path / "mykernel" / "mykernel-0.1.dist-info"
    scripts = Path(sys.executable).parent
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }
    environment |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "110"}
    environment |= {"PYTHONPATH": str(tmp_path / "mykernel")}
    lines = []
    for line in transcript(tmp_path, environment, skip="pip "):
        lines.append(line)
        # The call of pip is skipped, so write the metadata that pip would write.
        if line == "$ bn-spec new-backend mykernel":
            assert Path("pyproject.toml") in rendered("mykernel")
            info.mkdir(parents=True)
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mykernel\nVersion: 0.1\n")
            (info / "entry_points.txt").write_text(
                "[bn_spec.backends]\nmykernel = mykernel:backend\n"
            )
    page = PAGE.read_text("utf-8").splitlines()
    assert [*map(without_counts, lines)] == [*map(without_counts, page)]
