"""bn-spec: a property-based conformance suite for BatchNorm2d.

The reference layer, cases, and the backend contract need NumPy alone; strategies and the suite add
Hypothesis and pytest, adapters their frameworks.
"""

from ._version import __version__
from .backend import Backend, Capabilities, KnownFailure, Layer, kernel_backend
from .case import Case
from .checking import check
from .config import Config, State
from .dialect import Dialect
from .errors import (
    BackendError,
    BnSpecError,
    BrokenBackend,
    CaseFileError,
    ConfigError,
    UnavailableBackend,
    UnknownBackend,
)
from .reference import BatchNorm2d

__all__ = [
    "Backend",
    "BackendError",
    "BatchNorm2d",
    "BnSpecError",
    "BrokenBackend",
    "Capabilities",
    "Case",
    "CaseFileError",
    "Config",
    "ConfigError",
    "Dialect",
    "KnownFailure",
    "Layer",
    "State",
    "UnavailableBackend",
    "UnknownBackend",
    "__version__",
    "check",
    "kernel_backend",
]
