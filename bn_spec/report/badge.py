"""The badge of a run, as shields.io reads it from an address (its *endpoint badge*)."""

from __future__ import annotations

from bn_spec.report.records import INCOMPLETE, NEW_FINDING, NOTHING_TESTED
from bn_spec.report.view import View, counted

LABEL = "BatchNorm2d"


def badge(view: View) -> dict[str, object]:
    """Return the content of the file; nothing in it comes from a backend."""
    message, color = _told(view)
    return {"schemaVersion": 1, "label": LABEL, "message": message, "color": color}


def _told(view: View) -> tuple[str, str]:
    code = view.run.exit_code
    if code == INCOMPLETE:
        return "incomplete", "orange"
    if code == NOTHING_TESTED:
        return "nothing tested", "lightgrey"
    if code == NEW_FINDING:
        return counted(len(view.findings), "finding") if view.findings else "failed", "red"
    return (
        f"conforms ({counted(len(view.excuses), 'known failure')})" if view.excuses else "conforms",
        "brightgreen",
    )
