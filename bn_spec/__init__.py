"""bn-spec: a property-based conformance suite for BatchNorm2d.

``import bn_spec`` needs NumPy and ml_dtypes alone: the reference layer, cases, the backend contract
and :func:`bn_spec.judge.check.check`. The suite also needs Hypothesis and pytest, and each adapter
needs its framework.
"""

__version__ = "0.1.0"

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Layer
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.config import Config, State
from bn_spec.case.dialect import Dialect
from bn_spec.case.script import Case
from bn_spec.errors import (
    BackendError,
    BnSpecError,
    BrokenBackend,
    CaseFileError,
    ConfigError,
    UnavailableBackend,
    UnknownBackend,
)
from bn_spec.judge.check import check
from bn_spec.oracle.reference import BatchNorm2d

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
