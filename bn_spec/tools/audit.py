"""The audit of the suite: whether it catches every faulty specimen, and no sound one.

A specimen is judged by the same cells as any backend. With several workers, the specimens are
spread over processes.

A faulty specimen is judged by the requirements that must catch it, up to the first finding; if they
miss it, by all others. A sound specimen is judged by all requirements, with a quarter of the
examples; the requirements take turns over its dtypes.

A full audit judges every specimen by every requirement with all examples: a faulty specimen in the
first dtype that it claims, where its fault shows, and a sound one in all its dtypes.
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
"""Share of a profile's examples that each requirement draws for a sound specimen.

There are many sound specimens, and each is judged on examples of its own.
"""


@dataclass(frozen=True)
class Kill:
    """A finding against a specimen.

    Attributes:
        requirement: Id of the violated requirement.
        dtype: Name of the dtype.
        examples: Number of examples up to the finding.
        seconds: Time up to the finding, in seconds.

    """

    requirement: str
    dtype: str
    examples: int
    seconds: float


@dataclass(frozen=True)
class Audited:
    """The results of one specimen.

    Attributes:
        specimen: Name of the specimen.
        sound: Whether it is sound.
        kills: The findings, in the order in which they were made.
        looked: Ids of the requirements that have judged it.
        examples: Number of examples in all.
        seconds: Time in all, in seconds.

    """

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
    """Yield the results of each named specimen as soon as it has been audited.

    A finding is a result, not an error.

    Args:
        names: Names of the specimens.
        profile: Name of the profile.
        full: Judge every specimen by every requirement.
        seed: Seed of the audit.
        workers: Number of processes.

    Raises:
        Exception: The suite is broken: whatever its code raises.

    """
    if workers == 1:
        yield from (_audited(name, profile, full, seed) for name in names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # Sound specimens take longest: they start first, so that no worker ends late.
        ordered = sorted(names, key=lambda name: not SPECIMENS[name].sound)
        tasks = [pool.submit(_audited, name, profile, full, seed) for name in ordered]
        yield from (task.result() for task in as_completed(tasks))


def _audited(name: str, profile: str, full: bool, seed: int) -> Audited:
    load_suite()
    specimen = SPECIMENS[name]
    kills: list[Kill] = []
    looked: dict[str, None] = {}  # an ordered set
    start, examples = time.perf_counter(), 0
    with scaled_down():
        for search in _searches(specimen, profile, full, seed):
            if kills and not full:
                break
            cell, tally = search.cell, search.tally
            looked[cell.prop.requirement.id] = None
            begun = time.perf_counter()
            try:
                # So few examples may well miss a region.
                with suppress(Vacuous):
                    search.examine()
            except Violation:
                needed = time.perf_counter() - begun
                kills.append(Kill(cell.prop.requirement.id, cell.dtype, tally.examples, needed))
            examples += tally.examples
    seconds = time.perf_counter() - start
    return Audited(name, specimen.sound, tuple(kills), tuple(looked), examples, seconds)


def _searches(specimen: Specimen, profile: str, full: bool, seed: int) -> Iterator[Search]:
    """Yield the searches for a specimen, first those of the requirements that must catch it."""
    chosen = PROFILES[profile]
    unshrunk = chosen.settings(shrink=False)
    own_seed, share = seed, 1.0
    if specimen.sound:
        # Sound specimens are judged on different examples, so that together they see more.
        own_seed = seed ^ crc32(specimen.name.encode())
        share = 1.0 if full else SOUND_SHARE
    named = [name for name in specimen.caught_by if name in PROPERTIES]
    others = [name for name in PROPERTIES if name not in named]
    for turn, name in enumerate([*named, *others]):
        prop = PROPERTIES[name]
        if (prop.huge or (prop.deep and not chosen.deep)) and name not in named:
            continue
        dtypes = [dtype for dtype in specimen.capabilities.dtypes if dtype in prop.dtypes]
        if not specimen.sound:
            dtypes = dtypes[:1]
        elif dtypes and not full:
            dtypes = [dtypes[turn % len(dtypes)]]
        for dtype in dtypes:
            cell = Cell(prop, specimen, dtype)
            if not cell.not_claimed:
                yield Search(cell, unshrunk, own_seed, share)


def first_search(
    specimen: Specimen, backend: Backend | None = None, seed: int = 0
) -> Search | None:
    """Return the search for the first requirement that must catch a faulty specimen.

    The profile is ci; the dtype is the first one that the specimen claims.

    Args:
        specimen: The faulty specimen.
        backend: What to judge, if not the specimen.
        seed: Seed of the search.

    Returns:
        The search, or None if the property needs an input of gigabytes.

    """
    load_suite()
    prop = PROPERTIES[specimen.caught_by[0]]
    if prop.huge:
        return None
    dtype = next(dtype for dtype in specimen.capabilities.dtypes if dtype in prop.dtypes)
    return Search(Cell(prop, backend or specimen, dtype), PROFILES["ci"].settings(), seed)


@contextmanager
def scaled_down() -> Iterator[None]:
    """Scale down the one input of gigabytes, and the limit of the specimen that miscounts it.

    So the audit catches that specimen without the gigabytes.
    """
    kernel: Any = SPECIMENS["elements-counted-in-32-bits"].kernel
    # By name, since the attribute `values` of the package is a function.
    values: Any = import_module("bn_spec.strategies.values")
    tiles, limit = values.TILES, kernel.limit
    (shape,) = LARGE["beyond 32 bits"]
    values.TILES = 2
    # Some elements fewer than the input has, so that it exceeds the limit.
    kernel.limit = prod(shape) * values.TILES**2 - 70
    try:
        yield
    finally:
        values.TILES, kernel.limit = tiles, limit


@dataclass(frozen=True)
class Report:
    """The results of an audit.

    Attributes:
        audited: The results of each specimen.
        full: Whether every requirement has judged every specimen.

    """

    audited: tuple[Audited, ...]
    full: bool

    @property
    def survivors(self) -> list[str]:
        """Faulty specimens that no requirement has caught."""
        return [each.specimen for each in self.audited if not each.sound and not each.kills]

    @property
    def flagged(self) -> list[str]:
        """Sound specimens that a requirement has caught."""
        return [each.specimen for each in self.audited if each.sound and each.kills]

    @property
    def idle(self) -> list[str]:
        """Requirements that have judged faulty specimens and caught none of them."""
        looked: set[str] = set()
        killing: set[str] = set()
        for each in self.audited:
            if not each.sound:
                looked.update(each.looked)
                killing.update(kill.requirement for kill in each.kills)
        return [name for name in REQUIREMENTS if name in looked and name not in killing]

    def save(self, path: Path) -> None:
        """Write all results as JSON: whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [asdict(each) for each in self.audited]
        document = json.dumps({"full": self.full, "audited": entries}, indent=1)
        with written_whole(path) as file:
            file.write(document.encode() + b"\n")

    def lines(self) -> Iterator[str]:
        """Yield the report: a line per faulty or flagged specimen, then the figures."""
        faulty = [each for each in self.audited if not each.sound]
        width = max((len(each.specimen) for each in self.audited), default=0)
        for each in self.audited:
            if not each.sound:
                yield f"{each.specimen:<{width}}  {_row(each)}"
        for each in self.audited:
            if each.sound and each.kills:
                by = " ".join(kill.requirement for kill in each.kills)
                yield f"{each.specimen:<{width}}  sound, but FLAGGED by {by}"
        first_kills = [each.kills[0] for each in faulty if each.kills]
        yield ""
        yield (
            f"{len(first_kills)} of {len(faulty)} faulty specimens killed,"
            f" {len(self.flagged)} of {len(self.audited) - len(faulty)} sound ones flagged"
        )
        if first_kills:
            examples = median(kill.examples for kill in first_kills)
            seconds = median(kill.seconds for kill in first_kills)
            yield f"median to the first finding: {examples:g} examples, {seconds:.2f} s"
        if self.full and self.idle:
            yield f"requirements that kill nothing: {' '.join(self.idle)}"
        if self.survivors:
            yield f"survivors: {' '.join(self.survivors)}"


def _row(each: Audited) -> str:
    """Return the cost of the first finding against a faulty specimen, and the requirements."""
    if not each.kills:
        return f"{'':>25}  SURVIVES"
    first = each.kills[0]
    by = " ".join(kill.requirement for kill in each.kills)
    return f"{first.examples:>5} examples {first.seconds:7.2f} s  {by}"
