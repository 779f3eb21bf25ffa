"""Results that change after their own step are seen at the end of the case."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Config, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Backward, Eval, Forward, Load, Restore, Save, Step, Train
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.observation import Observation
from bn_spec.play.player import play
from tests.every_step import ASKED, DY, EACH, ONE, OTHER, STATE, X, case_of, found
from tests.spoilt_backends import changed


def altered(observation: Observation) -> list[tuple[int, str]]:
    """Return the step and name of each tensor that changed between its step and the end."""
    return [
        (place, name)
        for place, answer in enumerate(observation.answers)
        for name, later in answer.later.items()
        if not same_bits(answer.seen()[name], later)  # type: ignore[arg-type]
    ]


def test_all_that_a_step_gave_or_was_handed_is_looked_at_once_more_but_for_the_last_step() -> None:
    *answers, last = play(case_of(*EACH), Reference()).answers
    for answer in answers:
        seen = {name for name, value in answer.seen().items() if isinstance(value, np.ndarray)}
        assert answer.later.keys() == seen
    assert last.later == {}
    assert altered(play(case_of(*EACH), Reference())) == []


def in_one_workspace(original: Callable[..., Any], *arguments: Any) -> Any:
    """Answer in the memory of the answer before."""
    answer = original(*arguments)
    if isinstance(answer, np.ndarray):
        return _overwriting(WORKSPACES.setdefault("output", answer), answer)
    kept = WORKSPACES.setdefault("results", answer)
    return type(answer)(*(_overwriting(old, new) for old, new in zip(kept, answer, strict=True)))


WORKSPACES: dict[str, Any] = {}


def _overwriting(old: Array, new: Array) -> Array:
    old[...] = new
    return old


class ByReference(Reference):
    """The reference, but statistics change in place, and saves or loads make no copies."""

    def __init__(self, saving: bool, loading: bool) -> None:
        self.saving, self.loading = saving, loading

    def layer(self, config: Config, state: State | None) -> Layer:
        layer: Any = super().layer(config, state)
        own = layer.layer

        def held() -> dict[str, Array]:
            return {name: getattr(own, name) for name in STATE_FIELDS}

        def load(tensors: Mapping[str, Array], *, strict: bool) -> None:
            assert strict is (len(tensors) == len(STATE_FIELDS))
            for name, tensor in tensors.items():
                setattr(own, name, tensor)

        def forward(x: Array) -> Array:
            before = held()
            y: Array = own(x)
            for name, tensor in before.items():
                tensor[...] = getattr(own, name)
                setattr(own, name, tensor)
            return y

        layer.forward = forward
        layer.save = held if self.saving else layer.save
        layer.load = load if self.loading else layer.load
        return layer  # type: ignore[no-any-return]


def overwriting_the_input_before() -> Backend:
    met: list[Array] = []

    def forward(original: Callable[[Array], Array], x: Array) -> Array:
        for old in met:
            old[...] = 0
        met.append(x)
        return original(x)

    return changed(forward=forward)


STATISTICS = STATE_FIELDS[2:]
NEW = (Load(**STATE.tensors()), Forward(X))  # type: ignore[arg-type]
CHANGED_LATER: dict[str, tuple[Callable[[], Backend], tuple[Step, ...], list[tuple[int, str]]]] = {
    "outputs in one workspace": (
        lambda: changed(forward=in_one_workspace),
        (Forward(X), Forward(2 * X * X), Forward(X)),
        [(1, "output")],
    ),
    "gradients in one workspace": (
        lambda: changed(backward=in_one_workspace),
        (ASKED, Backward(DY), Backward(2 * DY)),
        [(1, "grad_input"), (1, "grad_weight"), (1, "grad_bias")],
    ),
    "a checkpoint that is what the layer holds": (
        lambda: ByReference(saving=True, loading=False),
        (Save(), Eval(), Forward(X), Train(), Forward(X)),
        [(0, name) for name in STATISTICS],
    ),
    "loaded tensors that the layer holds": (
        lambda: ByReference(saving=False, loading=True),
        NEW,
        [(0, name) for name in STATISTICS],
    ),
    "one loaded tensor that the layer holds": (
        lambda: ByReference(saving=False, loading=True),
        (Load(running_var=ONE, strict=False), Forward(X)),
        [(0, "running_var")],
    ),
    "a restored checkpoint that the layer holds": (
        lambda: ByReference(saving=False, loading=True),
        (Save(), Restore(), Forward(X)),
        [(0, name) for name in STATISTICS],
    ),
    "an input that the next forward overwrites": (
        overwriting_the_input_before,
        (Forward(X), Forward(OTHER)),
        [(0, "input")],
    ),
}


@pytest.mark.parametrize(("backend", "steps", "places"), CHANGED_LATER.values(), ids=CHANGED_LATER)
def test_what_becomes_another_after_its_step_is_told_with_the_step_that_gave_it(
    backend: Callable[[], Backend], steps: tuple[Step, ...], places: list[tuple[int, str]]
) -> None:
    WORKSPACES.clear()
    case = case_of(*steps)
    observation = play(case, backend())
    assert altered(observation) == places
    assert [at for at, _ in found(case, observation, "kept")] == [at for at, _ in places]
    assert not [answer for answer in observation.answers if answer.overrun]


def test_a_restored_checkpoint_that_moved_is_seen_in_the_state_too() -> None:
    case = case_of(Save(), Forward(X), Restore())
    observation = play(case, ByReference(saving=True, loading=False))
    verdict = judge(case, observation, STATE_FIELDS, Accuracy("two-pass"), kind=Restore)
    assert [(d.observable, d.step) for d in verdict.discrepancies] == [
        (name, 2) for name in STATISTICS
    ]
