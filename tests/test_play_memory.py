"""Tensors handed to a layer stay as they were: writes, overruns and shared memory are seen."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Config, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.case.arrays import MARGIN, gaps, private_copy, same_bits, take_apart
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    STEPS,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Save,
    Step,
    Train,
)
from bn_spec.play.player import play
from tests.every_step import (
    ASKED,
    DOUBLE,
    DY,
    EACH,
    FOLD,
    KERNEL,
    LOAD,
    ONE,
    OTHER,
    SILENT,
    TWO,
    X,
    case_of,
    found,
    root_of,
)
from tests.spoilt_backends import changed, spoilt


def test_the_steps_are_of_every_kind() -> None:
    assert {type(step) for step in EACH} == set(STEPS.values())


@pytest.mark.parametrize("observable", ["handed", "overrun", "shared", "kept"])
def test_nothing_is_wrong_with_what_the_reference_does_to_memory(observable: str) -> None:
    case = case_of(*EACH)
    assert found(case, play(case, Reference()), observable) == []


# What a step was handed ---------------------------------------------------------------------------

HANDED: dict[str, tuple[Step, dict[str, Array]]] = {
    "forward": (Forward(OTHER), {"input": OTHER}),
    "recorded forward": (Forward(OTHER, ("input",)), {"input": OTHER}),
    "backward": (Backward(DY), {"dy": DY, "x": X}),
    "double backward": (DOUBLE, {"dy": DY, "x": X, "input": X, "weight": ONE, "bias": TWO}),
    "double backward of dx alone": (DoubleBackward(DY, X), {"dy": DY, "x": X, "input": X}),
    "load": (LOAD, {"weight": ONE, "bias": TWO}),
    "fold": (FOLD, {"weight": KERNEL, "bias": ONE}),
    "fold without a bias": (Fold(KERNEL), {"weight": KERNEL}),
}


@pytest.mark.parametrize(("step", "given"), HANDED.values(), ids=HANDED)
def test_what_a_step_was_handed_is_told_as_it_was_and_as_it_is_by_now(
    step: Step, given: dict[str, Array]
) -> None:
    handed = play(case_of(ASKED, step), Reference()).answers[-1].handed
    assert handed.keys() == given.keys()
    for name, (was, now) in handed.items():
        assert was is given[name]
        assert isinstance(now, np.ndarray)
        assert same_bits(was, now)
        assert not np.may_share_memory(was, now)


@pytest.mark.parametrize("step", SILENT, ids=lambda step: type(step).__name__)
def test_of_a_step_that_hands_nothing_over_nothing_is_told(step: Step) -> None:
    answer = play(case_of(Save(), step, Forward(X)), Reference()).answers[1]
    assert (answer.handed, answer.overrun, answer.shared) == ({}, (), ())
    assert answer.later.keys() == (set(STATE_FIELDS) if isinstance(step, Save) else set())


class Writing(Reference):
    """The reference, but one method writes into a tensor that was handed over, or beside it.

    ``which`` is the number of the tensor, in the order in which they were handed over.
    """

    def __init__(self, member: str, which: int, write: Callable[[Array], None]) -> None:
        self.member, self.which, self.write = member, which, write
        self.handed: list[Array] = []

    def to_native(self, array: Array) -> Array:
        self.handed.append(array)
        return array

    def layer(self, config: Config, state: State | None) -> Layer:
        layer: Any = super().layer(config, state)
        setattr(layer, self.member, partial(self.writing, getattr(layer, self.member)))
        return layer  # type: ignore[no-any-return]

    def writing(self, original: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
        answer = original(*arguments, **others)
        if len(self.handed) > self.which:
            self.write(self.handed[self.which])
        return answer


def into(tensor: Array) -> None:
    tensor[(0,) * tensor.ndim] = 42


def around(spot: str, tensor: Array) -> None:
    """Write beside the elements of a tensor, as a kernel with a wrong index does."""
    memory = root_of(tensor)
    span = take_apart(tensor).flat
    first = (span.ctypes.data - memory.ctypes.data) // memory.itemsize
    places = {
        "far before": first - MARGIN,
        "just before": first - 1,
        "between": first + (gaps(tensor)[0] if gaps(tensor).size else span.size),
        "just after": first + span.size,
        "far after": first + span.size + MARGIN - 1,
    }
    memory[places[spot]] += 1


PLACES: dict[str, tuple[str, Step, int, str]] = {
    "the input of a forward": ("forward", Forward(OTHER), 1, "input"),
    "the input of a recorded forward": ("record", Forward(OTHER, ("input",)), 1, "input"),
    "dy": ("backward", Backward(DY), 1, "dy"),
    "the input that a backward refers to": ("backward", Backward(DY), 0, "x"),
    "dy of a double backward": ("double_backward", DOUBLE, 1, "dy"),
    "the cotangent of dx": ("double_backward", DOUBLE, 2, "input"),
    "the cotangent of dweight": ("double_backward", DOUBLE, 3, "weight"),
    "the cotangent of dbias": ("double_backward", DOUBLE, 4, "bias"),
    "the input that a double backward refers to": ("double_backward", DOUBLE, 0, "x"),
    "a loaded weight": ("load", LOAD, 1, "weight"),
    "a loaded bias": ("load", LOAD, 2, "bias"),
    "the weight of a convolution": ("fold", FOLD, 1, "weight"),
    "the bias of a convolution": ("fold", FOLD, 2, "bias"),
}
"""A method, the step that calls it, the tensor that it writes to, and the name of that."""

at_each_place = pytest.mark.parametrize(
    ("member", "step", "which", "name"), PLACES.values(), ids=PLACES
)
SPOTS = ("far before", "just before", "between", "just after", "far after")


@at_each_place
def test_a_tensor_that_was_written_to_is_told_with_the_others_as_they_were(
    member: str, step: Step, which: int, name: str
) -> None:
    case = case_of(ASKED, step)
    observation = play(case, Writing(member, which, into))
    first, answer = observation.answers
    assert not first.overrun
    assert not answer.overrun
    changed = [
        other
        for other, (was, now) in answer.handed.items()
        if not same_bits(was, now)  # type: ignore[arg-type]
    ]
    assert changed == [name]
    ((at, got),) = found(case, observation, "handed")
    assert (at, "42." in got) == (1, True)


@pytest.mark.parametrize("spot", SPOTS)
@at_each_place
def test_a_write_beside_a_tensor_is_told_by_its_name(
    member: str, step: Step, which: int, name: str, spot: str
) -> None:
    case = case_of(ASKED, step)
    observation = play(case, Writing(member, which, partial(around, spot)))
    assert [answer.overrun for answer in observation.answers] == [(), (name,)]
    assert found(case, observation, "overrun") == [(1, f"changed around the elements of {name}")]
    assert found(case, observation, "handed") == []


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("name", STATE_FIELDS)
def test_a_write_beside_a_tensor_of_the_state_is_told_from_then_on(name: str, spot: str) -> None:
    def build(original: Callable[..., Layer], config: Config, state: State) -> Layer:
        layer: Any = original(config, state)
        forward = layer.forward

        def writing(x: Array) -> Any:
            around(spot, getattr(state, name))
            return forward(x)

        layer.forward = writing
        return layer  # type: ignore[no-any-return]

    case = case_of(Eval(), Forward(X), Train())
    observation = play(case, spoilt("layer", build))
    assert [answer.overrun for answer in observation.answers] == [(), (name,), (name,)]
    assert [at for at, _ in found(case, observation, "overrun")] == [1, 2]


def test_a_write_beside_several_tensors_names_them_all() -> None:
    class Everywhere(Writing):
        def layer(self, config: Config, state: State | None) -> Layer:
            self.handed += state.tensors().values() if state else ()
            return super().layer(config, state)

    def everywhere(*_: Array) -> None:
        for tensor in backend.handed:
            around("just after", tensor)

    backend = Everywhere("double_backward", 9, everywhere)
    names = play(case_of(ASKED, DOUBLE), backend).answers[1].overrun
    assert sorted(names) == sorted((*STATE_FIELDS, "dy", "x", *DIFFERENTIABLE))


class Elsewhere(Writing):
    """Likewise, with tensors in other memory, as on a device: only gaps can be checked there."""

    def to_native(self, array: Array) -> Array:
        return super().to_native(private_copy(array))


@at_each_place
def test_a_write_between_the_elements_of_a_tensor_that_lies_elsewhere_is_told_by_its_name(
    member: str, step: Step, which: int, name: str
) -> None:
    answers = play(
        case_of(ASKED, step), Elsewhere(member, which, partial(around, "between"))
    ).answers
    assert [answer.overrun for answer in answers] == [(), (name,)]


def test_of_a_tensor_that_was_moved_elsewhere_without_its_gaps_there_is_no_overrun_to_tell() -> (
    None
):
    class Packed(Elsewhere):
        def to_native(self, array: Array) -> Array:
            return super().to_native(np.ascontiguousarray(array))

    answers = play(
        case_of(ASKED, Backward(DY), Forward(OTHER)), Packed("backward", 1, into)
    ).answers
    assert [answer.overrun for answer in answers] == [()] * 3
    assert [[*answer.handed] for answer in answers] == [["input"], ["dy", "x"], ["input"]]


# Results in the memory of what was handed over ----------------------------------------------------


def recording_x(record: Callable[..., Any], x: Array, wrt: tuple[str, ...]) -> tuple[Array, Array]:
    return record(x, wrt)[0], x


SHARED: dict[str, tuple[dict[str, Callable[..., Any]], Step, tuple[str, ...]]] = {
    "the input itself": ({"forward": lambda _, x: x}, Forward(OTHER), ("output and input",)),
    "a view of the input": (
        {"forward": lambda _, x: x[...]},
        Forward(OTHER),
        ("output and input",),
    ),
    "a part of the input": ({"forward": lambda _, x: x[1:]}, Forward(OTHER), ("output and input",)),
    "the input of a recorded forward": (
        {"record": lambda _, x, wrt: (x, wrt)},
        Forward(OTHER, ("input",)),
        ("output and input",),
    ),
    "dy itself": (
        {"backward": lambda _, __, dy: Gradients(dy)},
        Backward(DY),
        ("grad_input and dy",),
    ),
    "dy and the input of the forward": (
        {"record": recording_x, "backward": lambda _, x, dy: Gradients(x, dy[0, :, 0, 0])},
        Backward(DY),
        ("grad_input and x", "grad_weight and dy"),
    ),
    "cotangents": (
        {"double_backward": lambda _, __, dy, of: DoubleGradients(of.input, dy, of.weight)},
        DOUBLE,
        ("double_dy and input", "double_input and dy", "double_weight and weight"),
    ),
    "the convolution": (
        {"fold": lambda _, weight, bias: (weight, bias)},
        FOLD,
        ("folded_weight and weight", "folded_bias and bias"),
    ),
}


@pytest.mark.parametrize(("members", "step", "pairs"), SHARED.values(), ids=SHARED)
def test_a_result_in_the_memory_of_what_was_handed_over_is_told(
    members: dict[str, Callable[..., Any]], step: Step, pairs: tuple[str, ...]
) -> None:
    case = case_of(ASKED, step)
    observation = play(case, changed(**members))
    assert observation.answers[1].shared == pairs
    assert (1, f"shared by {', '.join(pairs)}") in found(case, observation, "shared")


@pytest.mark.parametrize("step", [step for step, _ in HANDED.values()], ids=HANDED)
def test_results_in_memory_of_their_own_are_not_shared(step: Step) -> None:
    assert play(case_of(ASKED, step), Reference()).answers[1].shared == ()


def test_a_copy_of_the_input_is_not_shared() -> None:
    assert play(case_of(Forward(X)), changed(forward=lambda _, x: x.copy())).answers[0].shared == ()
