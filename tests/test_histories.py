"""Whole histories are judged: checkpoints, loads and their refusals, new attributes, folds, drift and repetition."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count, pairwise
from types import UnionType
from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Case, Config, Layer, State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import (
    Backward,
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
from bn_spec.judge.judging import judge, judge_drift, judge_repetition
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import expect
from bn_spec.play.observation import CONSTRUCTION, Raised
from bn_spec.play.player import play

from .convolution import correlated
from .test_play import changed, raises, returns, spoilt

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
ONE, TWO, THREE, FOUR = (np.full(2, number, np.float32) for number in (1, 2, 3, 4))
STATE = State(FOUR, TWO, THREE, TWO, np.array(5))
OTHER = State(THREE, ONE, FOUR, THREE, np.array(7))
CLAIMS = Accuracy("two-pass")
OUTPUTS = ("output", "refusal", *STATE_FIELDS)
STATISTICS = STATE_FIELDS[2:]


def case_of(*steps: Step, **config: Any) -> Case:
    return Case(Config(2, **config), None, steps)


def judged(
    case: Case, backend: Backend, *observables: str, kind: type[Step] | UnionType | None = None
) -> list[Discrepancy]:
    return judge(case, play(case, backend), observables or OUTPUTS, CLAIMS, kind=kind).discrepancies


def places(discrepancies: list[Discrepancy]) -> list[tuple[str, int]]:
    return [(d.observable, d.step) for d in discrepancies]


def layer_of(build: Callable[[Any], None]) -> Backend:
    """The reference, with every layer changed by a function once it is built."""

    def layer(original: Callable[..., Layer], *arguments: object) -> Layer:
        made = original(*arguments)
        build(made)
        return made

    return spoilt("layer", layer)


# Checkpoints -------------------------------------------------------------------------------------------

COUNTED = case_of(
    *(Forward(X), Forward(X), Save(), ResetRunningStats(), Forward(X)),
    *(
        Load(num_batches_tracked=np.array(41), strict=False),
        Forward(X),
        Eval(),
        Forward(X),
        Train(),
    ),
    *(Restore(), Forward(X), Restore(only=("running_mean",)), ResetParameters(), Forward(X)),
    *(Restore(fresh=True), Forward(X)),
    momentum=None,
)


def test_a_counter_goes_through_resets_loads_and_checkpoints() -> None:
    observation = play(COUNTED, Reference())
    counters = [answer.after.num_batches_tracked for answer in observation.answers]  # type: ignore[union-attr]
    assert counters == [1, 2, 2, 0, 1, 41, 42, 42, 42, 42, 2, 3, 3, 0, 1, 2, 3]
    assert judge(COUNTED, observation, OUTPUTS, CLAIMS).discrepancies == []


def without(name: str) -> Callable[..., None]:
    """Load all tensors but one."""

    def loading(load: Callable[..., None], tensors: Mapping[str, Array], *, strict: bool) -> None:
        load(
            {other: a for other, a in tensors.items() if other != name},
            strict=strict and name not in tensors,
        )

    return loading


@pytest.mark.parametrize("name", STATE_FIELDS)
def test_a_tensor_that_a_checkpoint_does_not_bring_back_is_named(name: str) -> None:
    case = Case(Config(2), OTHER, (Save(), ResetParameters(), Restore(), Forward(X)))
    assert places(judged(case, changed(load=without(name)))) == [(name, 2)]


def test_a_counter_that_is_not_brought_back_is_no_fault_of_the_steps_that_follow() -> None:
    found = judged(COUNTED, changed(load=without("num_batches_tracked")))
    # At the restore of step 10, the layer happens to have counted two batches as well.
    assert places(found) == [("num_batches_tracked", 5), ("num_batches_tracked", 15)]


def test_a_checkpoint_is_judged_by_the_state_of_its_own_step() -> None:
    saved: list[Any] = []

    def first(save: Callable[[], object]) -> object:
        saved.append(save())
        return saved[0]

    case = case_of(Save(), Forward(X), Save())
    assert places(judged(case, changed(save=first), "checkpoint")) == [("checkpoint", 2)] * 3
    assert judged(case, Reference(), "checkpoint") == []


def test_of_several_checkpoints_the_one_that_is_asked_for_must_come_back() -> None:
    restores = Restore(0), Restore(1), Restore(), Restore(-2), Restore(-3)
    case = case_of(Save(), Forward(X), Save(), Forward(X), Save(), *restores)
    assert judged(case, Reference()) == []
    saved: list[dict[str, Array]] = []

    def save(original: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        saved.append(original())
        return saved[-1]

    def load(original: Callable[..., None], _: object, *, strict: bool) -> None:
        original(saved[-1], strict=strict)

    found = judged(case, changed(save=save, load=load), "num_batches_tracked")
    assert places(found) == [("num_batches_tracked", step) for step in (5, 6, 8, 9)]


def test_a_new_layer_that_is_restored_into_starts_in_training_mode_with_the_tensors_of_the_checkpoint() -> (
    None
):
    case = case_of(
        Forward(X),
        Save(),
        Eval(),
        Restore(fresh=True),
        Forward(X),
        Restore(only=("bias",), fresh=True),
    )
    assert judged(case, Reference()) == []

    def asleep(layer: Any) -> None:
        layer.train(False)

    found = judged(case, layer_of(asleep), *OUTPUTS, kind=Forward)
    assert {("output", 4), *((name, 4) for name in STATISTICS)} <= {*places(found)}


# What must be refused, and what must not ---------------------------------------------------------------

ALL = STATE.tensors()
LONG = np.ones(3, np.float32)

REFUSED: dict[str, tuple[dict[str, Array], bool, dict[str, Any], str]] = {
    "too few": ({name: ALL[name] for name in STATE_FIELDS[1:]}, True, {}, "weight is missing"),
    "two too few": (
        {name: ALL[name] for name in STATE_FIELDS[2:]},
        True,
        {},
        "bias and weight is missing",
    ),
    "none": (
        {},
        True,
        {"affine": False},
        "num_batches_tracked and running_mean and running_var is missing",
    ),
    "too many": (ALL, True, {"affine": False}, "the layer has no bias and weight"),
    "statistics too many": (
        ALL,
        True,
        {"track_running_stats": False},
        "the layer has no num_batches_tracked and running_mean and running_var",
    ),
    "too long": (ALL | {"bias": LONG}, True, {}, "bias has shape (3,), the layer's (2,)"),
    "a column": (
        ALL | {"running_var": FOUR[:, None]},
        True,
        {},
        "running_var has shape (2, 1), the layer's (2,)",
    ),
    "a counter of one dimension": (
        ALL | {"num_batches_tracked": np.ones(1, np.int64)},
        True,
        {},
        "num_batches_tracked has shape (1,), the layer's ()",
    ),
    "one, too long": ({"bias": LONG}, False, {}, "bias has shape (3,), the layer's (2,)"),
    "one, too long, beside one that the layer has not": (
        {"bias": LONG, "running_mean": ONE},
        False,
        {"track_running_stats": False},
        "bias has shape (3,), the layer's (2,)",
    ),
}

ACCEPTED: dict[str, tuple[dict[str, Array], bool, dict[str, Any]]] = {
    "all": (ALL, True, {}),
    "all by name": (ALL, False, {}),
    "all that the layer has": ({"weight": ONE, "bias": TWO}, True, {"track_running_stats": False}),
    "one": ({"bias": ONE}, False, {}),
    "none": ({}, False, {}),
    "none of a layer without any": ({}, True, {"affine": False, "track_running_stats": False}),
    "more than the layer has": (ALL, False, {"affine": False}),
    "one too long that the layer has not": (
        {"bias": LONG, "running_mean": ONE},
        False,
        {"affine": False},
    ),
    "other dtypes": ({name: a.astype(np.float64) for name, a in ALL.items()}, True, {}),
}


def loading(tensors: dict[str, Array], strict: bool, config: dict[str, Any]) -> Case:
    return case_of(Forward(X), Load(**tensors, strict=strict), Forward(X), **config)


@pytest.mark.parametrize(("tensors", "strict", "config", "reason"), REFUSED.values(), ids=REFUSED)
def test_tensors_that_do_not_fit_must_be_refused_with_an_error_of_a_known_kind(
    tensors: dict[str, Array], strict: bool, config: dict[str, Any], reason: str
) -> None:
    case = loading(tensors, strict, config)
    assert judged(case, Reference()) == []
    wanted = f"a RuntimeError or ValueError or KeyError, since {reason}"
    accepting, confused = (
        changed(load=lambda *_, **__: None),
        changed(load=raises(TypeError("shape"))),
    )
    assert judged(case, accepting) == [Discrepancy("refusal", 1, wanted, "an output and no error")]
    assert judged(case, confused) == [Discrepancy("refusal", 1, wanted, "raised TypeError: shape")]
    for kind in (RuntimeError, ValueError, KeyError):
        assert judged(case, changed(load=raises(kind("no")))) == []


@pytest.mark.parametrize(("tensors", "strict", "config"), ACCEPTED.values(), ids=ACCEPTED)
def test_tensors_that_fit_must_be_loaded(
    tensors: dict[str, Array], strict: bool, config: dict[str, Any]
) -> None:
    case = loading(tensors, strict, config)
    assert judged(case, Reference()) == []
    refusing = changed(load=raises(ValueError("no")))
    assert judged(case, refusing) == [Discrepancy("error", 1, "no error", "raised ValueError: no")]


def test_a_refused_load_must_leave_every_tensor_as_it_was() -> None:
    def until_refused(
        load: Callable[..., None], tensors: Mapping[str, Array], *, strict: bool
    ) -> None:
        for name, tensor in tensors.items():
            load({name: tensor}, strict=False)
        load(tensors, strict=strict)

    case = loading(ALL | {"running_var": LONG}, True, {})
    assert places(judged(case, changed(load=until_refused))) == [
        (name, 1) for name in STATE_FIELDS[:3]
    ]


@pytest.mark.parametrize("name", STATE_FIELDS)
def test_a_partial_load_must_leave_the_other_tensors_as_they_were(name: str) -> None:
    fresh = initial_state(Config(2)).tensors()

    def filling_in(
        load: Callable[..., None], tensors: Mapping[str, Array], *, strict: bool
    ) -> None:
        load(fresh | dict(tensors), strict=strict)

    (tensor,) = (a for other, a in ALL.items() if other == name)
    case = Case(Config(2), OTHER, (Load(**{name: tensor}, strict=False),))
    assert judged(case, Reference()) == []
    others = [(other, 0) for other in STATE_FIELDS if other != name]
    assert places(judged(case, changed(load=filling_in))) == others
    assert places(judged(case, changed(load=lambda *_, **__: None))) == [(name, 0)]


def test_loaded_tensors_must_take_the_dtype_of_the_layer() -> None:
    def widening(layer: Any) -> None:
        def load(tensors: Mapping[str, Array], **_: bool) -> None:
            layer.layer.bias = tensors["bias"]

        layer.load = load

    case = case_of(Load(bias=TWO.astype(np.float64), strict=False))
    assert judged(case, Reference()) == []
    (found,) = judged(case, layer_of(widening))
    assert (found.observable, "float64" in found.got, "float32" in found.expected) == (
        "bias",
        True,
        True,
    )


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_dy_of_another_shape_must_be_refused_and_changes_nothing(n: int) -> None:
    case = case_of(Forward(X, ("input",)), Backward(np.resize(X, (n, 2, 2, 1))), Backward(X))
    assert judged(case, Reference(), *OUTPUTS, "grad_input") == []
    wanted = (
        f"a RuntimeError or ValueError, since dy has shape ({n}, 2, 2, 1), the output (2, 2, 2, 1)"
    )

    def cut_to_fit(backward: Callable[..., Any], record: Any, dy: Array) -> Any:
        return backward(record, np.resize(dy, X.shape))

    found = judged(case, changed(backward=cut_to_fit))
    assert found == [Discrepancy("refusal", 1, wanted, "an output and no error")]


def test_a_case_is_judged_up_to_the_gradient_of_a_forward_that_must_be_refused() -> None:
    steps = Forward(X), Forward(X[:1, :, :1], ("input",)), Backward(X[:1, :, :1], 1), Forward(X)
    accepting = changed(record=lambda _, x, wrt: (x, wrt), backward=returns((X, None, None)))
    assert judged(case_of(*steps), Reference()) == []
    assert places(judged(case_of(*steps), accepting)) == [("refusal", 1)]
    assert places(judged(case_of(*steps[:2], Forward(X)), accepting)) == [("refusal", 1)]


# Live attributes ---------------------------------------------------------------------------------------


def test_a_new_attribute_counts_from_the_next_step_on_and_not_before() -> None:
    case = case_of(
        Forward(X),
        Set("eps", 100.0),
        Forward(X),
        Set("momentum", 1.0),
        Forward(X),
        Set("eps", 1e-5),
    )
    assert judged(case, Reference()) == []
    deaf = changed(configure=returns(None))
    assert places(judged(case, deaf)) == [
        ("output", 2),
        ("output", 4),
        ("running_mean", 4),
        ("running_var", 4),
    ]

    def late(configure: Callable[..., None], *arguments: object, waiting: list[Any] = []) -> None:  # noqa: B006
        waiting.append(arguments)
        if len(waiting) > 1:
            configure(*waiting[-2])

    assert places(judged(case, changed(configure=late)))[0] == ("output", 2)


def test_a_new_attribute_changes_no_tensor() -> None:
    def resetting(layer: Any) -> None:
        configure = layer.configure

        def both(*arguments: object) -> None:
            configure(*arguments)
            layer.reset_running_stats()

        layer.configure = both

    found = judged(case_of(Forward(X), Set("momentum", 0.5), Forward(X)), layer_of(resetting))
    assert places(found) == [(name, 1) for name in STATISTICS]


# Folding -----------------------------------------------------------------------------------------------


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


# Steps of a kind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (None, [0, 3, 5]),
        (Forward, [0, 3, 5]),
        (Save, []),
        (Save | Eval, []),
        (Eval | Forward, [0, 3, 5]),
    ],
)
def test_observables_are_judged_at_steps_of_a_kind(
    kind: type[Step] | UnionType | None, steps: list[int]
) -> None:
    case = case_of(Forward(X), Save(), Eval(), Forward(X), Restore(), Forward(X))
    doubled = changed(forward=lambda forward, x: 2 * forward(x))
    assert places(judged(case, doubled, "output", "state_form", kind=kind)) == [
        ("output", step) for step in steps
    ]


def test_what_a_step_of_another_kind_changes_is_what_one_of_the_kind_starts_from() -> None:
    case = case_of(Forward(X), Save(), Forward(X), Restore())
    doubled = changed(forward=lambda forward, x: 2 * forward(x), load=without("running_var"))
    assert places(judged(case, doubled, *OUTPUTS, kind=Restore)) == [("running_var", 3)]


def test_errors_and_states_that_do_not_fit_are_found_at_steps_of_any_kind() -> None:
    case = case_of(Forward(X), Eval())
    assert places(judged(case, changed(forward=raises(OSError("gone"))), "output", kind=Eval)) == [
        ("error", 0)
    ]
    grown = changed(state=lambda state: state().map(lambda a: np.append(a, a) if a.ndim else a))
    assert places(judged(case, grown, "output", kind=Eval)) == [("state", CONSTRUCTION)]


# Repetition --------------------------------------------------------------------------------------------


def repeated(steps: tuple[Step, ...], first: Backend, again: Backend) -> list[Discrepancy]:
    case = case_of(*steps)
    return judge_repetition(*(play(case, backend) for backend in (first, again))).discrepancies


LIFE = (Forward(X, ("input", "bias")), Backward(X), Save(), Eval(), Fold(X[..., :1]), Forward(X))


def test_the_reference_gives_the_same_bits_again() -> None:
    assert repeated(LIFE, Reference(), Reference()) == []
    assert repeated(LIFE, *[changed(forward=lambda f, x: f(x) * np.float32(np.nan))] * 2) == []


NEXT = np.float32(1 + 2**-23)


def times_next(y: Array, record: object) -> tuple[Array, object]:
    return y * NEXT, record


@pytest.mark.parametrize(
    ("members", "step", "word"),
    [
        pytest.param({"forward": lambda f, x: f(x) * NEXT}, 5, "output again [[[[", id="output"),
        pytest.param(
            {"record": lambda f, *a: times_next(*f(*a))}, 0, "output again", id="recorded output"
        ),
        pytest.param(
            {"backward": lambda f, *a: f(*a)._replace(bias=f(*a).bias * NEXT)},
            1,
            "grad_bias again [",
            id="gradient",
        ),
        pytest.param(
            {"save": lambda f: f() | {"bias": ONE}}, 2, "bias again [0., 0.]", id="checkpoint"
        ),
        pytest.param(
            {"fold": lambda f, *a: (f(*a)[0], f(*a)[1] + 1)}, 4, "folded_bias again", id="fold"
        ),
        pytest.param(
            {"forward": lambda f, x: f(x).astype(np.float64)}, 5, "output again", id="dtype"
        ),
        pytest.param({"forward": lambda f, x: f(x)[:1]}, 5, "output again", id="shape"),
        pytest.param({"forward": lambda *_: None}, 5, "output again", id="nothing"),
        pytest.param({"fold": raises(OSError("busy"))}, 4, "output again None", id="an error"),
    ],
)
def test_a_bit_that_differs_the_second_time_is_a_discrepancy_of_its_step(
    members: dict[str, Callable[..., Any]], step: int, word: str
) -> None:
    found = repeated(LIFE, Reference(), changed(**members))
    assert {(d.observable, d.step) for d in found} == {("repetition", step)}
    assert found[0].expected.startswith(word)
    assert {d.step for d in repeated(LIFE, changed(**members), Reference())} == {step}


@pytest.mark.parametrize("name", STATE_FIELDS)
def test_a_state_that_differs_the_second_time_is_a_discrepancy(name: str) -> None:
    def moving(layer: Any) -> None:
        record = layer.record

        def moved(*arguments: object) -> object:
            answer = record(*arguments)
            tensor = getattr(layer.layer, name)
            setattr(layer.layer, name, np.asarray(tensor + tensor.dtype.type(1)))
            return answer

        layer.record = moved

    found = repeated(LIFE[:2], Reference(), layer_of(moving))
    assert places(found) == [("repetition", 0), ("repetition", 1)]
    assert all(d.expected.startswith(f"{name} again ") for d in found)


def test_an_error_is_the_same_as_another_and_no_answer() -> None:
    steps = (Forward(X), Forward(X))
    failing = [changed(forward=raises(OSError(word))) for word in ("lost", "gone")]
    assert repeated(steps, *failing) == []
    assert places(repeated(steps, failing[0], Reference())) == [
        *(
            ("repetition", step)
            for step, _ in ((s, n) for s in range(2) for n in ("output", *STATISTICS))
        )
    ]


def lost_after(batches: int) -> Backend:
    """Layers whose state cannot be read once they have counted so many batches."""
    return changed(state=lambda state: {} if state().num_batches_tracked == batches else state())


def test_steps_that_are_answered_only_once_are_a_discrepancy() -> None:
    steps = (Forward(X),) * 3
    assert repeated(steps, *[lost_after(1)] * 2) == []
    missing = Discrepancy("repetition", 0, "3 steps answered again", "1")
    assert missing in repeated(steps, Reference(), lost_after(1))
    assert repeated(steps, Reference(), lost_after(0)) == [
        Discrepancy("repetition", CONSTRUCTION, "3 steps answered again", "0")
    ]
    assert repeated(steps, lost_after(0), Reference()) == [
        Discrepancy("repetition", CONSTRUCTION, "0 steps answered again", "3")
    ]


# Drift -------------------------------------------------------------------------------------------------


def drifted(case: Case, backend: Backend) -> list[Discrepancy]:
    return judge_drift(case, play(case, backend, ()), CLAIMS).discrepancies


def batches(number: int, dtype: str = "float32") -> tuple[Forward, ...]:
    """Return batches with means of their own."""
    rng = np.random.default_rng(number)
    inputs = (3 * rng.normal() + rng.normal(size=(3, 2, 2, 1)) for _ in range(number))
    return tuple(Forward(x.astype(DTYPES[dtype].data.dtype)) for x in inputs)


@pytest.mark.parametrize(
    ("dtype", "momentum"),
    [("float32", 0.1), ("float32", None), ("float64", 1.0), ("bfloat16", 0.01)],
)
def test_the_reference_does_not_drift_in_hundreds_of_steps(
    dtype: str, momentum: float | None
) -> None:
    case = Case(Config(2, momentum=momentum, dtype=dtype), None, batches(300, dtype))
    verdict = judge_drift(case, play(case, Reference(), ()), CLAIMS)
    assert verdict.discrepancies == []
    assert verdict.judged == 2 + 2 + 1
    assert verdict.outside == 0


def forgetting(which: int) -> Backend:
    """Layers that lose one update of their statistics, and count it."""

    def forgetful(layer: Any) -> None:
        forward, calls = layer.forward, count()

        def losing(x: Array) -> Array:
            held = layer.state()
            y: Array = forward(x)
            if next(calls) == which:
                layer.load({name: getattr(held, name) for name in STATISTICS[:2]}, strict=False)
            return y

        layer.forward = losing

    return layer_of(forgetful)


@pytest.mark.parametrize(
    ("momentum", "which"), [(0.1, 299), (0.1, 250), (0.5, 295), (1.0, 299), (None, 0), (None, 150)]
)
def test_one_update_that_is_forgotten_in_hundreds_is_found(
    momentum: float | None, which: int
) -> None:
    case = case_of(*batches(300), momentum=momentum)
    assert places(drifted(case, forgetting(which))) == [("running_mean", 299), ("running_var", 299)]


def test_a_counter_that_misses_one_of_hundreds_is_found() -> None:
    def miscounting(layer: Any) -> None:
        forward = layer.forward

        def missing(x: Array) -> Array:
            y: Array = forward(x)
            if layer.layer.num_batches_tracked == 100:
                layer.layer.num_batches_tracked = np.array(99)
            return y

        layer.forward = missing

    found = drifted(case_of(*batches(200)), layer_of(miscounting))
    assert found == [
        Discrepancy(
            "num_batches_tracked",
            199,
            "num_batches_tracked = 200 (int64, shape ())",
            "99 (int64, shape ())",
        )
    ]


def test_a_layer_that_holds_no_such_state_has_no_drift_to_judge() -> None:
    grown = changed(state=lambda state: state().map(lambda a: np.append(a, a) if a.ndim else a))
    assert places(drifted(case_of(*batches(2)), grown)) == [("state", CONSTRUCTION)]


@pytest.mark.parametrize("state", [None, STATE], ids=["as built", "loaded"])
def test_a_layer_to_which_nothing_is_done_must_hold_what_it_was_built_with(
    state: State | None,
) -> None:
    case = Case(Config(2), state, ())
    verdict = judge_drift(case, play(case, Reference(), ()), CLAIMS)
    assert (verdict.discrepancies, verdict.judged) == ([], 5)


# All at once -------------------------------------------------------------------------------------------

LONG_LIFE = (
    *(
        Forward(X),
        Save(),
        Forward(X + 1, ("input", "weight")),
        Backward(X),
        Set("momentum", None),
        Forward(2 * X),
    ),
    *(
        Load(TWO, bias=ONE, strict=False),
        Eval(),
        Forward(X),
        Fold(X[..., :1], ONE),
        Set("eps", 1.0),
        Restore(),
    ),
    *(
        Forward(X),
        Save(),
        Train(),
        Restore(0, fresh=True),
        Forward(X),
        ResetRunningStats(),
        Forward(X),
        Restore(),
    ),
    *(
        Restore(0, ("running_var", "weight")),
        Forward(X[:1, :, :1]),
        Forward(X),
        Load(ONE),
        ResetParameters(),
    ),
)


def test_nothing_is_wrong_with_a_long_life_of_the_reference() -> None:
    case = case_of(*LONG_LIFE)
    assert check(case, Reference()) == []
    raised = [
        place
        for place, a in enumerate(play(case, Reference()).answers)
        if isinstance(a.output, Raised)
    ]
    assert [type(LONG_LIFE[place]) for place in raised] == [Forward, Load]


def test_an_answer_starts_from_the_state_that_the_layer_reported_before_it() -> None:
    answers = play(case_of(*LONG_LIFE), Reference()).answers
    for before, after in pairwise(answers):
        assert isinstance(before.after, State)
        for name, tensor in before.after.tensors().items():
            assert same_bits(tensor, after.before.tensors()[name])
