"""Repetition and drift are judged: the same bits again, and no slow divergence."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from bn_spec import Backend, Case, Config, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import Backward, Eval, Fold, Forward, Save, Step
from bn_spec.judge.judging import judge_drift, judge_repetition
from bn_spec.judge.verdict import Discrepancy
from bn_spec.play.observation import CONSTRUCTION
from bn_spec.play.player import play
from tests.judged_histories import CLAIMS, ONE, STATE, STATISTICS, X, case_of, layer_of, places
from tests.spoilt_backends import changed, raises

# Repetition ---------------------------------------------------------------------------------------


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
    """Layers whose state cannot be read after a number of batches."""
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


# Drift --------------------------------------------------------------------------------------------


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
