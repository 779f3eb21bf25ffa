"""What a requirement is, the chapters of the specification, and the registry that the suite fills.

The normative semantics are those of ``torch.nn.BatchNorm2d``: its documentation, and its behaviour
where the documentation is silent. The formula is that of Ioffe & Szegedy 2015.

The sentences stand in ``conformance/``, each as the docstring of the property that judges it.
Importing a chapter of the suite fills :data:`REQUIREMENTS`;
:func:`bn_spec.suite.chapters.load_suite` imports them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bn_spec.errors import ConfigError, allowed

PAPER = "Ioffe & Szegedy 2015"
"""Source of requirements that follow from the paper."""

BOUNDS = "bn_spec.oracle.bounds"
"""Source of requirements that follow from the proven error bounds."""

TORCH = "torch.nn.BatchNorm2d"
"""Source of requirements that follow from PyTorch's documentation or behaviour."""

SPECIFICATION = "0.6"
"""Version of the specification.

It changes when a requirement is added, removed or changes its meaning.
"""

CHAPTERS = MappingProxyType(
    {
        "CFG": "construction",
        "TRN": "training forward",
        "RUN": "running statistics",
        "EVL": "eval forward",
        "GRD": "gradients",
        "STA": "state and histories",
        "LAY": "memory",
        "DTY": "dtypes of the state",
        "SHP": "shapes",
        "SPV": "special values",
        "ERR": "misuse",
        "NUM": "accuracy",
        "MET": "laws",
        "DET": "determinism",
        "FLD": "folding into a convolution",
    }
)
"""Titles of the chapters, by the letters that their requirements start with."""

LEVELS = ("core", "training", "gradients", "module", "layout", "numerics")
"""Levels of conformance, from building a layer to the accuracy of the last bits."""


@dataclass(frozen=True)
class Requirement:
    """One sentence of the specification.

    Attributes:
        id: Chapter and number, as in ``RUN-03``.
        sentence: What must hold.
        level: One of :data:`LEVELS`.
        source: The document or issue that the sentence follows from.
        needs: Claims that a backend must make to be judged. If empty, every backend is judged.
        convention: The field of :class:`bn_spec.case.dialect.Dialect` that decides what the
            sentence means in a dialect other than PyTorch's; empty if all dialects agree.

    Raises:
        ConfigError: The id, the sentence or the level is malformed.

    """

    id: str
    sentence: str
    level: str
    source: str
    needs: tuple[str, ...] = ()
    convention: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]{3}-[0-9]{2}", self.id) or self.chapter not in CHAPTERS:
            chapters = ", ".join(CHAPTERS)
            raise ConfigError(f"requirement {self.id!r}; expected CHAPTER-NN; chapters: {chapters}")
        if not self.sentence:
            raise ConfigError(f"{self.id} has no sentence; write it as the property's docstring")
        if self.level not in LEVELS:
            raise ConfigError(f"{self.id}: {allowed('level', self.level, LEVELS)}")

    @property
    def chapter(self) -> str:
        """Key of :data:`CHAPTERS` under which the requirement stands."""
        return self.id.partition("-")[0]


class Registry(Mapping[str, Requirement]):
    """The declared requirements by id, in the order of the chapters and their numbers."""

    def __init__(self) -> None:
        self._declared: dict[str, Requirement] = {}

    def declare(self, requirement: Requirement) -> None:
        """Add a requirement.

        Declaring an equal requirement again changes nothing, so that a module may be imported
        under two names.

        Raises:
            ConfigError: Another requirement has this id.

        """
        declared_before = self._declared.setdefault(requirement.id, requirement)
        if declared_before != requirement:
            raise ConfigError(
                f"{requirement.id} is declared twice: {declared_before.sentence!r} and"
                f" {requirement.sentence!r}; each requirement has one property"
            )
        order = list(CHAPTERS)
        rows = sorted(self._declared.values(), key=lambda row: (order.index(row.chapter), row.id))
        self._declared = {row.id: row for row in rows}

    def __getitem__(self, id: str) -> Requirement:
        return self._declared[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)


REQUIREMENTS = Registry()
"""The requirements that the chapters imported so far declare."""
