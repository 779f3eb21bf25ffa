"""The sentences of requirements: the only place where a report reads the specification."""

from __future__ import annotations

from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.chapters import load_suite

UNKNOWN = "not in the specification of this bn-spec"
"""Text shown for a requirement that this version does not have."""


def sentence_of(requirement: str) -> str:
    """Return the sentence of a requirement, or :data:`UNKNOWN`."""
    # A report can be made without a session, so nothing else may have loaded the suite yet.
    load_suite()
    declared = REQUIREMENTS.get(requirement)
    return declared.sentence if declared else UNKNOWN
