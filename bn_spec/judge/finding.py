"""A finding: one requirement violated by one observation, and how it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent, wrap

import numpy as np

from bn_spec.case.arrays import same_bits, shown_values
from bn_spec.case.config import initial_state
from bn_spec.case.script import Case
from bn_spec.case.source import source
from bn_spec.case.steps import STEP_KINDS, Forward
from bn_spec.judge.verdict import Discrepancy
from bn_spec.play.observation import CONSTRUCTION
from bn_spec.specification.requirement import Requirement

WIDTH = 100

LONGEST_CODE = 20_000
"""Characters of Python beyond which a case is not printed: nobody reads or copies that from a terminal."""

MOST_VALUES = 2**20
"""Of a case, beyond which it is not even written down to see how long it is."""

MOST_FAULTS = 3
"""Named, of those that cannot be told apart."""


@dataclass(frozen=True)
class Finding:
    """One requirement violated by one observation of a backend on a case.

    ``address`` is the name under which the backend can be loaded again; ``note`` adds what the
    property knows. ``faults`` are those of the catalogue that answer likewise, the likeliest first;
    None if nobody has looked. ``replay`` is the command that plays the case again, where it is
    kept.
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
        """Requirement, its sentence, and who violated it in which dtype."""
        left = f"{self.requirement.id}  {self.requirement.sentence}"
        right = f"{self.backend} · {self.case.config.dtype}"
        return f"{left}{' ' * max(WIDTH - len(left) - len(right), 2)}{right}"

    def body(self) -> Iterator[str]:
        """The case, what was expected and what was got, and Python that plays the case."""
        d = self.discrepancy
        for number, line in enumerate(describe(self.case)):
            yield f"  {'case' if number == 0 else '':<10}{line}"
        if len(self.case.steps) > 1 and d.step != CONSTRUCTION:
            yield f"  {'at step':<10}{d.step + 1} of {len(self.case.steps)}"
        digits = 2 if d.factor >= 10 else 3  # 1.02 times the bound is not 1 times the bound
        factor = f"({d.factor:.{digits}g} × the bound)" if np.isfinite(d.factor) else ""
        yield f"  {'expected':<10}{d.expected}"
        yield f"  {'got':<10}{d.got}{'          ' + factor if factor else ''}"
        if self.note:
            yield f"  {'note':<10}{self.note}"
        yield from self._explanation()
        if self.replay:
            yield f"  {'replay':<10}{self.replay}"
        values = self.case.values
        code = source(self.case) if values <= MOST_VALUES else ""
        if not code or len(code) > LONGEST_CODE:
            yield f"  {'python':<10}not shown, for {values} values; the same options and seed find the case again"
            return
        yield f"  {'python':<10}from bn_spec.case import *; from bn_spec import check"
        yield indent(f"print(check({code}, {self.address!r}))", " " * 12)

    def _explanation(self) -> Iterator[str]:
        """The faults on record that answer likewise."""
        if self.faults is None:
            return
        lines = self.faults[:MOST_FAULTS] or ("no fault on record fails likewise",)
        for number, line in enumerate(lines):
            left = "fault" if number == 0 else "or"
            for part, text in enumerate(wrap(line, WIDTH - 12)):
                yield f"  {left if part == 0 else '':<10}{text}"


def describe(case: Case) -> Iterator[str]:
    """Yield lines that describe a case to a person: sizes and config, state, then one line per step."""
    config = case.config
    departures = "  ".join(f"{name}={value!r}" for name, value in config.departures().items())
    forwards = list(case.forwards())
    if len(case.steps) == 1 and len(forwards) == 1 and forwards[0].ndim == 4:
        n, c, h, w = forwards[0].shape
        sizes = f"N={n} C={c} H={h} W={w}" + (
            f" (layer: {config.num_features})" if c != config.num_features else ""
        )
        yield f"{sizes}  {departures}".rstrip() + f"  x = {shown_values(forwards[0])}"
    else:
        yield f"C={config.num_features}  {departures}".rstrip()
    if case.state is not None:
        for (name, held), (_, fresh) in zip(
            case.state.items(), initial_state(config).items(), strict=True
        ):
            if held is not None and (fresh is None or not same_bits(held, fresh)):
                yield f"{name} = {shown_values(held)}"
    if len(case.steps) > 1 or any(x.ndim != 4 for x in forwards):
        before = 0
        for number, step in enumerate(case.steps, 1):
            before += isinstance(step, Forward)
            yield f"{number}. {STEP_KINDS[type(step)].wording(step, before)}"
