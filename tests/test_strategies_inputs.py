"""Words that add forwards: shapes, repetitions, special values, sums and laws."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bn_spec import Case
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import initial_state
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.laws import LAWS
from bn_spec.case.steps import Forward, Load, Set
from bn_spec.oracle.expectation import refusal_of
from bn_spec.strategies import ABSENT, SPECIAL, cases, shapes, values
from tests.draws import TWO_ALIKE, cases_of_history, drawn, each_dtype, last_two


def test_each_forward_has_a_shape_of_its_own_and_the_channels_of_the_layer() -> None:
    met = drawn(cases(history=("forward", "forward")), 100)
    both = [tuple(x.shape for x in case.forwards()) for case in met]
    assert all(case.config.num_features == x.shape[1] for case in met for x in case.forwards())
    assert sum(first != second for first, second in both) > 0.9 * len(both)


def test_no_case_is_a_near_copy_of_another() -> None:
    met = drawn(
        cases(
            history=(
                "forward with gradients",
                "backward",
                "eval",
                "forward with gradients",
                "backward",
            )
        ),
        200,
    )
    shared = [sum(map(same_bits, arrays(one), arrays(other))) for one, other in pairwise(met)]
    assert sum(map(bool, shared)) < 0.1 * len(shared)
    # were they copied from each other, this would vary several times as much as independent choices
    # do
    counts = [
        sum(not case.config.affine for case in met[start : start + 20])
        for start in range(0, 200, 20)
    ]
    mean = sum(counts) / len(counts)
    assert sum((count - mean) ** 2 for count in counts) / (len(counts) - 1) < 2.5 * mean


def arrays(case: Case) -> list[Array]:
    return [a for step in case.steps for a in vars(step).values() if isinstance(a, np.ndarray)]


def test_a_forward_of_the_same_shape_has_other_values_in_the_shape_of_the_last() -> None:
    met = [tuple(case.forwards()) for case in drawn(cases(history=TWO_ALIKE), 50)]
    assert all(first.shape == second.shape for first, second in met)
    assert sum(not np.array_equal(first, second) for first, second in met) > len(met) / 2


@each_dtype
def test_a_forward_of_nothing_lacks_samples_rows_or_columns(dtype: str) -> None:
    lacking = set()
    for case in drawn(cases(dtype=dtype, history=("empty forward",)), 20):
        (x,) = case.forwards()
        assert (x.shape[1], x.dtype) == (case.config.num_features, DTYPES[dtype].data.dtype)
        lacking.add(tuple(axis for axis, size in zip("NCHW", x.shape, strict=True) if not size))
    assert lacking == {("N",), ("H",), ("W",)}


@pytest.mark.parametrize(
    "word", ["forward of single values", "forward of another rank", "forward of other channels"]
)
def test_a_forward_of_what_is_wrong_must_be_refused(word: str) -> None:
    for case in drawn(cases(history=(word,), shape=shapes("tiny", "different")), 50):
        assert case.steps
        assert all(refusal_of(case.config, x, batch_statistics=True) for x in case.forwards())


def test_again_repeats_the_last_step_itself() -> None:
    for past in (("eval", "forward"), ("forward with gradients", "backward"), ("save",)):
        for case in cases_of_history(*past, "repeat the step"):
            before, last = last_two(case)
            assert last is before


def test_alone_hands_each_sample_over_by_itself_up_to_four_of_them() -> None:
    for case in drawn(cases(history=("forward", "each sample alone")), 100):
        batch, *samples = case.forwards()
        assert len(samples) == min(len(batch), 4)
        assert all(same_bits(batch[i : i + 1], sample) for i, sample in enumerate(samples))


def bits(a: Array) -> Array:
    return np.ascontiguousarray(a).view(f"u{a.itemsize}")


@pytest.mark.parametrize(
    ("past", "word"),
    [
        (("forward",), "non-finite element"),
        (("forward with gradients", "backward"), "backward with non-finite element"),
    ],
)
@each_dtype
def test_what_is_spoilt_has_exactly_one_special_element_and_is_laid_out_as_before(
    dtype: str, past: tuple[str, ...], word: str
) -> None:
    met = set()
    for case in drawn(cases(dtype=dtype, history=(*past, word)), 60):
        before, after = (
            step.x if isinstance(step, Forward) else step.dy for step in last_two(case)
        )
        (changed,) = after[bits(after) != bits(before)].astype(np.float64).tolist() or [
            -0.0
        ]  # -0 may stand for -0
        met.add(str(changed))
        assert (after.strides, after.dtype) == (before.strides, before.dtype)
    assert met == set(map(str, SPECIAL))


def test_only_the_special_numbers_that_are_asked_for_are_put_in() -> None:
    for case in drawn(cases(history=("forward", "non-finite element"), special=(np.inf,)), 30):
        _, after = case.forwards()
        assert np.isinf(after).sum() == np.isposinf(after).sum() == 1


@each_dtype
def test_a_sum_of_two_inputs_is_rounded_once_and_zeros_come_after(dtype: str) -> None:
    for case in drawn(
        cases(dtype=dtype, history=(*TWO_ALIKE, "sum of the inputs"), value=values(scales=(0.9,))),
        30,
    ):
        first, second, total, zeros = case.forwards()
        with np.errstate(over="ignore"):
            wanted = (first.astype(np.float64) + second.astype(np.float64)).astype(first.dtype)
        assert same_bits(np.ascontiguousarray(total), wanted)
        assert same_bits(np.ascontiguousarray(zeros), np.zeros_like(wanted))


def test_two_inputs_are_joined_as_one_batch() -> None:
    for case in drawn(cases(history=(*TWO_ALIKE, "inputs joined")), 30):
        first, second, both = case.forwards()
        assert same_bits(both, np.concatenate([first, second]))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_changes_the_input_the_parameters_and_eps_as_it_says(name: str) -> None:
    law = LAWS[name]
    for case in drawn(cases(history=("forward", name), parameters=("random", ABSENT)), 30):
        first, second = case.forwards()
        assert same_bits(second, law.change(first))
        eps = [step for step in case.steps if isinstance(step, Set)]
        assert eps == (
            [Set("eps", case.config.eps * law.eps_factor)] if law.eps_factor != 1 else []
        )
        loads = [step for step in case.steps if isinstance(step, Load)]
        assert len(loads) == (law.parameters and case.config.affine)
        for step in loads:
            held = case.state or initial_state(case.config)
            assert held.weight is not None
            assert step.weight is not None
            assert (step.weight.tolist(), step.strict) == (held.weight.tolist()[::-1], False)
            assert set(step.tensors()) == {"weight", "bias"}


def test_a_law_after_another_starts_from_what_that_has_set() -> None:
    for case in cases_of_history("forward", "scaled", "scaled"):
        factors = [step.value for step in case.steps if isinstance(step, Set)]
        assert factors == [case.config.eps * 64, case.config.eps * 64**2]


def test_unscaled_hands_the_same_input_to_a_layer_of_weight_1_and_bias_0() -> None:
    for case in cases_of_history("forward", "same input without weight and bias"):
        first, load, second = case.steps
        assert second is first
        assert isinstance(load, Load)
        assert {name: set(a.tolist()) for name, a in load.tensors().items()} == {
            "weight": {1},
            "bias": {0},
        }
        assert not load.strict


def test_a_change_is_applied_to_what_is_drawn_and_not_to_what_is_handed_over_once_more() -> None:
    seen: list[float] = []

    def noted(x: Array) -> Array:
        seen.append(float(x.flat[0]))
        return np.full_like(x, 7)

    for case in cases_of_history(
        "forward",
        "non-finite element",
        "same input with gradients",
        "forward",
        number=1,
        change=noted,
    ):
        assert len(seen) == 2
        assert all((x.ravel()[1:] == 7).any() for x in case.forwards())
