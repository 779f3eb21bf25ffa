"""Hypothesis strategies for BatchNorm2d: shapes, values, parameters, running statistics, whole cases."""

from .cases import ABSENT, EPS, MOMENTA, PARAMETER_STYLES, RUNNING_STYLES, cases
from .layouts import LAYOUT
from .misuse import misused, of_single_values, of_wrong_channels, of_wrong_rank
from .shapes import EDGES, REGIONS, shapes
from .tensors import PARAMETERS, RUNNING
from .values import FAMILIES, MIXED, OFFSETS, SCALES, Recipe, beside_loud_neighbours, values

__all__ = [
    "ABSENT",
    "EDGES",
    "EPS",
    "FAMILIES",
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
    "Recipe",
    "beside_loud_neighbours",
    "cases",
    "misused",
    "of_single_values",
    "of_wrong_channels",
    "of_wrong_rank",
    "shapes",
    "values",
]
