"""The badge of a run, in the format of shields.io's *endpoint badge*."""

from __future__ import annotations

from bn_spec.report.records import INCOMPLETE, NEW_FINDING, NOTHING_TESTED
from bn_spec.report.view import View, counted

LABEL = "BatchNorm2d"
"""Text on the left side of the badge."""


def badge(view: View) -> dict[str, object]:
    """Return the content of the badge's file; no text in it comes from a backend."""
    message, color = _message_and_color(view)
    return {"schemaVersion": 1, "label": LABEL, "message": message, "color": color}


def _message_and_color(view: View) -> tuple[str, str]:
    code = view.run.exit_code
    if code == INCOMPLETE:
        return "incomplete", "orange"
    if code == NOTHING_TESTED:
        return "nothing tested", "lightgrey"
    if code == NEW_FINDING:
        return counted(len(view.findings), "finding") if view.findings else "failed", "red"
    if view.known_failures:
        return f"conforms ({counted(len(view.known_failures), 'known failure')})", "brightgreen"
    return "conforms", "brightgreen"
