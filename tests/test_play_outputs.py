"""A strange output, or an error of a forward, becomes a discrepancy with a clear sentence."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, Layer, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Eval,
    Forward,
    Step,
)
from bn_spec.judge.judging import judge
from bn_spec.judge.observables import OBSERVABLES
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play
from tests.spoilt_backends import (
    HUGE,
    INFERENCE,
    SHAPE,
    TRAINING,
    Row,
    X,
    after_a_batch,
    assert_found,
    id_of,
    mutates,
    raises,
    returns,
    spoilt,
    with_members,
)


class Mute(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


STRANGE_OUTPUTS = (
    Row(
        "forward gives None",
        "forward",
        returns(None),
        "output",
        "forward returned None; expected a tensor",
        SHAPE,
    ),
    Row(
        "forward gives text",
        "forward",
        returns("y"),
        "output",
        "forward returned str; expected a tensor",
        SHAPE,
    ),
    Row(
        "forward gives an object",
        "forward",
        returns(object()),
        "output",
        "forward returned object; expected",
        SHAPE,
    ),
    Row(
        "forward gives a ragged list",
        "forward",
        returns([[1], [2, 3]]),
        "output",
        "forward returned list",
        SHAPE,
    ),
    Row(
        "forward gives a nested list",
        "forward",
        returns([1.0, 2.0]),
        "output",
        "shape (2,), dtype float64",
        SHAPE,
    ),
    Row(
        "forward gives a number",
        "forward",
        returns(np.array(1.0)),
        "output",
        "shape (), dtype float64",
        SHAPE,
    ),
    Row(
        "forward gives nothing",
        "forward",
        returns(np.zeros((0, 2, 2, 1))),
        "output",
        "shape (0, 2, 2, 1)",
        SHAPE,
    ),
    Row(
        "forward drops an axis",
        "forward",
        lambda f, x: f(x)[..., 0],
        "output",
        "shape (2, 2, 2), dtype",
        SHAPE,
    ),
    Row(
        "forward gives integers",
        "forward",
        lambda f, x: f(x).astype(int),
        "output",
        "dtype int64",
        SHAPE,
    ),
    Row(
        "forward gives complex numbers",
        "forward",
        lambda f, x: f(x) * 1j,
        "output",
        "forward returned ndarray",
        SHAPE,
    ),
    Row(
        "forward gives another precision",
        "forward",
        lambda f, x: f(x).astype(np.float64),
        "output_form",
        "float64",
        "an output of dtype float32",
    ),
    Row(
        "forward gives half precision",
        "forward",
        lambda f, x: f(x).astype(np.float16),
        "output",
        "",
        "output[",
    ),
    Row(
        "forward gives the extended precision of this machine",
        "forward",
        lambda f, x: f(x).astype(np.longdouble),
        "output_form",
        str(np.dtype(np.longdouble)),
        "an output of dtype float32",
    ),
    Row(
        "forward gives NaN",
        "forward",
        lambda f, x: f(x) * np.nan,
        "output",
        "nan",
        "output[0, 0, 0, 0] = ",
    ),
    Row(
        "forward gives infinities",
        "forward",
        lambda f, x: f(x) + np.inf,
        "output",
        "inf",
        "output[0, 0, 0, 0] = ",
    ),
    Row(
        "forward raises",
        "forward",
        raises(KeyError("x")),
        "error",
        "raised KeyError: 'x'",
        "no error",
    ),
    Row(
        "forward raises without words",
        "forward",
        raises(AssertionError()),
        "error",
        "raised AssertionError",
    ),
    Row("forward raises an unreadable error", "forward", raises(Mute()), "error", "raised Mute"),
    Row(
        "forward recurses",
        "forward",
        raises(RecursionError("too deep")),
        "error",
        "raised RecursionError: too deep",
    ),
    Row(
        "forward runs out of memory",
        "forward",
        raises(MemoryError()),
        "error",
        "raised MemoryError",
    ),
    Row(
        "forward ends an iteration",
        "forward",
        raises(StopIteration(1)),
        "error",
        "raised StopIteration: 1",
    ),
    Row(
        "forward is no function",
        "layer",
        lambda build, *a: with_members(build(*a), forward=3),
        "error",
        "raised TypeError",
    ),
    Row(
        "forward mutates its input", "forward", mutates, "handed", "[[[[42.]", "input stays [[[[0.]"
    ),
    Row(
        "eval forward raises",
        "forward",
        raises(KeyError("x")),
        "error",
        "raised KeyError: 'x'",
        case=INFERENCE,
    ),
    Row(
        "to_native raises",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "no error",
    ),
    Row("to_native gives None", "to_native", returns(None), "error", "raised AttributeError"),
    Row(
        "to_numpy raises",
        "to_numpy",
        raises(OSError("lost")),
        "output",
        "forward returned ndarray, which the backend's to_numpy could not convert "
        "(raised OSError: lost)",
        SHAPE,
    ),
    Row(
        "to_numpy gives a list",
        "to_numpy",
        returns([1.0]),
        "output",
        "forward returned ndarray; expected a tensor that becomes a numeric NumPy array",
        SHAPE,
    ),
)


@pytest.mark.parametrize("row", STRANGE_OUTPUTS, ids=id_of)
def test_a_strange_answer_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    assert_found(row, check(row.case, spoilt(row.member, row.how)))


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_outside_the_domain_of_the_bounds_an_output_that_is_not_finite_is_no_discrepancy(
    odd: float,
) -> None:
    assert check(HUGE, spoilt("forward", lambda f, x: f(x) * 0 + np.float32(odd))) == []


def test_no_answer_is_judged_after_an_unexpected_error() -> None:
    assert check(TRAINING, spoilt("forward", raises(KeyError("x")))) == [
        Discrepancy("error", 0, "no error", "raised KeyError: 'x'")
    ]


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (X[0], "a ValueError, since the input is 3-dimensional, not 4-dimensional (N, C, H, W)"),
        (X[:, :1], "a ValueError or RuntimeError, since the input has 1 channels, the layer 2"),
        (X[:1, :, :1], "a ValueError, since batch statistics need more than one value per channel"),
    ],
)
def test_an_input_that_should_have_been_refused_is_a_discrepancy_that_says_why(
    x: Array, reason: str
) -> None:
    accepting = spoilt("forward", lambda _, x: x.copy())
    assert check(Case(Config(2), None, (Forward(x),)), accepting) == [
        Discrepancy("refusal", 0, reason, "an output and no error")
    ]
    confused = spoilt("forward", raises(KeyError("shape")))
    assert check(Case(Config(2), None, (Forward(x),)), confused) == [
        Discrepancy("refusal", 0, reason, "raised KeyError: 'shape'")
    ]


def test_a_warning_is_no_answer() -> None:
    class Warns(Reference):
        def to_native(self, array: Array) -> Array:
            warnings.warn("something to say", RuntimeWarning, stacklevel=1)
            return array

    case = Case(Config(1), None, (Forward(np.ones((2, 1, 1, 1), np.float32)),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(case, Warns()) == []


NAN_BITS = {
    "float16": (0x7E00, 0x7C01),
    "bfloat16": (0x7FC0, 0x7F81),
    "float32": (0x7FC00000, 0x7F800001),
}
"""A quiet NaN and a signaling one."""


@pytest.mark.parametrize("observable", OBSERVABLES)
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [pytest.param(name, b, id=f"{name} {b:x}") for name, pair in NAN_BITS.items() for b in pair],
)
def test_nan_is_judged_without_a_warning(dtype: str, bits: int, observable: str) -> None:
    kind = np.dtype(dtype)
    nan = np.array([bits, bits], f"u{kind.itemsize}").view(kind)

    def answers(forward: Callable[[Array], Array], x: Array) -> Array:
        return np.broadcast_to(nan[:1], forward(x).shape)

    def recorded(record: Callable[..., Any], x: Array, wrt: tuple[str, ...]) -> tuple[Array, Any]:
        y, kept = record(x, wrt)
        return np.broadcast_to(nan[:1], y.shape), kept

    def holds(build: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = build(*arguments)
        state = partial(after_a_batch(running_mean=nan, running_var=nan), layer.state)
        return with_members(
            layer,
            forward=partial(answers, layer.forward),
            record=partial(recorded, layer.record),
            backward=partial(gradients, Gradients, layer.backward),
            double_backward=partial(gradients, DoubleGradients, layer.double_backward),
            state=state,
        )

    def gradients(wrap: Callable[..., Any], backward: Callable[..., Any], *arguments: Any) -> Any:
        return wrap(*(np.broadcast_to(nan[:1], a.shape) for a in backward(*arguments)))

    x = X.astype(kind)
    steps: tuple[Step, ...] = (
        Forward(x, DIFFERENTIABLE),
        *(Backward(dy) for dy in (x, x, x + x)),
        DoubleBackward(x, x, x[0, :, 0, 0], x[1, :, 0, 0]),
        Eval(),
        Forward(x),
    )
    case = Case(Config(2, dtype=dtype), None, steps)
    observation = play(case, spoilt("layer", holds))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(case, observation, [observable], Accuracy())
    found = bool(verdict.discrepancies)
    statistics = ("running_mean", "running_var", "running_statistics_kept")
    of_gradients = (*GRADIENTS, *DOUBLE_GRADIENTS, "gradient_linearity", "gradient_sums")
    assert found is (observable in ("output", "numbers", "centred", *statistics, *of_gradients))
