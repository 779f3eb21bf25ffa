"""Layers receive private copies, and what they return is recorded as it was at its step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, Layer, State
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import Backward, Eval, Forward, ResetParameters, Step
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play
from tests.common import printed_and_read
from tests.spoilt_backends import TRAINING, X, mutates, spoilt, with_members


def handed_over(*steps: Step) -> list[int]:
    """Number the native tensors that forwards received, by their first appearance."""
    met: list[Array] = []

    def forward(original: Callable[..., Any], x: Array, *wrt: object) -> Any:
        met.append(x)
        return original(x, *wrt)

    def build(original: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = original(*arguments)
        return with_members(
            layer, forward=partial(forward, layer.forward), record=partial(forward, layer.record)
        )

    play(Case(Config(2), None, steps), spoilt("layer", build))
    different = list({id(x): x for x in met}.values())
    return [next(i for i, other in enumerate(different) if other is x) for x in met]


LAID = PLACED["channels_last"](X.repeat(2, axis=3))


@pytest.mark.parametrize(
    ("steps", "numbers"),
    [
        pytest.param((Forward(X), Forward(X)), [0, 0], id="the same array"),
        pytest.param(
            (Forward(X), Forward(X.copy()), Forward(X + 0)), [0, 0, 0], id="an equal array"
        ),
        pytest.param(
            (Forward(X), Eval(), ResetParameters(), Forward(X)),
            [0, 0],
            id="with other steps between",
        ),
        pytest.param(
            (Forward(X, ("input",)), Backward(X), Forward(X), Forward(X, ("bias",))),
            [0, 0, 0],
            id="recorded or not",
        ),
        pytest.param((Forward(X), Forward(X + 1)), [0, 1], id="other values"),
        pytest.param((Forward(X), Forward(X[:1])), [0, 1], id="another shape"),
        pytest.param(
            (Forward(0 * X), Forward(-0 * X), Forward(-(0 * X))),
            [0, 0, 1],
            id="another sign of zero",
        ),
        pytest.param((Forward(LAID), Forward(LAID.copy("C"))), [0, 1], id="other strides"),
        pytest.param((Forward(X), Forward(X.astype(np.float64))), [0, 1], id="another dtype"),
        pytest.param((Forward(X), Forward(X + 1), Forward(X)), [0, 1, 2], id="another in between"),
    ],
)
def test_an_equal_input_is_handed_over_as_the_same_native_tensor_and_no_other_is(
    steps: tuple[Step, ...], numbers: list[int]
) -> None:
    assert handed_over(*steps) == numbers


def test_an_input_that_was_handed_over_twice_is_seen_to_change_on_each_step_that_follows() -> None:
    case = replace(TRAINING, steps=(Forward(X), Forward(X)))
    found = judge(
        case, play(case, spoilt("forward", mutates)), ["handed"], Accuracy()
    ).discrepancies
    assert [(d.observable, d.step) for d in found] == [("handed", 0), ("handed", 1)]


def test_each_step_is_given_a_private_copy_of_its_input() -> None:
    before = X.copy()
    play(TRAINING, spoilt("to_native", lambda move, array: _overwritten(move(array))))
    assert np.array_equal(before, X)


def _overwritten(array: Array) -> Array:
    array[...] = 7
    return array


def test_a_layer_is_given_a_private_copy_of_the_state() -> None:
    weight, bias, mean, var = np.ones((4, 2), np.float32)
    state = State(weight, bias, mean, var, np.array(0))
    play(
        replace(TRAINING, state=state),
        spoilt("layer", lambda build, config, held: _emptied(build, config, held)),
    )
    assert all(tensor is not None and (tensor == 1).all() for _, tensor in state.items()[:4])


def _emptied(build: Callable[..., Layer], config: Config, held: State) -> Layer:
    assert held.weight is not None
    held.weight[...] = 0
    return build(config, held)


def test_a_state_that_is_a_live_view_is_recorded_as_it_was_at_its_step() -> None:
    def live(build: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = build(*arguments)
        held: State = layer.state()
        layer.state = lambda: held

        def forward(x: Array) -> Array:
            assert held.running_mean is not None
            held.running_mean[...] += 1
            return x

        layer.forward = forward
        return with_members(layer)

    answers = play(TRAINING, spoilt("layer", live)).answers
    means: list[Any] = [
        [a.before.running_mean, getattr(a.after, "running_mean", None)] for a in answers
    ]
    assert np.array_equal(means, [[[0, 0], [1, 1]], [[1, 1], [2, 2]]])


def test_an_output_in_a_buffer_that_is_used_again_is_recorded_as_it_was_at_its_step() -> None:
    buffer = np.empty_like(X)
    answers = play(TRAINING, spoilt("forward", lambda _, x: np.add(x, 0, out=buffer))).answers
    assert np.array_equal([answer.output for answer in answers], [X, X + 1])  # type: ignore[arg-type]


REPEATED = Case(Config(2), None, (Eval(), *(Forward(X),) * 2))


@pytest.mark.parametrize(
    "case", [REPEATED, printed_and_read(REPEATED)], ids=["drawn", "rebuilt from its source"]
)
def test_an_output_that_does_not_repeat_is_found_also_when_the_case_was_rebuilt(case: Case) -> None:
    signs = iter([1, 1 + 2**-20])
    backend = spoilt("forward", lambda f, x: f(x) * np.float32(next(signs)))
    verdict = judge(case, play(case, backend), ["repetition"], Accuracy("two-pass"))
    assert [(d.observable, d.step) for d in verdict.discrepancies] == [("repetition", 2)]
