"""Measure the share of their bounds that sound kernels use, over many channels.

``python benchmarks/soak.py --channels 1000000 --jobs 2`` draws cases of many channels from the
suite's own recipes. Each case is played on one implementation in one dtype, in turn: the sound
specimens, and the backends named with --backend. It is judged by the claims of the implementation.
No specimen may exceed a bound: that would refute a derivation, and the exit code is 1. Otherwise
the result measures how tight the bounds are. It depends on the seed and the number of channels, not
on --jobs. A share of a bound, err / bound, has no unit; 1 is the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.backend.contract import Backend
from bn_spec.backend.known_failure import KnownFailure, known_failures
from bn_spec.backend.registry import load
from bn_spec.case.config import Config, State
from bn_spec.case.dtypes import DTYPES, Array, DType, Floats
from bn_spec.case.layouts import PLACED
from bn_spec.case.script import Case, source
from bn_spec.case.steps import DIFFERENTIABLE, GRADIENTS, Backward, Eval, Forward, Step
from bn_spec.errors import BackendError
from bn_spec.judge.finding import describe
from bn_spec.judge.verdict import Discrepancy, Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.expectation import Context, Past, expect
from bn_spec.play.observation import Answer
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import (
    ABSENT,
    BALANCED,
    BEYOND,
    EPS,
    FAMILIES,
    MIXED,
    MOMENTA,
    OFFSETS,
    PARAMETERS,
    RUNNING_STYLES,
    SCALES,
    WIDE,
    Recipe,
)
from bn_spec.strategies.shapes import Shape
from bn_spec.strategies.tensors import COUNTS, parameters, running_statistics
from bn_spec.strategies.values import GRADIENT_OFFSETS, GRADIENT_SCALES

C = 64
"""Number of channels per case."""

CASES_PER_TASK = 100
"""Number of cases in a task; a job reports after each task."""

LENGTHS = ((0.5, 2, 32), (0.3, 32, 256), (0.15, 256, 1024), (0.05, 1024, 8192))
"""Values per channel: probability, minimum, maximum. The logarithm is uniform within a row."""

HISTORIES = (("train",), ("train",), ("train",), ("train", "eval"), ("eval",))
"""Modes of the forwards of a case; each forward has a backward if gradients are claimed."""

TIGHT = 0.1
"""Share of a bound that some specimen should reach; otherwise the bound may be loose."""

EVAL_OUTPUT = "output in eval mode"
"""Observable: the output where running statistics normalise.

