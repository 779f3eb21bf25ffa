"""Measure the time of an example: drawing a case for each property, playing it and judging it.

Run it as ``python benchmarks/draw_cost.py``; ``--help`` lists the options. It measures processor
time in milliseconds per example on one core. Each round takes every measurement once, one after the
other. The benchmark prints the median over the rounds, so that a busy machine has little effect.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterable
from functools import partial
from statistics import mean, median
from typing import TypeAlias

from hypothesis import given, seed
from hypothesis import strategies as st

from bn_spec.backend.claims import EVERYTHING
from bn_spec.backend.contract import Backend
from bn_spec.backend.registry import load
from bn_spec.case.config import State
from bn_spec.case.script import Case
from bn_spec.judge.judging import judge
from bn_spec.judge.observables import OBSERVABLES
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import expect
from bn_spec.play.observation import Observation
from bn_spec.play.player import play
from bn_spec.specification.requirement import CHAPTERS
from bn_spec.strategies.hypothesis_cases import cases, cases_of
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES

EXAMPLES = 15
"""Number of examples per measurement."""

BUDGET = 3.0
"""Maximum average time to draw a case, in milliseconds."""

BASELINE = "st.integers()"
"""Name of the measurement of a single choice."""

DEFAULT = "cases()"
"""Name of the measurement of cases with default arguments."""

Measurement: TypeAlias = Callable[[], float]
"""Takes a measurement and returns milliseconds per example."""

Costs: TypeAlias = dict[str, float]
"""Milliseconds per example, by name of the measurement."""


def timed(work: Callable[[], int]) -> float:
    """Return the processor time per example in milliseconds; ``work`` returns how many it did."""
    gc.collect()
    # As in timeit: otherwise a measurement includes the garbage collection of the earlier ones.
    gc.disable()
    try:
        start = time.process_time()
        done = work()
        return 1e3 * (time.process_time() - start) / done
    finally:
        gc.enable()


def measured(measurements: dict[str, Measurement], rounds: int) -> Costs:
    """Take all measurements once per round and return their medians."""
    taken: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            taken[name].append(measure())
    return {name: median(costs) for name, costs in taken.items()}


def drawn(strategy: Callable[[], st.SearchStrategy[object]]) -> list[object]:
    """Draw examples as a cell does, including the time to build the strategy, and keep them."""
    examples: list[object] = []

    def keep(example: object) -> None:
        examples.append(example)

    seed(0)(PROFILES["ci"].settings(EXAMPLES)(given(strategy())(keep)))()
    return examples


def draw_costs(rounds: int) -> Costs:
    """Measure drawing: a single choice, cases with default arguments, each property's cases."""
    load_suite()
    strategies: dict[str, Callable[[], st.SearchStrategy[object]]] = {
        BASELINE: st.integers,
        DEFAULT: cases,
    }
    for requirement, prop in sorted(PROPERTIES.items()):
        if not prop.deep and not prop.huge:  # every case of these is large
            strategies[requirement] = partial(cases_of, prop.choices, "float32", EVERYTHING)

    def measurement(strategy: Callable[[], st.SearchStrategy[object]]) -> Measurement:
        return lambda: timed(lambda: len(drawn(strategy)))

    return measured({name: measurement(strategy) for name, strategy in strategies.items()}, rounds)


def other_costs(backend: Backend, rounds: int) -> Costs:
    """Measure the other parts of an example on default cases, played on ``backend``."""
    sample = [case for case in drawn(cases) if isinstance(case, Case)]
    played = [(case, play(case, backend)) for case in sample]
    claims = backend.capabilities

    def measurement(work: Callable[[Case, Observation], object]) -> Measurement:
        def do_all() -> int:
            for case, observation in played:
                work(case, observation)
            return len(played)

        return lambda: timed(do_all)

    return measured(
        {
            "play": measurement(lambda case, _: play(case, backend)),
            "expect": measurement(lambda case, observation: expect_all(case, observation, claims)),
            "judge, all observables": measurement(
                lambda case, observation: judge(case, observation, OBSERVABLES, claims)
            ),
        },
        rounds,
    )


def expect_all(case: Case, observation: Observation, claims: Accuracy) -> None:
    """Compute the expectation of every step, as the judge does."""
    for answer in observation.answers:
        assert isinstance(answer.before, State)
        expect(case.config, answer.before, answer.training, answer.step, claims)


def row(name: str, *cells: object) -> None:
    """Print one line of a table."""
    print(f"{name:<32}" + "".join(f"{cell:>12}" for cell in cells))


def report_chapters(costs: Costs) -> None:
    """Print a line per chapter: the average over its properties, and the slowest property."""
    row("chapter", "average", "slowest", "property")
    for chapter, title in CHAPTERS.items():
        own = of_chapters(costs, [chapter])
        slowest = max(own, key=own.__getitem__)
        row(f"{chapter}  {title}", f"{mean(own.values()):.2f}", f"{own[slowest]:.2f}", slowest)


def of_chapters(costs: Costs, chapters: Iterable[str]) -> Costs:
    """Return the costs of the requirements of some chapters."""
    return {name: cost for name, cost in costs.items() if name.partition("-")[0] in chapters}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    rounds = parser.parse_args().rounds
    print(f"ms per example, processor time, median of {rounds} rounds of {EXAMPLES} examples\n")
    costs = draw_costs(rounds)
    report_chapters(costs)
    print()
    for name in (BASELINE, DEFAULT):
        row(name, f"{costs[name]:.2f}")
    average = mean(of_chapters(costs, CHAPTERS).values())
    row("all properties", f"{average:.2f}")
    outcome = "within" if average <= BUDGET else "OVER"
    print(f"\n{outcome} the budget of {BUDGET:g} ms per drawn case\n")
    backend = load("reference")
    print(f"other parts of an example, on {backend.name} ({backend.description}), default cases\n")
    for name, cost in other_costs(backend, rounds).items():
        row(name, f"{cost:.2f}")


if __name__ == "__main__":
    main()
