"""Correct kernel functions become a layer that conforms, wrong ones do not."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Case, Config, check, kernel_backend
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import DIFFERENTIABLE, GRADIENTS, Forward
from bn_spec.judge.judging import judge as judged
from bn_spec.play.player import play
from bn_spec.strategies import ABSENT, RUNNING_STYLES, cases, shapes
from bn_spec.suite.cell import Violation
from tests.common import examples
from tests.kernels import CORRECT, X, backward, forward_inference, forward_training, search_of


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "history",
    [
        ("forward",),
        ("eval", "forward"),
        ("forward", "forward", "eval", "forward", "reset running statistics", "train", "forward"),
        (
            "forward",
            "save",
            "load",
            "set eps",
            "forward",
            "restore some tensors",
            "set momentum",
            "forward",
            "restore",
        ),
        (
            "set momentum",
            "forward",
            "save",
            "forward",
            "eval",
            "restore into a new layer",
            "forward",
            "save",
        ),
    ],
)
def test_a_correct_kernel_passes_every_check(dtype: str, history: tuple[str, ...]) -> None:
    @examples(25)
    @given(
        cases(
            dtype=dtype,
            history=history,
            shape=shapes("tiny", "different", "small"),
            running=(*RUNNING_STYLES, ABSENT),
        )
    )
    def judge(case: Case) -> None:
        assert check(case, CORRECT) == []

    judge()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "history",
    [
        ("forward with gradients", "backward"),
        ("eval", "forward with gradients", "backward"),
        (
            "forward with gradients",
            "forward with gradients",
            "backward",
            "train",
            "forward",
            "eval",
            "forward with gradients",
            "backward of the first",
            "backward",
        ),
    ],
    ids=["training", "eval", "both"],
)
def test_a_correct_backward_gives_every_gradient_that_is_asked(
    dtype: str, history: tuple[str, ...]
) -> None:
    @examples(20)
    @given(
        cases(
            dtype=dtype,
            history=history,
            wrt=tuple(
                subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size)
            ),
            shape=shapes("tiny", "different", "small"),
            running=(*RUNNING_STYLES, ABSENT),
        )
    )
    def judge(case: Case) -> None:
        observables = (*GRADIENTS, "gradient_form", "handed", *STATE_FIELDS)
        assert (
            judged(case, play(case, CORRECT), observables, CORRECT.capabilities).discrepancies == []
        )

    judge()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "requirement", [f"GRD-{number:02}" for number in (1, 4, 6, 7, 8, 14, 15, 16)]
)
def test_a_correct_backward_conforms(requirement: str, dtype: str) -> None:
    search = search_of(requirement, CORRECT, dtype)
    assert search.cell.not_claimed == ""
    search.examine()
    assert search.tally.judged > 0


@pytest.mark.parametrize(
    "requirement", [*(f"STA-{number:02}" for number in range(1, 12)), "ERR-05", "ERR-06"]
)
def test_a_layer_of_correct_kernels_conforms_in_what_is_done_to_its_state(requirement: str) -> None:
    search = search_of(requirement, CORRECT)
    assert search.cell.not_claimed == ""
    search.examine()
    assert search.tally.judged > 0


def test_statistics_that_are_updated_in_place_are_those_of_the_forward_in_its_backward() -> None:
    def in_place(
        x: Array, running_mean: Array, running_var: Array, **arguments: Any
    ) -> tuple[Array, Array, Array]:
        y, mean, var = forward_training(
            x, running_mean=running_mean, running_var=running_var, **arguments
        )
        running_mean[...], running_var[...] = mean, var
        return y, running_mean, running_var

    search_of("GRD-15", kernel_backend("in-place", in_place, forward_inference, backward)).examine()


@pytest.mark.parametrize(
    ("requirement", "wrong"),
    [
        ("GRD-04", {"training": True}),
        ("GRD-08", {"wrt": DIFFERENTIABLE}),
        ("GRD-15", {"running_mean": np.float32(0)}),
    ],
)
def test_a_backward_that_disregards_what_it_is_told_does_not(
    requirement: str, wrong: dict[str, Any]
) -> None:
    def disregarding(dy: Array, **arguments: Any) -> tuple[Array | None, ...]:
        if "running_mean" in wrong:
            arguments["running_mean"] = np.zeros_like(arguments["running_mean"])
            return backward(dy, **arguments)
        return backward(dy, **arguments | wrong)

    wrongly: Any = disregarding
    with pytest.raises(Violation) as found:
        search_of(
            requirement, kernel_backend("wrong", forward_training, forward_inference, wrongly)
        ).examine()
    assert found.value.finding.discrepancy.observable in GRADIENTS


def test_a_wrong_kernel_does_not() -> None:
    def shifted(x: Array, **arguments: Any) -> tuple[Array, Array, Array]:
        y, mean, var = forward_training(x, **arguments)
        assert mean is not None
        assert var is not None
        return y, mean + np.float32(1e-3), var

    found = check(
        Case(Config(2), None, (Forward(X),)), kernel_backend("shifted", shifted, forward_inference)
    )
    assert [d.observable for d in found] == ["running_mean"]
