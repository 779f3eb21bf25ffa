"""Settings under which every run draws the same examples, and cases printed and read back."""

from typing import Any

from hypothesis import HealthCheck, settings

from bn_spec import Case
from bn_spec.case.script import source


def examples(number: int) -> settings:
    """Return settings for a property of ``number`` examples, the same ones in every run."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def printed_and_read(case: Case) -> Case:
    """Print a case as Python, and evaluate that with the one import that it needs."""
    names: dict[str, Any] = {}
    exec("from bn_spec.case import *", names)
    read: Case = eval(source(case), names)
    return read
