"""Backends with expensive signatures: few signatures are drawn, and all regions are reached.

The values vary as much as for other backends. The last tests judge torch.compile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, State, UnavailableBackend, check
from bn_spec.backend.claims import EVERYTHING, Capabilities
from bn_spec.backend.registry import load, select
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    Backward,
    Eval,
    Forward,
    Set,
    config_after,
    training_after,
)
from bn_spec.strategies import EPS, MOMENTA, REGIONS, among, cases, histories
from bn_spec.strategies.shapes import LARGE
from bn_spec.strategies.signatures import REPRESENTATIVES, fixed, nearest
from bn_spec.strategies.values import TILES
from tests.common import examples

EXPENSIVE = Capabilities(expensive_signatures=True, gradients=True)


def drawn(number: int, **choices: Any) -> list[Case]:
    met: list[Case] = []

    @examples(number)
    @given(cases(**{"claims": EXPENSIVE} | choices))
    def note(case: Case) -> None:
        met.append(case)

    note()
    return met


def signatures(case: Case) -> Iterator[tuple[Any, ...]]:
    """Yield for each forward what a compiler specialises to."""
    training, config = True, case.config
    for step in case.steps:
        training, config = training_after(step, training), config_after(config, step)
        if isinstance(step, Forward):
            yield (
                step.x.shape,
                step.x.strides,
                config.eps,
                config.momentum,
                config.affine,
                training,
                step.wrt,
            )


def test_few_signatures_are_drawn_and_many_values() -> None:
    met = drawn(300, history=("forward", "forward with gradients", "backward"))
    plain = {signature for case in met for signature in signatures(case)}
    assert 5 <= len({shape for shape, *_ in plain}) <= len(REPRESENTATIVES)
    assert len(plain) <= 2 * len(REPRESENTATIVES)  # with and without gradients
    assert len({x.tobytes() for case in met for x in case.forwards()}) > 100


def test_a_history_of_any_words_stays_within_few_signatures() -> None:
    claims = replace(EVERYTHING, expensive_signatures=True)
    met = drawn(
        150,
        claims=claims,
        history=histories(
            "forward", "forward with gradients", "eval", "train", "set eps", "set momentum"
        ),
    )
    arguments = {
        (case.config.num_features, step.name, step.value)
        for case in met
        for step in case.steps
        if isinstance(step, Set)
    }
    assert len(arguments) <= 2 * len(REPRESENTATIVES)
    assert len({signature for case in met for signature in signatures(case)}) <= 4 * len(
        REPRESENTATIVES
    )


def test_all_properties_together_need_few_signatures() -> None:
    met = [
        case
        for history in (
            ("forward",),
            ("eval", "forward"),
            ("forward with gradients", "backward"),
            ("eval", "forward with gradients", "backward"),
        )
        for eps in (EPS, (1.0, 100.0, 1e4), (1e-5, 1e-12))
        for case in drawn(40, history=history, eps=eps)
    ]
    assert len({signature for case in met for signature in signatures(case)}) <= 12 * len(
        REPRESENTATIVES
    )


@pytest.mark.parametrize("region", [*REGIONS, *LARGE])
def test_a_region_keeps_what_it_is_there_for(region: str) -> None:
    chosen = {REPRESENTATIVES[nearest(shape)] for shape in (REGIONS.get(region) or LARGE[region])}
    reaches = {
        "tiny": any(max(shape) <= 3 for shape in chosen),
        "different": any(len(set(shape)) == 4 for shape in chosen),
        "small": (4, 3, 5, 7) in chosen,
        "spatial edge": any(256 < shape[2] * shape[3] <= 512 for shape in chosen),
        "batch edge": any(shape[0] == 65 for shape in chosen),
        "channel edge": any(shape[1] == 65 for shape in chosen),
        "many channels": any(shape[1] >= 512 and shape[0] > 2 for shape in chosen),
        "many channels of two values": all(
            shape[1] >= 512 and prod(shape) == 2 * shape[1] for shape in chosen
        ),
        "beyond 16 bits": {axis for shape in chosen for axis in (0, 1) if shape[axis] > 2**16}
        == {0, 1},
        "beyond 32 bits": all(TILES**2 * prod(shape) > 2**31 for shape in chosen),
    }
    assert reaches.get(region, any(prod(shape) // shape[1] > 1024 for shape in chosen))


def test_the_single_value_and_the_two_values_stay_what_they_are() -> None:
    (one,) = {
        x.shape for case in drawn(5, shape=among([(1, 2, 1, 1)]), least=1) for x in case.forwards()
    }
    (two,) = {x.shape for case in drawn(5, shape=among([(2, 2, 1, 1)])) for x in case.forwards()}
    assert prod(one) == one[1]
    assert prod(two) == 2 * two[1]


@given(
    st.lists(st.sampled_from(EPS), min_size=1, unique=True),
    st.integers(0, len(REPRESENTATIVES) - 1),
)
def test_one_option_is_left_and_it_is_one_of_those_given(options: list[float], place: int) -> None:
    (left,) = fixed(options, place, 1e-5)
    assert left in options
    assert left == 1e-5 or place % 2 or 1e-5 not in options


def test_parameters_and_statistics_are_only_absent_where_nothing_else_is_asked() -> None:
    assert {case.config.affine for case in drawn(50)} == {True}
    assert {case.config.affine for case in drawn(5, parameters=("absent",))} == {False}
    assert {case.config.momentum for case in drawn(50, momentum=MOMENTA)} >= {0.1}
    assert {case.config.momentum for case in drawn(5, momentum=(None,))} == {None}


def test_a_backend_of_expensive_signatures_is_run_only_by_name() -> None:
    assert "torch-compile" not in select().backends
    selection = select(["all"])
    assert "torch-compile" not in selection.backends
    assert "name it to run it" in selection.unavailable["torch-compile"]


# torch.compile ------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X, DY = RNG.normal(size=(2, 2, 3, 3, 5))
STATE = State(
    weight=np.array([1.5, -2, 0.5]),
    bias=np.array([1.0, 2, 3]),
    running_mean=np.array([3.0, -1, 0]),
    running_var=np.array([2.0, 1, 0.5]),
    num_batches_tracked=np.array(7),
)


def case_of(dtype: str, data: str, *mode: Eval, offset: float = 0.0) -> Case:
    config = Config(3, dtype=dtype)
    parameters = config.arithmetic.parameters.dtype
    tensors: dict[str, Array] = {}
    for name, tensor in STATE.items():
        assert tensor is not None
        is_counter = tensor.ndim == 0
        tensors[name] = tensor.astype(np.int64 if is_counter else parameters)
    x, dy = (X + offset).astype(data), DY.astype(data)
    return Case(config, State(**tensors), (*mode, Forward(x, DIFFERENTIABLE), Backward(dy)))


@pytest.fixture(scope="module")
def compiled() -> Any:
    try:
        return load("torch-compile")
    except UnavailableBackend as error:
        pytest.skip(str(error))


def test_a_compiled_module_conforms_in_training_and_eval(compiled: Any) -> None:
    assert compiled.capabilities.expensive_signatures
    assert check(case_of("float32", "float32"), compiled) == []
    assert check(case_of("float32", "float32", Eval()), compiled) == []


def test_in_mixed_precision_a_compiled_backward_has_the_statistics_in_half(compiled: Any) -> None:
    case = case_of("mixed_float16", "float16", offset=100.0)
    found = {discrepancy.observable for discrepancy in check(case, compiled)}
    assert {"grad_weight"} <= found <= {"grad_input", "grad_weight", "gradient_sums"}
    covered = [k for k in compiled.known_failures if k.concerns("GRD-02", "mixed_float16")]
    assert any(known.covers("grad_weight", case) for known in covered)
    assert check(replace(case, steps=case.steps[:1]), compiled) == []
