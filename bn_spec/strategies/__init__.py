"""Hypothesis strategies for BatchNorm2d: shapes, values, parameters, running statistics, whole cases."""

from .cases import ABSENT, EPS, KEEPING, MOMENTA, PARAMETER_STYLES, RUNNING_STYLES, cases
from .choices import among, chosen
from .histories import SPECIAL, WORDS, histories
from .layouts import LAYOUT, USUAL_LAYOUTS
from .misuse import misused, of_single_values, of_wrong_channels, of_wrong_rank
from .shapes import EDGES, LARGE, REGIONS, shapes
from .tensors import PARAMETERS, RUNNING
from .values import (
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
    "LAYOUT",
    "MIXED",
    "MOMENTA",
    "OFFSETS",
    "PARAMETERS",
    "PARAMETER_STYLES",
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