Without running statistics, eval mode is the same as training mode.
"""

OBSERVABLES = ("output", EVAL_OUTPUT, "running_mean", "running_var", *GRADIENTS)

EDGES = tuple(float(f"{10.0 ** (k / 20):.4g}") for k in range(-60, 1))
"""Edges of the histograms of err / bound; both ends have a bin for the values beyond."""

SHOWN = 10
"""Maximum number of flagged cases printed in full."""


class Key(NamedTuple):
    """The origin of a share of a bound."""

    implementation: str
    dtype: str
    observable: str


class Flag(NamedTuple):
    """A case beyond a bound: its number, implementation and dtype, and a description."""

    number: int
    implementation: str
    dtype: str
    text: str


@dataclass
class Shares:
    """Shares of one bound: the worst share, its case, and a histogram over channels.

    A channel counts by the share of its worst element. ``outside`` is the number of channels that
    have no element in the domain of the bounds.
    """

    worst: float = 0.0
    case: int = -1
    outside: int = 0
    histogram: Floats = field(default_factory=lambda: np.zeros(len(EDGES) + 1))

    def add(self, by_channel: Floats, inside: Array, case: int) -> None:
        """Count the worst share of each channel that is inside the domain of the bounds."""
        shares = by_channel[inside]
        self.outside += len(by_channel) - len(shares)
        self.histogram += np.bincount(np.searchsorted(EDGES, shares), minlength=len(EDGES) + 1)
        self._note(float(shares.max(initial=0)), case)

    def merge(self, other: Shares) -> None:
        """Add the counts of another job."""
        self.outside += other.outside
        self.histogram += other.histogram
        self._note(other.worst, other.case)

    def _note(self, worst: float, case: int) -> None:
        if (worst, -case) > (self.worst, -self.case) or self.case < 0:
            self.worst, self.case = worst, case


@dataclass
class Tally:
    """The counts of some cases; tallies of disjoint cases merge to the same result in any order."""

    channels: int = 0
    known: int = 0
    shares: dict[Key, Shares] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)

    def merge(self, other: Tally) -> None:
        """Add the counts of another job."""
        self.channels += other.channels
        self.known += other.known
        self.flags = sorted(self.flags + other.flags)
        for key, shares in other.shares.items():
            self.shares.setdefault(key, Shares()).merge(shares)


# Drawing


def any_of(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """Return one of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def drawn_shape(rng: np.random.Generator) -> Shape:
    """Draw (N, C, H, W); in a third of the shapes, N·H·W is a power of two."""
    _, least, most = LENGTHS[int(rng.choice(len(LENGTHS), p=[share for share, *_ in LENGTHS]))]
    exponent = float(rng.uniform(np.log2(least), np.log2(most)))
    n = 2 ** round(exponent) if rng.random() < 1 / 3 else round(2**exponent)
    h = any_of(rng, divisors(n))
    w = any_of(rng, divisors(n // h))
    return n // h // w, C, h, w


def divisors(n: int) -> list[int]:
    """Return all divisors of n."""
    return [k for k in range(1, n + 1) if n % k == 0]


def drawn_recipe(rng: np.random.Generator) -> Recipe:
    """Draw a recipe of values; half of the offsets have either sign and are not in the table."""
    between = float(rng.choice((-1, 1)) * 10 ** rng.uniform(-1, 6))
    return Recipe(
        family=any_of(rng, (*FAMILIES, MIXED, BALANCED)),
        scale=any_of(rng, any_of(rng, (SCALES, SCALES, SCALES, SCALES, WIDE, WIDE, BEYOND))),
        offset=any_of(rng, (any_of(rng, OFFSETS), between)),
        seed=int(rng.integers(2**32)),
    )


def drawn_gradient(rng: np.random.Generator) -> Recipe:
    """Draw a recipe of a gradient of the output."""
    return Recipe(
        family=any_of(rng, (*FAMILIES, MIXED, BALANCED)),
        scale=any_of(rng, GRADIENT_SCALES),
        offset=any_of(rng, GRADIENT_OFFSETS),
        seed=int(rng.integers(2**32)),
    )


def drawn_case(rng: np.random.Generator, dtype: str, claims: Capabilities) -> Case:
    """Draw a case as :func:`bn_spec.strategies.hypothesis_cases.cases` does, with many channels."""
    affine, running = any_of(rng, (*PARAMETERS, ABSENT)), any_of(rng, (*RUNNING_STYLES, ABSENT))
    config = Config(
        C,
        eps=any_of(rng, EPS),
        momentum=any_of(rng, [m for m in MOMENTA if m != 0 or claims.momentum_zero]),
        affine=affine != ABSENT,
        track_running_stats=running != ABSENT,
        dtype=dtype,
    )
    state = drawn_state(rng, DTYPES[dtype], affine, running)
    steps: list[Step] = []
    for mode in any_of(rng, HISTORIES):
        x = drawn_recipe(rng).make(drawn_shape(rng), DTYPES[dtype])
        wrt = (DIFFERENTIABLE if config.affine else DIFFERENTIABLE[:1]) if claims.gradients else ()
        dy = drawn_gradient(rng).make(x.shape, DTYPES[dtype])
        steps += [Eval()] if mode == "eval" else []
        steps.append(Forward(PLACED[any_of(rng, claims.layouts)](x), wrt))
        steps += [Backward(PLACED[any_of(rng, claims.layouts)](dy))] if wrt else []
    return Case(config, state, tuple(steps))


def drawn_state(rng: np.random.Generator, row: DType, affine: str, running: str) -> State:
    """Draw the tensors of a layer, in a style for parameters and one for running statistics."""
    tensors: dict[str, Array] = {}
    if affine != ABSENT:
        tensors |= parameters(affine, rng, C, row)
    if running != ABSENT:
        tensors |= running_statistics(running, rng, C, row)
        tensors["num_batches_tracked"] = np.array(any_of(rng, COUNTS), np.int64)
    return State(**tensors)


# Playing and judging


@cache
def implementations(names: tuple[str, ...]) -> tuple[tuple[Backend, str], ...]:
    """Return all pairs of an implementation and a dtype that it claims, sound specimens first."""
    backends = [*(s for s in SPECIMENS.values() if s.sound), *map(load, names)]
    return tuple((backend, dtype) for backend in backends for dtype in backend.capabilities.dtypes)


def numbered_case(seed: int, number: int, names: tuple[str, ...]) -> tuple[Backend, Case]:
    """Return case ``number`` of a seed, with its implementation."""
    pairs = implementations(names)
    backend, dtype = pairs[number % len(pairs)]
    rng = np.random.default_rng((seed, number))
    return backend, drawn_case(rng, dtype, backend.capabilities)


def soaked(seed: int, numbers: Iterable[int], names: tuple[str, ...]) -> Tally:
    """Play and judge the cases with these numbers."""
    tally = Tally()
    for number in numbers:
        backend, case = numbered_case(seed, number, names)
        tally.channels += C
        verdict, shares = judged(backend, case, number)
        for d in verdict.discrepancies:
            if any(covers(known, d.observable, case) for known in known_failures(backend)):
                tally.known += 1
                shares.pop(Key(backend.name, case.config.dtype, d.observable), None)
            else:
                tally.flags.append(
                    Flag(number, backend.name, case.config.dtype, description_of(backend, case, d))
                )
        tally.merge(Tally(shares=shares))
    return tally


def covers(known: KnownFailure, observable: str, case: Case) -> bool:
    """Return whether a discrepancy is a known failure, of whatever requirement."""
    return known.concerns(known.requirement, case.config.dtype) and known.covers(observable, case)


def judged(backend: Backend, case: Case, number: int) -> tuple[Verdict, dict[Key, Shares]]:
    """Play a case and judge every forward and backward; also return the shares by channel."""
    verdict = Verdict()
    shares: dict[Key, Shares] = {}
    contexts: list[Context] = []
    for index, answer in enumerate(play(case, backend).answers):
        for name, got, expected in observed(answer, case.config, backend, contexts):
            if not isinstance(got, np.ndarray) or got.shape != expected.bound.shape:
                verdict.exact(
                    name, index, False, f"a tensor of shape {expected.bound.shape}", str(got)
                )
                continue
            verdict.bounded(name, index, got, expected)
            verdict.numbers(name, index, got, expected)
            by_running_statistics = not answer.training and case.config.track_running_stats
            observable = EVAL_OUTPUT if name == "output" and by_running_statistics else name
            key = Key(backend.name, case.config.dtype, observable)
            by_channel = worst_of_channels(expected.share(got))
            inside = worst_of_channels(expected.inside)
            shares.setdefault(key, Shares()).add(by_channel, inside, number)
    return verdict, shares


def observed(
    answer: Answer, config: Config, backend: Backend, contexts: list[Context]
) -> Iterator[tuple[str, Any, Bounded]]:
    """Yield each result of a step that has a bound: its name, the result, and the expectation.

    A forward is added to ``contexts``.
    """
    if not isinstance(answer.step, Forward | Backward):
        return
    config = backend.capabilities.dialect.as_stored(config)
    expected = expect(
        config, answer.before, answer.training, answer.step, backend.capabilities, Past(contexts)
    )
    if isinstance(answer.step, Forward):
        contexts.append(Context(config, answer.before, answer.training, answer.step))
    for name, gradient in expected.results.items():
        if gradient is not None:
            yield name, answer.results.get(name, answer.output), gradient
    if expected.output is not None:
        yield "output", answer.output, expected.output
    for name in ("running_mean", "running_var"):
        if (statistic := getattr(expected, name)) is not None:
            yield name, getattr(answer.after, name, answer.after), statistic


def worst_of_channels(elements: Array) -> Array:
    """Return the largest element of each channel of an array (N, C, H, W) or (C,)."""
    worst: Array = elements.max(axis=(0, 2, 3)) if elements.ndim == 4 else elements
    return worst


def description_of(backend: Backend, case: Case, discrepancy: Discrepancy) -> str:
    """Return a discrepancy as text, with the first single channel that also shows it, if any."""
    lines = [line_of(discrepancy)]
    for single in (channel_of(case, c) for c in range(C)):
        found = judged(backend, single, 0)[0].discrepancies
        if same := [d for d in found if d.observable == discrepancy.observable]:
            lines += ["in one channel alone:", *describe(single), line_of(same[0]), source(single)]
            break
    return "\n".join(lines)


def line_of(discrepancy: Discrepancy) -> str:
    """Return a discrepancy as one line."""
    d = discrepancy
    return f"expected {d.expected}, got {d.got} ({d.factor:.4g} x the bound)"


def channel_of(case: Case, c: int) -> Case:
    """Return a case with only one of its channels."""
    state = case.state or State()
    tensors = {name: a if a is None or a.ndim == 0 else a[c : c + 1] for name, a in state.items()}
    steps = tuple(alone(step, c) for step in case.steps)
    return Case(replace(case.config, num_features=1), State(**tensors), steps)


def alone(step: Any, c: int) -> Step:
    """Return a step with only one channel of its arrays (N, C, H, W)."""
    arrays = {
        part.name: a
        for part in fields(step)
        if isinstance(a := getattr(step, part.name), np.ndarray)
    }
    changed: Step = replace(step, **{name: a[:, c : c + 1].copy() for name, a in arrays.items()})
    return changed


# Running


class Task(NamedTuple):
    """Cases ``first`` to ``last`` (exclusive) of a seed, with the names of further backends."""

    seed: int
    first: int
    last: int
    names: tuple[str, ...]


def work(task: Task) -> Tally:
    """Return the tally of a task; a job runs this function."""
    return soaked(task.seed, range(task.first, task.last), task.names)


def soak(channels: int, seed: int, jobs: int, names: tuple[str, ...]) -> Tally:
    """Play and judge at least ``channels`` channels; report progress on standard error."""
    cases = -(-channels // C)
    firsts = range(0, cases, CASES_PER_TASK)
    tasks = [Task(seed, first, min(first + CASES_PER_TASK, cases), names) for first in firsts]
    tally, start = Tally(), time.monotonic()
    with nullcontext() if jobs == 1 else get_context("spawn").Pool(jobs) as pool:
        for done, part in enumerate(
            map(work, tasks) if pool is None else pool.imap_unordered(work, tasks), 1
        ):
            tally.merge(part)
            spent = time.monotonic() - start
            left = spent / done * (len(tasks) - done)
            flagged = len(tally.flags)
            sys.stderr.write(
                f"\r{tally.channels} channels, {flagged} flagged, {spent:.0f} s, {left:.0f} s left "
            )
    sys.stderr.write("\n")
    return tally


# Reporting


def tightness(tally: Tally) -> dict[tuple[str, str], tuple[float, str]]:
    """Return the largest share over the specimens, and its specimen, by dtype and observable."""
    largest: dict[tuple[str, str], tuple[float, str]] = {}
    for key, shares in tally.shares.items():
        if key.implementation in SPECIMENS:
            place = (key.dtype, key.observable)
            largest[place] = max(largest.get(place, (0.0, "")), (shares.worst, key.implementation))
    return largest


def histograms(tally: Tally) -> dict[str, dict[str, list[int]]]:
    """Return the histogram over the channels of all specimens, by dtype and observable."""
    sums: dict[tuple[str, str], Floats] = {}
    for key, shares in tally.shares.items():
        if key.implementation in SPECIMENS:
            place = (key.dtype, key.observable)
            sums[place] = sums.get(place, 0) + shares.histogram
    found: dict[str, dict[str, list[int]]] = {dtype: {} for dtype in DTYPES}
    for dtype, of_dtype in found.items():
        for name in OBSERVABLES:
            if (dtype, name) in sums:
                of_dtype[name] = [int(count) for count in sums[dtype, name]]
    return found


def table(rows: Mapping[str, Sequence[str]], heads: Sequence[str]) -> None:
    """Print a table: rows of cells under their heads."""
    width = max(map(len, rows), default=0)
    print(f"{'':<{width}}" + "".join(f"  {head:>19}" for head in heads))
    for name, cells in rows.items():
        print(f"{name:<{width}}" + "".join(f"  {cell:>19}" for cell in cells))


def report(tally: Tally) -> None:
    """Print the worst shares, the tightness of the bounds, the flagged cases, and the totals."""
    pairs = dict.fromkeys((key.implementation, key.dtype) for key in ordered(tally))
    worst = {f"{i} {d}": [worst_of(tally, Key(i, d, o)) for o in OBSERVABLES] for i, d in pairs}
    print("worst err/bound (1 is the limit)\n")
    table(worst, OBSERVABLES)
    print(
        f"\nlargest over the specimens (* below {TIGHT:g}: a loose bound,"
        " or data that do not reach it)\n"
    )
    largest = tightness(tally)
    marks = {d: [mark(largest.get((d, o), (0.0, ""))[0]) for o in OBSERVABLES] for d in DTYPES}
    table(marks, OBSERVABLES)
    for flag in tally.flags[:SHOWN]:
        print(f"\ncase {flag.number}: {flag.implementation} {flag.dtype}\n{flag.text}")
    known = f", {tally.known} known failures" if tally.known else ""
    print(f"\n{tally.channels} channels, {len(tally.flags)} flagged{known}")


def ordered(tally: Tally) -> list[Key]:
    """Return the keys of a tally: specimens first, dtypes and observables in their usual order."""
    others = {key.implementation for key in tally.shares} - SPECIMENS.keys()
    names = [*SPECIMENS, *sorted(others)]
    dtypes = list(DTYPES)

    def place(key: Key) -> tuple[int, int, int]:
        return (
            names.index(key.implementation),
            dtypes.index(key.dtype),
            OBSERVABLES.index(key.observable),
        )

    return sorted(tally.shares, key=place)


def worst_of(tally: Tally, key: Key) -> str:
    """Return the worst share of a key for a table."""
    shares = tally.shares.get(key)
    return "-" if shares is None or not shares.histogram.sum() else f"{shares.worst:.3f}"


def mark(share: float) -> str:
    """Return a share for a table, with a mark if it is far from its bound."""
    return f"{share:.3f}{'*' if share < TIGHT else ' '}"


def record(tally: Tally, seed: int) -> dict[str, Any]:
    """Return all measurements, for a JSON file."""
    return {
        "channels": tally.channels,
        "seed": seed,
        "flagged": len(tally.flags),
        "known": tally.known,
        "shares": [share_record(key, tally.shares[key]) for key in ordered(tally)],
        "edges": EDGES,
        "histograms": histograms(tally),
    }


def share_record(key: Key, shares: Shares) -> dict[str, Any]:
    """Return the shares of one bound, for a JSON file."""
    return {
        **key._asdict(),
        "worst": float(f"{shares.worst:.6g}"),
        "case": shares.case,
        "channels": int(shares.histogram.sum()),
        "outside": shares.outside,
    }


def written(facts: dict[str, Any]) -> str:
    """Return a record as JSON: one line for each share and each histogram."""
    parts = []
    for name, value in facts.items():
        if isinstance(value, list):
            inner = ",\n    ".join(map(json.dumps, value))
            parts.append(f'  "{name}": [\n    {inner}\n  ]')
        elif isinstance(value, dict):
            inner = ",\n    ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            parts.append(f'  "{name}": {{\n    {inner}\n  }}')
        else:
            parts.append(f'  "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--channels", type=int, default=20_000, help=f"rounded up to a multiple of {C}"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument(
        "--backend", action="append", default=[], metavar="NAME", help="add a backend"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="a JSON file for scripts/draw.py"
    )
    parser.add_argument("--case", type=int, metavar="NUMBER", help="only describe this case")
    return parser.parse_args()


def main() -> int:
    """Soak and report; return 1 if anything exceeded a bound, 2 if a backend does not load."""
    options = arguments()
    names = tuple(options.backend)
    # One thread per job: the results of a backend with a sum per thread must not depend on the
    # machine.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    try:
        implementations(names)
    except BackendError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.case is not None:
        backend, case = numbered_case(options.seed, options.case, names)
        print(f"{backend.name} {case.config.dtype}", *describe(case), sep="\n")
        return 0
    tally = soak(options.channels, options.seed, options.jobs, names)
    report(tally)
    if options.write:
        options.write.write_text(written(record(tally, options.seed)), encoding="utf-8")
    return 1 if tally.flags else 0


if __name__ == "__main__":
    sys.exit(main())
