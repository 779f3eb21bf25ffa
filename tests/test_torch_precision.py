"""The precision of the steps of PyTorch's kernels for the CPU is as the adapter claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bn_spec import Case, Config, State
from bn_spec.case.arrays import same_bits
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import Eval, Forward, Step
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play
from bn_spec.strategies import Recipe

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_layers import CPU, HALF  # noqa: E402 - it needs torch

SHARP = replace(CPU.capabilities, statistics="accumulation", elementwise="accumulation")
"""Claims of an adapter whose kernels take every step in float32."""

OBSERVABLES = ("output", "running_mean", "running_var")
MIXED = ("mixed_float16", "mixed_bfloat16")
DENSE = ("contiguous", "channels_last", "ambiguous")
"""Layouts that are NCHW or NHWC order, for batches without axes of length 1."""

STRIDED = tuple(name for name in PLACED if name not in (*DENSE, "expanded"))

each_layout = pytest.mark.parametrize("layout", PLACED)


def gaussian_case(dtype: str, layout: str, seed: int) -> Case:
    """Return a training and an eval forward of one batch, with a random state."""
    formats, rng = DTYPES[dtype], np.random.default_rng(seed)
    parameters = formats.parameters.dtype
    recipe = Recipe("gaussian", 0, float(seed % 3), seed)
    x = PLACED[layout](recipe.make((3, 4, 3, 5), formats))
    weight, bias, mean = rng.normal(size=(3, 4)).astype(parameters)
    var = np.exp(rng.normal(size=4)).astype(parameters)
    state = State(weight, bias, mean, var, np.array(3))
    return Case(Config(4, momentum=0.3, dtype=dtype), state, (Forward(x), Eval(), Forward(x)))


def verdicts(dtype: str, layout: str, claims: Accuracy) -> list[Verdict]:
    drawn = [gaussian_case(dtype, layout, seed) for seed in range(12)]
    return [judge(case, play(case, CPU), OBSERVABLES, claims) for case in drawn]


@each_layout
@pytest.mark.parametrize("dtype", MIXED)
def test_mixed_layers_take_every_step_in_float32(dtype: str, layout: str) -> None:
    found = verdicts(dtype, layout, SHARP)
    assert not any(verdict.discrepancies for verdict in found)
    # The output is rounded to half precision once, at the end.
    assert max(verdict.shares["output"] for verdict in found) > 0.9
    assert max(verdict.shares[name] for verdict in found for name in OBSERVABLES[1:]) < 0.5


@each_layout
@pytest.mark.parametrize("dtype", HALF)
def test_all_half_layers_keep_statistics_in_half_as_claimed(dtype: str, layout: str) -> None:
    assert not any(verdict.discrepancies for verdict in verdicts(dtype, layout, CPU.capabilities))
    beyond = set()
    for verdict in verdicts(dtype, layout, SHARP):
        beyond |= {discrepancy.observable for discrepancy in verdict.discrepancies}
    assert "output" in beyond
    assert "running_mean" in beyond or (dtype == "float16" and layout in DENSE)


@pytest.mark.parametrize("dtype", HALF)
def test_all_half_layers_answer_all_strided_inputs_alike_and_dense_ones_otherwise(
    dtype: str,
) -> None:
    def same(first: str, second: str) -> bool:
        one, other = (outputs(gaussian_case(dtype, layout, 1)) for layout in (first, second))
        return all(map(same_bits, one, other))

    assert all(same("contiguous", layout) for layout in DENSE)
    assert not same("contiguous", "sliced")
    assert all(same("sliced", layout) for layout in STRIDED)


@pytest.mark.parametrize("dtype", HALF)
def test_an_all_half_layer_treats_an_expanded_input_as_strided(dtype: str) -> None:
    expanded = gaussian_case(dtype, "expanded", 1)

    def copied(step: Step, layout: str) -> Step:
        return replace(step, x=PLACED[layout](step.x)) if isinstance(step, Forward) else step

    def written_out(layout: str) -> Case:
        return replace(expanded, steps=tuple(copied(step, layout) for step in expanded.steps))

    assert all(map(same_bits, outputs(expanded), outputs(written_out("sliced"))))
    assert not all(map(same_bits, outputs(expanded), outputs(written_out("contiguous"))))


def outputs(case: Case) -> list[Array]:
    """Return what a case answers to its forwards, every second of its steps."""
    answers = play(case, CPU).answers[::2]
    assert all(isinstance(answer.output, np.ndarray) for answer in answers)
    return [np.ascontiguousarray(answer.output) for answer in answers]
