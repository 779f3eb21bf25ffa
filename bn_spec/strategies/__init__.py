"""Hypothesis strategies for BatchNorm2d: shapes, values, parameters, running statistics, whole cases."""

from bn_spec.case.layouts import PLACED, USUAL_LAYOUTS
from bn_spec.strategies.cases import (
    ABSENT,
    EPS,
    KEEPING,
    MOMENTA,
    PARAMETER_STYLES,
    RUNNING_STYLES,
    cases,
)
from bn_spec.strategies.choices import among, chosen
from bn_spec.strategies.histories import SPECIAL, WORDS, histories
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
