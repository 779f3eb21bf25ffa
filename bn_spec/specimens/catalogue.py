"""The catalogue of specimens, each of which is a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Layer
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.errors import allowed
from bn_spec.specimens.classes import FAULT_CLASSES
from bn_spec.specimens.kernel import Kernel

K = TypeVar("K", bound=type[Kernel])


@dataclass(frozen=True)
class Specimen:
    """An implementation that tests the suite. It is a backend.

    A sound specimen must pass. A faulty one must be caught by each requirement that it names.

    Attributes:
        name: Its name in the catalogue and in test ids.
        sentence: How it computes, or which mistake it makes.
        kernel: The class of its layers.
        capabilities: What it claims.
        history: Issues and pull requests of real projects (``owner/repository#number``) that
            report the fault.
        caught_by: Ids of the requirements that must catch it; empty for a sound specimen.
        fault: The class of its mistake, a name in
            :data:`bn_spec.specimens.classes.FAULT_CLASSES`; empty for a sound specimen.

    """

    name: str
    sentence: str
    kernel: type[Kernel]
    capabilities: Capabilities
    history: tuple[str, ...] = ()
    caught_by: tuple[str, ...] = ()
    fault: str = ""

    @property
    def sound(self) -> bool:
        """Whether the specimen must pass."""
        return not self.caught_by

    @property
    def description(self) -> str:
        """What the specimen is and does, as a report shows it."""
        return f"{'sound' if self.sound else 'faulty'} specimen: {self.sentence}"

    @property
    def title(self) -> str:
        """Name, sentence and history, for a user whose kernel makes the same mistake."""
        history = f" ({', '.join(self.history)})" if self.history else ""
        return f"{self.name}: {self.sentence}{history}"

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer."""
        return self.kernel(config, state)

    def to_native(self, array: Array) -> Array:
        """Return the array: NumPy arrays are native."""
        return array

    def to_numpy(self, tensor: Array) -> Array:
        """Return the array: NumPy arrays are native."""
        return np.asarray(tensor)


SPECIMENS: dict[str, Specimen] = {}
"""All specimens by name, in the order in which their modules register them."""

_COMMON_CLAIMS: dict[str, Any] = {
    "gradients": True,
    "checkpoints": True,
    "live_attributes": True,
    "strided_state": True,
    "deterministic": True,
    "threads": True,
    "folding": True,
}


def sound(
    name: str, *, grade: str, dtypes: tuple[str, ...] = tuple(DTYPES), **claims: Any
) -> Callable[[K], K]:
    """Register a sound kernel. The first line of its docstring says how it computes.

    Args:
        name: Name of the specimen.
        grade: Numerical class of its variance, one of :data:`bn_spec.oracle.bounds.GRADES`.
        dtypes: Dtypes that it claims.
        **claims: Further fields of :class:`bn_spec.backend.claims.Capabilities`.

    """
    return _registered(name, Capabilities(dtypes=dtypes, grade=grade, **_COMMON_CLAIMS | claims))


def faulty(
    name: str,
    *,
    fault: str,
    history: tuple[str, ...],
    caught_by: tuple[str, ...],
    dtypes: tuple[str, ...] = tuple(DTYPES),
    **claims: Any,
) -> Callable[[K], K]:
    """Register a faulty kernel. The first line of its docstring says which mistake it makes.

    Unless it claims a grade, it has the default one, ``welford``.

    Args:
        name: Name of the specimen.
        fault: Class of its mistake, a name in :data:`bn_spec.specimens.classes.FAULT_CLASSES`.
        history: Issues and pull requests that report it; empty if there is no report yet.
        caught_by: Requirements that must catch it.
        dtypes: Dtypes that it claims: those in which it has the fault.
        **claims: Further fields of :class:`bn_spec.backend.claims.Capabilities`.

    Raises:
        ValueError: The class of faults does not exist.

    """
    if fault not in FAULT_CLASSES:
        raise ValueError(allowed("fault class", fault, FAULT_CLASSES))
    return _registered(
        name, Capabilities(dtypes=dtypes, **_COMMON_CLAIMS | claims), history, caught_by, fault
    )


def _registered(
    name: str,
    claims: Capabilities,
    history: tuple[str, ...] = (),
    caught_by: tuple[str, ...] = (),
    fault: str = "",
) -> Callable[[K], K]:
    def register(kernel: K) -> K:
        if name in SPECIMENS:
            raise ValueError(f"two specimens are called {name!r}")
        sentence = (kernel.__doc__ or "").strip().partition("\n")[0]
        SPECIMENS[name] = Specimen(name, sentence, kernel, claims, history, caught_by, fault)
        return kernel

    return register
