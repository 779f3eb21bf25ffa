"""What no observable looks at is not recorded."""

from collections.abc import Callable
from typing import Any

import pytest

from bn_spec import State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.arrays import MARGIN, take_apart
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Backward, Forward
from bn_spec.play.observation import LOOKS, MEMORY, STATES
from bn_spec.play.player import play
from tests.every_step import ASKED, DY, EACH, X, assert_same_answers, case_of, root_of
from tests.spoilt_backends import changed


def test_without_memory_there_is_nothing_of_it_and_all_else_is_the_same() -> None:
    case = case_of(*EACH)
    whole, without = play(case, Reference()), play(case, Reference(), (STATES,))
    for one, other in zip(whole.answers, without.answers, strict=True):
        assert (other.handed, other.overrun, other.shared, other.later) == ({}, (), (), {})
        assert_same_answers(one, other)


@pytest.mark.parametrize(
    ("looks", "fenced"), [(LOOKS, True), ((MEMORY,), True), ((STATES,), False), ((), False)]
)
def test_only_where_somebody_looks_at_memory_are_tensors_fenced_and_moved_out_again(
    looks: tuple[str, ...], fenced: bool
) -> None:
    handed: list[Array] = []
    moved_out = 0

    def to_native(array: Array) -> Array:
        handed.append(array)
        return array

    def to_numpy(tensor: Array) -> Array:
        nonlocal moved_out
        moved_out += 1
        return tensor

    backend: Any = Reference()
    backend.to_native, backend.to_numpy = to_native, to_numpy
    play(case_of(ASKED, Backward(DY)), backend, looks)
    spans = [(root_of(array).size, take_apart(array).flat.size) for array in handed]
    assert [memory - span for memory, span in spans] == ([2 * MARGIN] * 2 if fenced else [0] * 2)
    results, looked_at, once_more = 1 + 3, 1 + (2 + 3) + 1, 2
    assert moved_out == (results + looked_at + once_more if fenced else results)


@pytest.mark.parametrize(
    ("looks", "reads"),
    [(LOOKS, [0, 1, 2, 3]), ((STATES,), [0, 1, 2, 3]), ((MEMORY,), [0, 3]), ((), [0, 3])],
)
def test_without_states_the_state_is_read_when_the_layer_is_built_and_after_the_last_step_alone(
    looks: tuple[str, ...], reads: list[int]
) -> None:
    forwards = 0
    read: list[int] = []

    def forward(original: Callable[[Array], Array], x: Array) -> Array:
        nonlocal forwards
        forwards += 1
        return original(x)

    def state(original: Callable[[], State]) -> State:
        read.append(forwards)
        return original()

    observation = play(case_of(*(Forward(X),) * 3), changed(forward=forward, state=state), looks)
    assert read == reads
    counts = [int(a.after.num_batches_tracked) for a in observation.answers]  # type: ignore[union-attr, arg-type]
    assert counts == ([6, 7, 8] if len(reads) > 2 else [5, 5, 8])
    assert observation.answers[0].before is observation.initial
    assert [a.before for a in observation.answers[1:]] == [
        a.after for a in observation.answers[:-1]
    ]


def test_a_layer_whose_state_was_lost_is_played_to_its_end_where_nobody_looks_at_states() -> None:
    lost = changed(state=lambda state: {} if state().num_batches_tracked == 6 else state())
    case = case_of(*(Forward(X),) * 3)
    assert len(play(case, lost).answers) == 1
    assert len(play(case, lost, ()).answers) == 3
