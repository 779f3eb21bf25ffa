"""The catalogue: specimens by name, and each of them as a backend."""

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
    """An implementation kept for testing the suite; as it stands, a backend.

    A sound one must pass, a faulty one must be caught by each requirement in ``caught_by``.
    ``history`` names issues and pull requests of real projects (``owner/repository#number``) in
    which the fault occurred. ``fault`` is the class of its mistake, a name in
    :data:`~bn_spec.specimens.classes.FAULT_CLASSES`; a sound one has none.
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
        """What the specimen does, for people."""
        return f"{'sound' if self.sound else 'faulty'} specimen: {self.sentence}"

    @property
    def title(self) -> str:
        """Name, sentence and history, for people who made the same mistake."""
        history = f" ({', '.join(self.history)})" if self.history else ""
        return f"{self.name}: {self.sentence}{history}"

    def layer(self, config: Config, state: State | None) -> Layer:
        """Build a layer."""
        return self.kernel(config, state)

    def to_native(self, array: Array) -> Array:
        """NumPy arrays are native."""
        return array

    def to_numpy(self, tensor: Array) -> Array:
        """NumPy arrays are native."""
        return np.asarray(tensor)


SPECIMENS: dict[str, Specimen] = {}
"""All specimens by name, the sound ones first."""


_WHAT_KERNELS_HAVE: dict[str, Any] = {
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
    """Enter a sound kernel into the catalogue; its docstring says how it computes."""
    return _enter(name, Capabilities(dtypes=dtypes, grade=grade, **_WHAT_KERNELS_HAVE | claims))


def faulty(
    name: str,
    *,
    fault: str,
    history: tuple[str, ...],
    caught_by: tuple[str, ...],
    dtypes: tuple[str, ...] = tuple(DTYPES),
    **claims: Any,
) -> Callable[[K], K]:
    """Enter a faulty kernel into the catalogue; its docstring says the mistake in a sentence.

    It claims the dtypes in which it has the fault and, unless given, the default grade, under which
    a fault has the most room to hide. ``fault`` is the class of its mistake; ``history`` is empty
    where nobody has reported it yet.

    Raises:
        ValueError: there is no such class of faults.

    """
    if fault not in FAULT_CLASSES:
        raise ValueError(allowed("fault class", fault, FAULT_CLASSES))
    return _enter(
        name, Capabilities(dtypes=dtypes, **_WHAT_KERNELS_HAVE | claims), history, caught_by, fault
    )


def _enter(
    name: str,
    claims: Capabilities,
    history: tuple[str, ...] = (),
    caught_by: tuple[str, ...] = (),
    fault: str = "",
) -> Callable[[K], K]:
    def enter(kernel: K) -> K:
        if name in SPECIMENS:
            raise ValueError(f"two specimens are called {name!r}")
        sentence = (kernel.__doc__ or "").strip().partition("\n")[0]
        SPECIMENS[name] = Specimen(name, sentence, kernel, claims, history, caught_by, fault)
        return kernel

    return enter
