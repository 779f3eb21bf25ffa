"""Hypothesis strategies for BatchNorm2d: shapes, values, parameters, running statistics, cases.

:func:`bn_spec.strategies.hypothesis_cases.cases` and
:func:`bn_spec.strategies.hypothesis_cases.chosen` are strategies of Hypothesis, which is imported
when one of them is first used.
"""

from typing import TYPE_CHECKING, Any

from bn_spec.case.layouts import PLACED, USUAL_LAYOUTS
from bn_spec.strategies.case_choices import (
    ABSENT,
    EPS,
    KEEPING,
    MOMENTA,
    PARAMETER_STYLES,
    RUNNING_STYLES,
    SPECIAL,
)
from bn_spec.strategies.choices import among
from bn_spec.strategies.histories import WORDS, histories
from bn_spec.strategies.misuse import misused, of_single_values, of_wrong_channels, of_wrong_rank
from bn_spec.strategies.shapes import EDGES, LARGE, REGIONS, shapes
from bn_spec.strategies.tensors import PARAMETERS, RUNNING
from bn_spec.strategies.values import (
    BALANCED,
    BEYOND,
    FAMILIES,
    MIXED,
    OFFSETS,
    SCALES,
    WIDE,
    Recipe,
    beside_loud_neighbours,
    beyond_32_bits,
    gradients,
    one_channel_shifted,
    values,
)

if TYPE_CHECKING:
    from bn_spec.strategies.hypothesis_cases import cases, chosen

__all__ = [
    "ABSENT",
    "BALANCED",
    "BEYOND",
    "EDGES",
    "EPS",
    "FAMILIES",
    "KEEPING",
    "LARGE",
    "MIXED",
    "MOMENTA",
    "OFFSETS",
    "PARAMETERS",
    "PARAMETER_STYLES",
    "PLACED",
    "REGIONS",
    "RUNNING",
    "RUNNING_STYLES",
    "SCALES",
    "SPECIAL",
    "USUAL_LAYOUTS",
    "WIDE",
    "WORDS",
    "Recipe",
    "among",
    "beside_loud_neighbours",
    "beyond_32_bits",
    "cases",
    "chosen",
    "gradients",
    "histories",
    "misused",
    "of_single_values",
    "of_wrong_channels",
    "of_wrong_rank",
    "one_channel_shifted",
    "shapes",
    "values",
]


def __getattr__(name: str) -> Any:
    if name not in ("cases", "chosen"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Hypothesis takes half a second to import, and reading the specification does not need it.
    from importlib import import_module

    module = import_module("bn_spec.strategies.hypothesis_cases")
    globals().update(cases=module.cases, chosen=module.chosen)
    return globals()[name]
