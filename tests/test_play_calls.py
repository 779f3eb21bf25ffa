"""Each step calls one method of the layer, with private copies of its tensors."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.arrays import interchangeable, same_bits
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    Restore,
    Save,
    Set,
    Step,
    Train,
)
from bn_spec.judge.judging import judge
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.observation import Malformed, Observation, Raised
from bn_spec.play.player import play
from tests.every_step import (
    ASKED,
    DY,
    EACH,
    FOLD,
    KERNEL,
    LOAD,
    ONE,
    OTHER,
    STATE,
    THREE,
    TWO,
    X,
    case_of,
)
from tests.spoilt_backends import changed, raises, returns, spoilt

# What a layer is told to do -----------------------------------------------------------------------


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


# Checkpoints and layers that are not there --------------------------------------------------------


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
    assert isinstance(saved.error, kind)
    assert isinstance(restored.error, kind)
    assert isinstance(forward.output, np.ndarray)
    assert not calls


def test_a_new_layer_that_cannot_be_built_is_what_restoring_raised_and_the_last_that_is_played() -> (  # noqa: E501
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
    assert [str(answer.error) for answer in observation.answers] == [
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
    assert load.error == Raised(
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
