"""A stand-in for a backend that changes some of its answers."""

from __future__ import annotations

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Layer, Native
from bn_spec.backend.known_failure import KnownFailure, known_failures
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array


class Deputy:
    """Stands for a backend, and is in all things as it is but for those that a subclass does otherwise."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def name(self) -> str:
        """That of the backend."""
        return self.backend.name

    @property
    def description(self) -> str:
        """That of the backend."""
        return self.backend.description

    @property
    def capabilities(self) -> Capabilities:
        """What the backend claims."""
        return self.backend.capabilities

    @property
    def known_failures(self) -> tuple[KnownFailure, ...]:
        """Those that the backend declares."""
        return known_failures(self.backend)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer of the backend."""
        return self.backend.layer(config, state)

    def to_native(self, array: Array) -> Native:
        """Move an array in as the backend does."""
        return self.backend.to_native(array)

    def to_numpy(self, tensor: Native) -> Array:
        """Move a tensor out as the backend does."""
        return self.backend.to_numpy(tensor)
