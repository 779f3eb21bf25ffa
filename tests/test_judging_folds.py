"""Folds into a convolution are judged by what the convolution and the layer compute."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import Eval, Fold, Set, Step
from bn_spec.judge.judging import judge
from bn_spec.oracle.expectation import expect
from bn_spec.play.player import play
from tests.convolution import correlated
from tests.judged_histories import CLAIMS, judged, layer_of, places


def normalised(y: Array, state: State, eps: float) -> Array:
    """The layer in eval mode, by its definition."""
    neutral = State(np.ones(3), np.zeros(3)).tensors()
    tensors = {
        name: a.reshape(1, -1, 1, 1) for name, a in (neutral | state.tensors()).items() if a.ndim
    }
    x_hat = (y - tensors["running_mean"]) / np.sqrt(tensors["running_var"] + eps)
    return x_hat * tensors["weight"] + tensors["bias"]


RNG = np.random.default_rng(0)
IMAGES, CONVOLUTION, CONVOLUTION_BIAS = (
    RNG.normal(size=size) for size in ((2, 2, 5, 4), (3, 2, 3, 2), 3)
)
GAMMA, BETA, MEAN = RNG.normal(size=(3, 3))
HELD = State(GAMMA, BETA, MEAN, 1 + RNG.random(3), np.array(1))
NOT_AFFINE = State(None, None, MEAN, HELD.running_var, HELD.num_batches_tracked)
each_fold = pytest.mark.parametrize("bias", [None, CONVOLUTION_BIAS], ids=["no bias", "bias"])
each_state = pytest.mark.parametrize("state", [HELD, NOT_AFFINE], ids=["affine", "no affine"])


@each_fold
@each_state
@pytest.mark.parametrize("eps", [1e-5, 1.0])
def test_what_is_expected_of_a_fold_does_what_the_convolution_and_the_layer_do(
    state: State, bias: Array | None, eps: float
) -> None:
    config = Config(3, eps=eps, affine=state.weight is not None, dtype="float64")
    results: Any = expect(config, state, True, Fold(CONVOLUTION, bias), CLAIMS).results
    weight, shift = results["folded_weight"], results["folded_bias"]
    assert (weight.bound.shape, shift.bound.shape) == ((3, 2, 3, 2), (3,))
    both = normalised(
        correlated(IMAGES, CONVOLUTION, np.zeros(3) if bias is None else bias), state, eps
    )
    assert np.abs(correlated(IMAGES, weight.value.hi, shift.value.hi) - both).max() < 1e-13
    for bounded in (weight, shift):
        assert (bounded.bound > 0).all()
        assert (bounded.bound < 1e-13).all()


def folding(state: State, bias: Array | None, dtype: str, *before: Step) -> Case:
    row = DTYPES[dtype]
    weight, given = (
        CONVOLUTION.astype(row.data.dtype),
        None if bias is None else bias.astype(row.data.dtype),
    )
    held = state.map(lambda a: a.astype(row.parameters.dtype) if a.ndim else a)
    return Case(
        Config(3, affine=state.weight is not None, dtype=dtype),
        held,
        (*before, Fold(weight, given)),
    )


@each_fold
@each_state
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fold_of_the_reference_is_as_expected_in_both_modes(
    dtype: str, state: State, bias: Array | None
) -> None:
    for case in (folding(state, bias, dtype), folding(state, bias, dtype, Eval(), Set("eps", 0.5))):
        verdict = judge(case, play(case, Reference()), ("folded_weight", "folded_bias"), CLAIMS)
        assert verdict.discrepancies == []
        assert 0 < verdict.shares["folded_weight"] < 1
        assert verdict.shares["folded_bias"] < 1


def numpy_fold(
    layer: Any, weight: Array, bias: Array | None, eps: float, forgets_bias: bool
) -> tuple[Array, Array]:
    held = layer.layer
    scale = held.weight / np.sqrt(held.running_var + weight.dtype.type(eps))
    shift = 0 if bias is None or forgets_bias else bias
    return weight * scale.reshape(-1, 1, 1, 1), (shift - held.running_mean) * scale + held.bias


@pytest.mark.parametrize(
    ("eps", "forgets_bias", "wrong"),
    [
        pytest.param(1e-5, False, [], id="right"),
        pytest.param(0.0, False, [("folded_weight", 0), ("folded_bias", 0)], id="without eps"),
        pytest.param(1e-5, True, [("folded_bias", 0)], id="without the bias of the convolution"),
    ],
)
def test_a_fold_in_the_arithmetic_of_a_kernel_is_judged_by_its_bounds(
    eps: float, forgets_bias: bool, wrong: list[tuple[str, int]]
) -> None:
    def folding_so(layer: Any) -> None:
        layer.fold = partial(numpy_fold, layer, eps=eps, forgets_bias=forgets_bias)

    found = judged(
        folding(HELD, CONVOLUTION_BIAS, "float32"),
        layer_of(folding_so),
        "folded_weight",
        "folded_bias",
        *STATE_FIELDS,
    )
    assert places(found) == wrong
