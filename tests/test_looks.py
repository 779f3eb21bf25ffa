"""What a player sees of a layer: what it was handed, what lies around that, what becomes of its answers later."""

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Case, Config, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.backend.floating_point import departures, restore
from bn_spec.case.arrays import MARGIN, gaps, interchangeable, private_copy, same_bits, take_apart
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED, spread
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    STEPS,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
)
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.observation import LOOKS, MEMORY, STATES, Answer, Malformed, Observation, Raised
from bn_spec.play.player import play, play_together
from bn_spec.specimens.inaccurate import TOWARDS_ZERO

from .test_play import changed, raises, returns, spoilt

X = PLACED["cropped"](np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
OTHER = PLACED["cropped"](X + 1)
DY = PLACED["cropped"](X[::-1])
KERNEL = PLACED["cropped"](np.arange(4, dtype=np.float32).reshape(2, 1, 2, 1))
ONE, TWO, THREE, FOUR = (spread(np.full(2, number, np.float32), 3) for number in (1, 2, 3, 4))
"""All with gaps between their elements."""

STATE = State(ONE, TWO, THREE, FOUR, np.array(5))
ASKED = Forward(X, DIFFERENTIABLE)
DOUBLE = DoubleBackward(DY, X, ONE, TWO)
LOAD = Load(ONE, bias=TWO, strict=False)
FOLD = Fold(KERNEL, ONE)

SILENT = (
    *(
        Train(),
        Eval(),
        ResetRunningStats(),
        ResetParameters(),
        Save(),
        Restore(),
        Restore(0, ("bias",)),
    ),
    *(Restore(fresh=True), Set("eps", 0.5), Load(strict=False)),
)
"""Steps that hand no tensors over."""

EACH = (
    ASKED,
    Backward(DY),
    DOUBLE,
    *SILENT[:4],
    Save(),
    Restore(),
    LOAD,
    Set("eps", 0.5),
    FOLD,
    Forward(OTHER),
)
"""A step of each kind."""


def case_of(*steps: Step) -> Case:
    return Case(Config(2), STATE, steps)


def found(case: Case, observation: Observation, observable: str) -> list[tuple[int, str]]:
    """Return the steps at which an observable is not as it should be, and what was got there."""
    verdict = judge(case, observation, [observable], Accuracy("two-pass"))
    assert {d.observable for d in verdict.discrepancies} <= {observable}
    return [(d.step, d.got) for d in verdict.discrepancies]


def test_the_steps_are_of_every_kind() -> None:
    assert {type(step) for step in EACH} == set(STEPS.values())


@pytest.mark.parametrize("observable", ["handed", "overrun", "shared", "kept"])
def test_nothing_is_wrong_with_what_the_reference_does_to_memory(observable: str) -> None:
    case = case_of(*EACH)
    assert found(case, play(case, Reference()), observable) == []


# What a step was handed --------------------------------------------------------------------------------

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
    """The reference, a method of whose layers writes into a tensor that was handed over, or beside it.

    ``which`` counts the tensors as they are handed over.
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


def root_of(tensor: Array) -> Array:
    """Return the whole memory in which a tensor lies."""
    while isinstance(tensor.base, np.ndarray):
        tensor = tensor.base
    return tensor


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
    assert found(case, observation, "overrun") == [
        (1, f"written to, around the elements of {name}")
    ]
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
    """Likewise, with tensors in memory of its own, as on a device; there, nothing but gaps is in sight."""

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


# Results in the memory of what was handed over ---------------------------------------------------------


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


# What was given, once more after all steps -------------------------------------------------------------


def altered(observation: Observation) -> list[tuple[int, str]]:
    """Return what was different after all steps from what it was at its own: the step and the name."""
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
    """The reference, whose layers update statistics in place, and save or load the very tensors that they hold."""

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


# What a layer is told to do ----------------------------------------------------------------------------


class Diary:
    """The reference, with a list of what its layers were told, by the number of the layer."""

    def __init__(self, *members: str) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.layers = 0
        self.members = members
        self.backend = spoilt("layer", self._build)

    def _build(self, original: Callable[..., Layer], config: Config, state: State | None) -> Layer:
        layer: Any = original(config, state)
        number, self.layers = self.layers, self.layers + 1
        if "layer" in self.members:
            self.entries.append((number, "layer", config, state))
        for member in self.members:
            if member != "layer":
                setattr(layer, member, partial(self._told, number, member, getattr(layer, member)))
        return layer  # type: ignore[no-any-return]

    def _told(
        self, number: int, member: str, original: Callable[..., Any], *arguments: Any, **others: Any
    ) -> Any:
        self.entries.append((number, member, *arguments, *others.values()))
        return original(*arguments, **others)


def test_a_checkpoint_is_handed_back_as_the_native_tensors_that_were_saved() -> None:
    diary = Diary("load")
    saved: list[dict[str, Array]] = []

    def save(original: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        saved.append(original())
        return saved[-1]

    backend: Any = diary.backend
    layer = backend.layer
    backend.layer = lambda *a: _with_save(layer(*a), save)
    play(
        case_of(Save(), Forward(X), Save(), Restore(), Restore(0), Restore(-2), Restore(1)), backend
    )
    assert [strict for _, _, _, strict in diary.entries] == [True] * 4
    for (_, _, tensors, _), number in zip(diary.entries, (1, 0, 0, 1), strict=True):
        assert [*tensors] == [*STATE_FIELDS]
        assert all(tensors[name] is saved[number][name] for name in STATE_FIELDS)


def _with_save(layer: Any, save: Callable[..., Any]) -> Layer:
    layer.save = partial(save, layer.save)
    return layer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        pytest.param(("bias",), ["bias"], id="one"),
        pytest.param(("running_var", "weight"), ["running_var", "weight"], id="two"),
        pytest.param(STATE_FIELDS, [*STATE_FIELDS], id="all by name"),
        pytest.param((), [*STATE_FIELDS], id="all"),
    ],
)
def test_only_those_tensors_of_a_checkpoint_are_loaded_that_are_named(
    only: tuple[str, ...], names: list[str]
) -> None:
    diary = Diary("load")
    play(case_of(Save(), Restore(only=only)), diary.backend)
    ((_, _, tensors, strict),) = diary.entries
    assert ([*tensors], strict) == (names, not only)


def test_a_tensor_that_a_checkpoint_lacks_is_not_loaded_from_it() -> None:
    diary = Diary("load")
    play(
        Case(Config(2, affine=False), None, (Save(), Restore(only=("bias", "running_var")))),
        diary.backend,
    )
    ((_, _, tensors, _),) = diary.entries
    assert [*tensors] == ["running_var"]


def test_a_checkpoint_goes_into_a_new_layer_that_takes_the_place_of_the_old_one() -> None:
    diary = Diary("layer", "train", "record", "load", "backward")
    steps = (
        *(Eval(), ASKED, Set("eps", 0.5), Save(), Restore(fresh=True)),
        *(
            Forward(OTHER, ("input",)),
            Backward(DY, 0),
            Backward(DY),
            Restore(only=("bias",), fresh=True),
            Train(),
        ),
    )
    observation = play(case_of(*steps), diary.backend)
    assert [(number, what) for number, what, *_ in diary.entries] == [
        *((0, "layer"), (0, "train"), (0, "record")),
        *((1, "layer"), (1, "load"), (1, "record"), (0, "backward"), (1, "backward")),
        *((2, "layer"), (2, "load"), (2, "train")),
    ]
    built = [arguments for _, what, *arguments in diary.entries if what == "layer"]
    assert [config for config, _ in built] == [Config(2), Config(2, eps=0.5), Config(2, eps=0.5)]
    assert [state is None for _, state in built] == [False, True, True]
    assert [answer.training for answer in observation.answers] == [False] * 4 + [True] * 6
    fresh = initial_state(Config(2))
    after: Any = observation.answers[-1].after
    assert_same(after.tensors(), fresh.tensors() | {"bias": TWO})


def assert_same(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert same_bits(got[name], tensor), name


def test_no_new_layer_is_handed_the_state_of_the_first() -> None:
    diary = Diary("layer")
    play(case_of(Save(), Restore(fresh=True), Forward(X)), diary.backend)
    assert [state is None for *_, state in diary.entries] == [False, True]


@pytest.mark.parametrize("strict", [True, False])
def test_tensors_are_loaded_as_private_copies_with_their_strides(strict: bool) -> None:
    tensors = STATE.tensors() if strict else {"bias": TWO, "running_mean": THREE}
    diary = Diary("load")
    play(case_of(Load(**tensors, strict=strict)), diary.backend)
    ((_, _, loaded, told),) = diary.entries
    assert told is strict
    assert [*loaded] == [*tensors]
    for name, tensor in tensors.items():
        assert interchangeable(loaded[name], tensor)
        assert not np.may_share_memory(loaded[name], tensor)


def test_attributes_are_set_by_name_and_convolutions_handed_over_with_a_bias_or_without() -> None:
    diary = Diary("configure", "fold")
    play(case_of(Set("momentum", None), Eval(), FOLD, Set("eps", 0.5), Fold(KERNEL)), diary.backend)
    first, (_, what, weight, bias), second, (_, _, same, without) = diary.entries
    assert (first, second) == ((0, "configure", "momentum", None), (0, "configure", "eps", 0.5))
    assert what == "fold"
    for got, wanted in ((weight, KERNEL), (bias, ONE), (same, KERNEL)):
        assert interchangeable(got, wanted)
    assert without is None


def test_results_are_told_by_name_and_the_output_is_that_of_forwards_alone() -> None:
    answers = play(case_of(*EACH), Reference()).answers
    gradients = {"grad_input", "grad_weight", "grad_bias"}
    double, folded = (
        {"double_dy", "double_input", "double_weight"},
        {"folded_weight", "folded_bias"},
    )
    names = {Backward: gradients, DoubleBackward: double, Save: {*STATE_FIELDS}, Fold: folded}
    for answer in answers:
        assert answer.results.keys() == names.get(type(answer.step), set())
        assert (answer.output is not None) is isinstance(answer.step, Forward)
        assert answer.returned() == {"output": answer.output, **answer.results}


# Checkpoints and layers that are not there -------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(returns(None), Malformed), (returns([X]), Malformed), (raises(OSError("full")), Raised)],
    ids=["None", "a list", "an error"],
)
def test_a_checkpoint_that_was_not_saved_is_not_loaded(
    answer: Callable[..., Any], kind: type[object]
) -> None:
    calls: list[object] = []
    backend = changed(save=answer, load=lambda _, *a, **__: calls.append(a))
    saved, restored, forward = play(case_of(Save(), Restore(), Forward(X)), backend).answers
    assert isinstance(saved.output, kind)
    assert isinstance(restored.output, kind)
    assert isinstance(forward.output, np.ndarray)
    assert not calls


def test_a_new_layer_that_cannot_be_built_is_what_restoring_raised_and_the_last_that_is_played() -> (
    None
):
    built: list[object] = []

    def once(original: Callable[..., Layer], *arguments: object) -> Layer:
        if built:
            raise OSError("no device")
        built.append(arguments)
        return original(*arguments)

    case = case_of(Save(), Restore(fresh=True), Forward(X))
    observation = play(case, spoilt("layer", once))
    assert [str(answer.output) for answer in observation.answers] == [
        "None",
        "raised OSError: no device",
    ]
    assert found_errors(case, observation) == [("error", 1, "raised OSError: no device")]


def found_errors(case: Case, observation: Observation) -> list[tuple[str, int, str]]:
    verdict = judge(case, observation, (), Accuracy("two-pass"))
    return [(d.observable, d.step, d.got) for d in verdict.discrepancies]


def test_a_load_that_raises_is_told_with_what_was_handed_and_the_case_goes_on() -> None:
    case = case_of(LOAD, Forward(X))
    load, forward = play(case, changed(load=raises(KeyError("bias")))).answers
    assert load.output == Raised(
        ("KeyError", "LookupError", "Exception", "BaseException", "object"), "'bias'"
    )
    assert load.handed.keys() == {"weight", "bias"}
    assert isinstance(forward.output, np.ndarray)


@pytest.mark.parametrize("step", [LOAD, FOLD, Backward(DY)], ids=["load", "fold", "backward"])
def test_where_a_tensor_cannot_be_moved_in_the_layer_is_not_called(step: Step) -> None:
    def full(move: Callable[[Array], Array], array: Array) -> Array:
        if interchangeable(array, X):
            return move(array)
        raise OSError("full")

    calls: list[object] = []
    backend: Any = changed(
        **dict.fromkeys(("load", "fold", "backward"), lambda _, *a, **__: calls.append(a))
    )
    backend.to_native = partial(full, backend.to_native)
    case = case_of(ASKED, step)
    observation = play(case, backend)
    assert found_errors(case, observation) == [("error", 1, "raised OSError: full")]
    assert not calls


# What nobody asks for is not looked at -----------------------------------------------------------------


def told(answer: Answer) -> dict[str, Any]:
    """What an answer tells, memory aside."""
    states = (
        {f"{name} after": a for name, a in answer.after.items()}
        if isinstance(answer.after, State)
        else {}
    )
    return answer.returned() | states


def test_without_memory_there_is_nothing_of_it_and_all_else_is_the_same() -> None:
    case = case_of(*EACH)
    whole, without = play(case, Reference()), play(case, Reference(), (STATES,))
    for one, other in zip(whole.answers, without.answers, strict=True):
        assert (other.handed, other.overrun, other.shared, other.later) == ({}, (), (), {})
        assert_same_answers(one, other)


def assert_same_answers(one: Answer, other: Answer) -> None:
    assert told(one).keys() == told(other).keys()
    for name, value in told(one).items():
        if isinstance(value, np.ndarray):
            assert same_bits(value, told(other)[name]), name
        else:
            assert type(value) is type(told(other)[name]), name


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


# In threads of their own -------------------------------------------------------------------------------


def meeting(parties: int) -> Callable[..., Any]:
    """Answer once so many forwards have been called; raise an error after ten seconds without."""
    barrier = Barrier(parties)

    def forward(original: Callable[[Array], Array], x: Array) -> Array:
        barrier.wait(10)
        return original(x)

    return forward


def test_cases_are_played_at_the_same_time_each_in_a_thread_of_its_own() -> None:
    threads: list[int] = []
    forward = meeting(4)

    def noted(original: Callable[[Array], Array], x: Array) -> Array:
        threads.append(get_ident())
        y: Array = forward(original, x)
        return y

    cases = [case_of(Forward(X), Forward(number * X)) for number in (2, 3, 5, 7)]
    observations = play_together(cases, changed(forward=noted))
    assert len(set(threads)) == 4
    assert get_ident() not in threads
    for case, observation in zip(cases, observations, strict=True):
        for one, other in zip(play(case, Reference()).answers, observation.answers, strict=True):
            assert_same_answers(one, other)
            assert (other.handed, other.later) == ({}, {})


def test_a_layer_that_raises_does_not_disturb_those_beside_it() -> None:
    forward = meeting(3)

    def failing(original: Callable[[Array], Array], x: Array) -> Array:
        y: Array = forward(original, x)
        if x[0, 0, 0, 1] == -1:
            raise OSError("lost")
        return y

    cases = [case_of(Forward(number * X)) for number in (1, -1, 2)]
    first, second, third = play_together(cases, changed(forward=failing))
    assert str(second.answers[0].output) == "raised OSError: lost"
    for case, observation in ((cases[0], first), (cases[2], third)):
        assert found(case, observation, "output") == []


def test_a_layer_that_cannot_be_built_does_not_disturb_those_beside_it() -> None:
    def build(original: Callable[..., Layer], config: Config, state: State | None) -> Layer:
        if config.eps == 0.5:
            raise OSError("no device")
        return original(config, state)

    cases = [replace(case_of(Forward(X)), config=Config(2, eps=eps)) for eps in (1.0, 0.5)]
    whole, missing = play_together(cases, spoilt("layer", build))
    assert found(cases[0], whole, "output") == []
    assert (str(missing.initial), missing.answers) == ("raised OSError: no device", ())


# The floating-point mode -------------------------------------------------------------------------------

needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in TOWARDS_ZERO,
    reason="the modes of fesetround are those of glibc on x86 and ARM, and only there are they set back",
)
NOT_NEAREST = ("does not round to nearest",)


@pytest.fixture
def _default_mode() -> Iterator[None]:
    yield
    restore()


def flips(original: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
    answer = original(*arguments, **others)
    assert ctypes.CDLL(None).fesetround(TOWARDS_ZERO[platform.machine()]) == 0
    return answer


@needs_linux
@pytest.mark.usefixtures("_default_mode")
@pytest.mark.parametrize(
    ("member", "step"),
    [
        *(
            ("save", Save()),
            ("load", Restore(0)),
            ("load", LOAD),
            ("configure", Set("eps", 0.5)),
            ("fold", FOLD),
        ),
        *(("double_backward", DOUBLE), ("reset_parameters", ResetParameters())),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_mode_that_a_step_leaves_changed_is_told_of_that_step_and_set_back(
    member: str, step: Step
) -> None:
    save = (Save(),) if isinstance(step, Restore) else ()
    answers = play(case_of(*save, ASKED, step, Forward(X)), changed(**{member: flips})).answers
    assert [answer.mode for answer in answers[len(save) :]] == [(), NOT_NEAREST, ()]
    assert departures() == ()


@needs_linux
@pytest.mark.usefixtures("_default_mode")
def test_a_mode_that_building_a_layer_anew_leaves_changed_is_told_of_the_restore() -> None:
    def build(original: Callable[..., Layer], config: Config, state: State | None) -> Layer:
        return flips(original, config, state) if state is None else original(config, state)

    answers = play(case_of(Save(), Restore(fresh=True), Forward(X)), spoilt("layer", build)).answers
    assert [answer.mode for answer in answers] == [(), NOT_NEAREST, ()]


@needs_linux
@pytest.mark.usefixtures("_default_mode")
def test_a_mode_that_one_thread_leaves_changed_is_told_of_its_case_alone() -> None:
    forward = meeting(2)

    def flipping(original: Callable[[Array], Array], x: Array) -> Array:
        y: Array = forward(original, x)
        return flips(lambda: y) if x[0, 0, 0, 1] < 0 else y

    cases = [case_of(*(Forward(sign * X),) * 2) for sign in (1, -1)]
    modes = [
        [answer.mode for answer in o.answers]
        for o in play_together(cases, changed(forward=flipping))
    ]
    assert modes == [[(), ()], [NOT_NEAREST, NOT_NEAREST]]
    assert departures() == ()
