"""What the tests share: settings under which every run is the same, and the way through a printed case."""

from typing import Any

from hypothesis import HealthCheck, settings

from bn_spec import Case
from bn_spec.case.source import source


def examples(number: int) -> settings:
    """Return the settings for a property of so many examples: the same in every run, whatever the clock says."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def printed_and_read(case: Case) -> Case:
    """Evaluate the source of a case under the one import that it promises to need."""
    names: dict[str, Any] = {}
    exec("from bn_spec.case import *", names)
    read: Case = eval(source(case), names)
    return read
