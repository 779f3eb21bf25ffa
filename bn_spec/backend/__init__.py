"""Backends: the contract of an implementation under test, its claims, and how it is loaded."""

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, DoubleGradients, Gradients, Layer
from bn_spec.backend.kernel_functions import kernel_backend
from bn_spec.backend.known_failure import KnownFailure

__all__ = [
    "Backend",
    "Capabilities",
    "DoubleGradients",
    "Gradients",
    "KnownFailure",
    "Layer",
    "kernel_backend",
]
