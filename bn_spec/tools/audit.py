"""The audit of the suite: whether it catches every faulty specimen, and leaves the sound ones alone.

Each specimen goes through the cells that any backend goes through, in a process of its own if there
are several. A faulty one is looked at by the requirements that must catch it, up to the first
finding, and by all others if they do not. A sound one is looked at by all requirements, each in one
of its dtypes in turn, with a quarter of the examples. In full, every requirement looks at every
specimen with all examples: a faulty one in the first dtype that it claims, where its fault shows, a
sound one in all of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from math import prod
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

from bn_spec.backend.contract import Backend
from bn_spec.case.whole_files import written_whole
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.strategies.shapes import LARGE
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search, Vacuous

SOUND_SHARE = 0.25
"""Of a profile's examples, for a sound specimen and requirement: there are many of them, and each draws its own."""


@dataclass(frozen=True)
class Kill:
    """A finding: the requirement, the dtype, and how many examples and seconds were needed."""

    requirement: str
    dtype: str
    examples: int
    seconds: float


@dataclass(frozen=True)
class Audited:
    """A specimen that was looked at: ``kills`` in the order in which they were found, and what looked in all."""

    specimen: str
    sound: bool
    kills: tuple[Kill, ...]
    looked: tuple[str, ...]
    examples: int
    seconds: float

    @property
    def right(self) -> bool:
        """Whether a faulty specimen was caught, or a sound one was not."""
        return self.sound is not bool(self.kills)


