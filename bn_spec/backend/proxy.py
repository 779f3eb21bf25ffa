"""A backend that passes every call on to another one."""

from __future__ import annotations

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend, Layer, Native
from bn_spec.backend.known_failure import KnownFailure, known_failures
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import Array


class Deputy:
    """A backend that passes every call on to another one; a subclass changes some of the calls."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def name(self) -> str:
        """Name of the backend behind it."""
        return self.backend.name

    @property
    def description(self) -> str:
        """Version and device of the backend behind it."""
        return self.backend.description

    @property
    def capabilities(self) -> Capabilities:
        """Claims of the backend behind it."""
        return self.backend.capabilities

    @property
    def known_failures(self) -> tuple[KnownFailure, ...]:
        """Known failures of the backend behind it."""
        return known_failures(self.backend)

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer of the backend behind it."""
        return self.backend.layer(config, state)

    def to_native(self, array: Array) -> Native:
        """Return an array as a native tensor of the backend behind it."""
        return self.backend.to_native(array)

    def to_numpy(self, tensor: Native) -> Array:
        """Return a native tensor of the backend behind it as an array."""
        return self.backend.to_numpy(tensor)
