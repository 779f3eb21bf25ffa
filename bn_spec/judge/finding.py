"""Findings: violations of a requirement, and their text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent, wrap

import numpy as np

from bn_spec.case.arrays import same_bits, shown_values
from bn_spec.case.config import initial_state
from bn_spec.case.script import Case, source
from bn_spec.case.steps import STEP_KINDS, Forward
from bn_spec.judge.verdict import Discrepancy
from bn_spec.play.observation import CONSTRUCTION
from bn_spec.specification.requirement import Requirement

WIDTH = 100
"""Width of a headline in characters."""

LONGEST_CODE = 20_000
"""Maximum number of characters of Python; a longer case cannot be copied from a terminal."""

MOST_VALUES = 2**20
"""Number of input values above which the Python of a case is not even generated."""

MOST_FAULTS = 3
"""Maximum number of known mistakes that a finding names."""


@dataclass(frozen=True)
class Finding:
    """One requirement violated by one observation of a backend on a case.

    Attributes:
        requirement: The requirement.
        backend: Name of the backend.
        address: Name under which the backend can be loaded again.
        case: The case.
        discrepancy: What differs from the expectation.
        note: What else is known about the violation.
        faults: Sentences about the known mistakes that give the same answers, the most likely
            first; None if the catalogue was not searched.
        replay: Command that plays the case again, if it is stored.

    """

    requirement: Requirement
    backend: str
    address: str
    case: Case
    discrepancy: Discrepancy
    note: str = ""
    faults: tuple[str, ...] | None = None
    replay: str = ""

    def __str__(self) -> str:
        return "\n".join([self.headline(), *self.body()])

    def headline(self) -> str:
        """Return the requirement, its sentence, the backend and the dtype in one line."""
        left = f"{self.requirement.id}  {self.requirement.sentence}"
        right = f"{self.backend} · {self.case.config.dtype}"
        return f"{left}{' ' * max(WIDTH - len(left) - len(right), 2)}{right}"

    def body(self) -> Iterator[str]:
        """Yield lines about the case, the discrepancy and its explanation, and Python to copy."""
        d = self.discrepancy
        for number, line in enumerate(describe(self.case)):
            yield f"  {'case' if number == 0 else '':<10}{line}"
        if len(self.case.steps) > 1 and d.step != CONSTRUCTION:
            yield f"  {'at step':<10}{d.step + 1} of {len(self.case.steps)}"
        factor = ""
        if np.isfinite(d.factor):
            digits = 2 if d.factor >= 10 else 3  # 1.02 times the bound must not read as 1 times
            factor = f"          ({d.factor:.{digits}g} × the bound)"
        yield f"  {'expected':<10}{d.expected}"
        yield f"  {'got':<10}{d.got}{factor}"
        if self.note:
            yield f"  {'note':<10}{self.note}"
        yield from self._explanation()
        if self.replay:
            yield f"  {'replay':<10}{self.replay}"
        values = self.case.values
        code = source(self.case) if values <= MOST_VALUES else ""
        if not code or len(code) > LONGEST_CODE:
            yield (
                f"  {'python':<10}not shown because the case has {values} values;"
                " the same options and seed find it again"
            )
            return
        yield f"  {'python':<10}from bn_spec.case import *; from bn_spec import check"
        yield indent(f"print(check({code}, {self.address!r}))", " " * 12)

    def _explanation(self) -> Iterator[str]:
        """Yield lines about the known mistakes that give the same answers."""
        if self.faults is None:
            return
        lines = self.faults[:MOST_FAULTS] or ("not a known mistake",)
        for number, line in enumerate(lines):
            left = "fault" if number == 0 else "or"
            for part, text in enumerate(wrap(line, WIDTH - 12)):
                yield f"  {left if part == 0 else '':<10}{text}"


def describe(case: Case) -> Iterator[str]:
    """Yield lines that describe a case: sizes and config, state, then one line per step.

    A case of a single forward of rank 4 has no lines of steps; its first line shows the input.
    """
    config = case.config
    departures = "  ".join(f"{name}={value!r}" for name, value in config.departures().items())
    forwards = list(case.forwards())
    if len(case.steps) == 1 and len(forwards) == 1 and forwards[0].ndim == 4:
        n, c, h, w = forwards[0].shape
        sizes = f"N={n} C={c} H={h} W={w}"
        if c != config.num_features:
            sizes += f" (layer: {config.num_features})"
        yield f"{sizes}  {departures}".rstrip() + f"  x = {shown_values(forwards[0])}"
    else:
        yield f"C={config.num_features}  {departures}".rstrip()
    if case.state is not None:
        default = initial_state(config).tensors()
        for name, tensor in case.state.tensors().items():
            if name not in default or not same_bits(tensor, default[name]):
                yield f"{name} = {shown_values(tensor)}"
    if len(case.steps) > 1 or any(x.ndim != 4 for x in forwards):
        before = 0
        for number, step in enumerate(case.steps, 1):
            before += isinstance(step, Forward)
            yield f"{number}. {STEP_KINDS[type(step)].wording(step, before)}"