def audit(
    names: Sequence[str],
    profile: str = "ci",
    *,
    full: bool = False,
    seed: int = 0,
    workers: int = 1,
) -> Iterator[Audited]:
    """Yield each of the named specimens as soon as it has been looked at.

    Raises what a broken suite raises; a finding is no error.
    """
    if workers == 1:
        yield from (_audited(name, profile, full, seed) for name in names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # The sound ones take longest; who starts last should be done soon.
        ordered = sorted(names, key=lambda name: not SPECIMENS[name].sound)
        tasks = [pool.submit(_audited, name, profile, full, seed) for name in ordered]
        yield from (task.result() for task in as_completed(tasks))


def _audited(name: str, profile: str, full: bool, seed: int) -> Audited:
    load_suite()
    specimen, kills, looked = SPECIMENS[name], list[Kill](), dict[str, None]()
    start, examples = time.perf_counter(), 0
    with scaled_down():
        for search in _searches(specimen, profile, full, seed):
            if kills and not full:
                break
            cell, tally = search.cell, search.tally
            looked[cell.prop.requirement.id] = None
            begun = time.perf_counter()
            try:
                with suppress(Vacuous):  # with few examples, a miss says nothing
                    search.examine()
            except Violation:
                needed = time.perf_counter() - begun
                kills.append(Kill(cell.prop.requirement.id, cell.dtype, tally.examples, needed))
            examples += tally.examples
    seconds = time.perf_counter() - start
    return Audited(name, specimen.sound, tuple(kills), tuple(looked), examples, seconds)


def _searches(specimen: Specimen, profile: str, full: bool, seed: int) -> Iterator[Search]:
    """Yield the searches for a specimen; those of the requirements that must catch it come first."""
    chosen = PROFILES[profile]
    unshrunk = chosen.settings(shrink=False)
    own_seed = seed ^ crc32(specimen.name.encode()) if specimen.sound else seed
    share = 1.0 if full or not specimen.sound else SOUND_SHARE
    named = [name for name in specimen.caught_by if name in PROPERTIES]
    others = [name for name in PROPERTIES if name not in named]
    for turn, name in enumerate([*named, *others]):
        prop = PROPERTIES[name]
        if (prop.huge or (prop.deep and not chosen.deep)) and name not in named:
            continue
        dtypes = [dtype for dtype in specimen.capabilities.dtypes if dtype in prop.dtypes]
        if not specimen.sound:
            dtypes = dtypes[:1]
        elif not full:
            dtypes = dtypes[turn % max(len(dtypes), 1) :][:1]
        for dtype in dtypes:
            cell = Cell(prop, specimen, dtype)
            if not cell.not_claimed:
                yield Search(cell, unshrunk, own_seed, share)


def first_search(
    specimen: Specimen, backend: Backend | None = None, seed: int = 0
) -> Search | None:
    """Return the search, at ci, for the first requirement that a faulty specimen names.

    It is in the first dtype that the specimen claims, and judges the specimen or another
    ``backend``. None if the property needs an input of gigabytes.
    """
    load_suite()
    prop = PROPERTIES[specimen.caught_by[0]]
    if prop.huge:
        return None
    dtype = next(dtype for dtype in specimen.capabilities.dtypes if dtype in prop.dtypes)
    return Search(Cell(prop, backend or specimen, dtype), PROFILES["ci"].settings(), seed)


@contextmanager
def scaled_down() -> Iterator[None]:
    """Stand in for the one input of gigabytes: smaller by as much as the number up to which its specimen counts."""
    kernel: Any = SPECIMENS["elements-counted-in-32-bits"].kernel
    values: Any = import_module(
        "bn_spec.strategies.values"
    )  # the attribute of that name is a function
    tiles, limit = values.TILES, kernel.limit
    (shape,) = LARGE["beyond 32 bits"]
    values.TILES = 2
    kernel.limit = prod(shape) * values.TILES**2 - 70
    try:
        yield
    finally:
        values.TILES, kernel.limit = tiles, limit


@dataclass(frozen=True)
class Report:
    """What an audit found."""

    audited: tuple[Audited, ...]
    full: bool

    @property
    def survivors(self) -> list[str]:
        """Faulty specimens that nothing has caught."""
        return [each.specimen for each in self.audited if not each.sound and not each.kills]

    @property
    def flagged(self) -> list[str]:
        """Sound specimens that something has caught."""
        return [each.specimen for each in self.audited if each.sound and each.kills]

    @property
    def idle(self) -> list[str]:
        """Requirements that looked at faulty specimens and killed none of them."""
        faulty = [each for each in self.audited if not each.sound]
        killing = {kill.requirement for each in faulty for kill in each.kills}
        return [
            name
            for name in REQUIREMENTS
            if name not in killing and any(name in each.looked for each in faulty)
        ]

    def save(self, path: Path) -> None:
        """Write the kill matrix and all figures as JSON: whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [asdict(each) for each in self.audited]
        with written_whole(path) as file:
            file.write(
                json.dumps({"full": self.full, "audited": entries}, indent=1).encode() + b"\n"
            )

    def lines(self) -> Iterator[str]:
        """Yield what was found, for people: a line per faulty specimen, then the figures."""
        faulty = [each for each in self.audited if not each.sound]
        width = max((len(each.specimen) for each in self.audited), default=0)
        for each in faulty:
            first = each.kills[0] if each.kills else None
            by = " ".join(kill.requirement for kill in each.kills) or "SURVIVES"
            needed = (
                f"{first.examples:>5} examples {first.seconds:7.2f} s" if first else f"{'':>25}"
            )
            yield f"{each.specimen:<{width}}  {needed}  {by}"
        for name in self.flagged:
            kills = next(each.kills for each in self.audited if each.specimen == name)
            yield f"{name:<{width}}  sound, but FLAGGED by {' '.join(kill.requirement for kill in kills)}"
        killed = [each.kills[0] for each in faulty if each.kills]
        yield ""
        yield (
            f"{len(killed)} of {len(faulty)} faulty specimens killed,"
            f" {len(self.flagged)} of {len(self.audited) - len(faulty)} sound ones flagged"
        )
        if killed:
            examples, seconds = (
                median(getattr(kill, of) for kill in killed) for of in ("examples", "seconds")
            )
            yield f"median to the first finding: {examples:g} examples, {seconds:.2f} s"
        if self.full and self.idle:
            yield f"requirements that kill nothing: {' '.join(self.idle)}"
        if self.survivors:
            yield f"survivors: {' '.join(self.survivors)}"
