"""Measure the time of the reference on a large batch, compared with torch in float64.

``python benchmarks/reference_cost.py`` measures wall-clock seconds of a training forward on a
float32 batch of (32, 64, 112, 112): torch in float64, parts of the reference, and the whole
expectation with its bounds. Every round measures all of them. The result is the median over the
rounds. It needs torch, and 4 GiB of memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from bn_spec.case.config import Config, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Forward
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import BLOCK, expect
from bn_spec.oracle.reference import BatchNorm2d, Double
from bn_spec.oracle.reference import formulas as f

SHAPE = (32, 64, 112, 112)
"""Shape of the batch."""

ROUNDS = 5
"""Number of rounds."""

AIM = 5.0
"""Maximum time of the expectation, as a multiple of torch's time."""


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of one call in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def torch_forward(x: Array) -> Callable[[], object]:
    """Return a training forward of torch.nn.BatchNorm2d in float64, with its default threads."""
    module = torch.nn.BatchNorm2d(x.shape[1], dtype=torch.float64)
    tensor = torch.from_numpy(x).double()

    def forward() -> object:
        with torch.no_grad():
            return module(tensor)

    return forward


def values(x: Array) -> Callable[[], object]:
    """Return a forward of the reference without bounds: statistics and x̂, channel by channel."""

    def forward() -> None:
        for channel in range(x.shape[1]):
            rows = f.by_channel(x[:, channel : channel + 1], Double)
            mean = f.mean(rows)
            f.normalise(rows, mean, f.inverse_std(f.biased_variance(rows, mean), 1e-5))

    return forward


def main() -> None:
    """Measure, and print the table."""
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    config = Config(SHAPE[1])
    state, layer = initial_state(config), BatchNorm2d(SHAPE[1])
    small = x[:2]
    works: dict[str, Callable[[], object]] = {
        "torch float64 forward": torch_forward(x),
        "reference values, float64": values(x),
        "expectation with bounds": lambda: expect(config, state, True, Forward(x), Accuracy()),
        "layer in double-double, 1/16 batch": lambda: layer(small),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds(work))
    costs = {name: median(values) for name, values in times.items()}
    print(f"float32 {SHAPE}, wall-clock seconds, median of {ROUNDS} rounds")
    print(f"torch with {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    print(f"the reference with one thread, in blocks of about {BLOCK} values\n")
    base = costs["torch float64 forward"]
    for name, cost in costs.items():
        print(f"{name:<36}{cost:8.3f} s{cost / base:8.1f} × torch")
    ratio = costs["expectation with bounds"] / base
    outcome = "within" if ratio <= AIM else "OVER"
    print(f"\n{outcome} the aim of {AIM:g} × torch")


if __name__ == "__main__":
    main()
