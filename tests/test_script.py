"""Cases are compared bit for bit, mirrored exactly, and refused where they make no sense."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, ConfigError, State
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.npz import decoded, encoded
from bn_spec.case.script import identical, negated
from bn_spec.case.steps import (
    DIFFERENTIABLE,
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
from tests.common import printed_and_read
from tests.unusual_cases import SPECIALS, special_case

# Python source ------------------------------------------------------------------------------------


def recorded(wrt: tuple[str, ...] = ("input",), *backwards: Step) -> tuple[Step, ...]:
    """A forward of two values that is recorded, and what is asked of it."""
    return (Forward(ONES, wrt), *backwards)


ONES = np.ones((2, 1, 1, 1), np.float32)
ONE = np.ones(1, np.float32)


def altered(**changes: Any) -> Case:
    arguments: dict[str, Any] = {
        "config": Config(1),
        "state": State(weight=np.ones(1)),
        "steps": (Train(),),
    }
    return Case(**arguments | changes)


@pytest.mark.parametrize(
    "other",
    [
        altered(config=Config(1, eps=1.0)),
        altered(state=None),
        altered(state=State(bias=np.ones(1))),
        altered(state=State(weight=np.ones(1, np.float32))),
        altered(state=State(weight=np.full(1, np.nextafter(1, 2)))),
        altered(steps=()),
        altered(steps=(Eval(),)),
        altered(steps=(Train(), *recorded())),
        altered(steps=recorded()),
    ],
)
def test_cases_that_differ_anywhere_are_not_identical(other: Case) -> None:
    assert identical(altered(), altered())
    assert not identical(altered(), other)


@pytest.mark.parametrize(
    "others",
    [
        (recorded(), recorded(("weight",)), recorded(("input", "weight")), recorded(())),
        (recorded(("input",), Backward(ONES)), recorded(("input",), Backward(-ONES)), recorded()),
        (recorded(("input",), Backward(ONES)), recorded(("input",), Backward(ONES, 0))),
        (
            recorded(("input",), DoubleBackward(ONES, ONES)),
            recorded(("input",), DoubleBackward(ONES, ONES, ONES[0, :, 0, 0])),
            recorded(("input",), DoubleBackward(ONES, ONES, bias=ONES[0, :, 0, 0])),
            recorded(("input",), DoubleBackward(ONES, -ONES)),
            recorded(("input",), DoubleBackward(-ONES, ONES)),
        ),
        (
            *(
                (Save(), Save(), step)
                for step in (Restore(), Restore(0), Restore(1), Restore(fresh=True))
            ),
            *(
                (Save(), Save(), Restore(only=only))
                for only in (("bias",), ("weight",), ("weight", "bias"))
            ),
        ),
        (
            *(
                (Load(**{name: ONE}, strict=strict),)
                for name in ("weight", "bias")
                for strict in (True, False)
            ),
            (Load(ONE, ONE),),
            (Load(-ONE),),
            (Load(ONE.astype(np.float64)),),
        ),
        tuple((Set(name, value),) for name in ("eps", "momentum") for value in (0.5, 0.25)),
        ((Set("momentum", None),), (Set("momentum", 0),)),
        ((Fold(ONES[:1]),), (Fold(ONES[:1], ONE),), (Fold(ONES[:1], -ONE),), (Fold(-ONES[:1]),)),
    ],
    ids=[
        "wrt",
        "dy",
        "of",
        "cotangents",
        "checkpoint",
        "tensors",
        "attribute",
        "no momentum",
        "convolution",
    ],
)
def test_cases_that_differ_in_what_they_ask_are_not_identical(
    others: tuple[tuple[Step, ...], ...],
) -> None:
    drawn = [Case(Config(1), None, steps) for steps in others]
    for i, first in enumerate(drawn):
        assert [identical(first, other) for other in drawn] == [i == j for j in range(len(drawn))]


def test_cases_that_differ_in_a_stride_or_in_the_sign_of_zero_are_not_identical() -> None:
    x = np.zeros((2, 2, 2, 2))

    def of(x: Array) -> Case:
        return Case(Config(2), None, (Forward(x),))

    assert identical(of(x), of(x.copy()))
    assert not identical(of(x), of(PLACED["channels_last"](x)))
    assert not identical(of(x), of(-x))


# What makes no sense ------------------------------------------------------------------------------

X = np.ones((3, 2, 2, 1), np.float32)
ASKED = Forward(X, DIFFERENTIABLE)
NO_AFFINE = Config(2, affine=False)

SENSELESS: dict[str, tuple[tuple[Step, ...], str]] = {
    "a tensor that no layer has": (
        (Train(), Forward(X, ("input", "wieght"))),
        "step 2: tensor that requires a gradient 'wieght' is not known; known: bias, input, weight;"
        " did you mean 'weight'?",
    ),
    "a buffer": (
        (Forward(X, ("running_mean",)),),
        "step 1: tensor that requires a gradient 'running_mean' is not known; "
        "known: bias, input, weight",
    ),
    "a backward before any forward": (
        (Backward(X), ASKED),
        "step 1: forward -1 does not exist; the case has 0 Forward steps before it",
    ),
    "a backward of a later forward": (
        (ASKED, Backward(X, 1), ASKED),
        "step 2: forward 1 does not exist; the case has 1 Forward step before it",
    ),
    "a backward of one forward too far back": (
        (ASKED, Eval(), ASKED, DoubleBackward(X, X, of=-3)),
        "step 4: forward -3 does not exist; the case has 2 Forward steps before it",
    ),
    "a backward of a forward that is not recorded": (
        (Forward(X), Backward(X)),
        "step 2: forward -1 requires no gradient;"
        " write it as Forward(x, wrt=('input', 'weight', 'bias'))",
    ),
    "a backward of one of several that is not recorded": (
        (ASKED, Forward(X), ASKED, Backward(X, 1)),
        "step 4: forward 1 requires no gradient",
    ),
    "a double backward of a forward that is not recorded": (
        (Forward(X), DoubleBackward(X, X)),
        "step 2: forward -1 requires no gradient",
    ),
    "a dy of another shape in a double backward": (
        (ASKED, DoubleBackward(X[:2], X)),
        "step 2: dy has shape (2, 2, 2, 1); allowed: (3, 2, 2, 1)",
    ),
    "a dy of the shape of another forward": (
        (ASKED, Forward(X[:2], ("input",)), DoubleBackward(X, X[:2])),
        "step 3: dy has shape (3, 2, 2, 1); allowed: (2, 2, 2, 1)",
    ),
    "a dy of another rank": (
        (ASKED, DoubleBackward(X[0], X)),
        "step 2: dy has shape (2, 2, 1); allowed: (3, 2, 2, 1)",
    ),
    "a cotangent of dx of another shape": (
        (ASKED, DoubleBackward(X, X[..., 0])),
        "step 2: input has shape (3, 2, 2); allowed: (3, 2, 2, 1)",
    ),
    "a cotangent of dweight of another shape": (
        (ASKED, DoubleBackward(X, X, X[:, 0, 0, 0])),
        "step 2: weight has shape (3,); allowed: (2,)",
    ),
    "a cotangent of dbias of another shape": (
        (ASKED, DoubleBackward(X, X, bias=X[:1, :1, 0, 0])),
        "step 2: bias has shape (1, 1); allowed: (2,)",
    ),
    "a checkpoint before any is saved": (
        (Restore(), Save()),
        "step 1: checkpoint -1 does not exist; the case has 0 Save steps before it",
    ),
    "a later checkpoint": (
        (Save(), Restore(1), Save()),
        "step 2: checkpoint 1 does not exist; the case has 1 Save step before it",
    ),
    "one checkpoint too far back": (
        (Save(), Forward(X), Save(), Restore(-3, fresh=True)),
        "step 4: checkpoint -3 does not exist; the case has 2 Save steps before it",
    ),
    "a tensor that no checkpoint has": (
        (Save(), Restore(only=("bias", "wieght"))),
        "step 2: tensor of a checkpoint 'wieght' is not known; "
        "known: bias, num_batches_tracked, "
        "running_mean, running_var, weight; did you mean 'weight'?",
    ),
    "an attribute that cannot be set": (
        (Train(), Set("num_features", 3)),
        "step 2: attribute of a live layer 'num_features' is not known; known: eps, momentum",
    ),
    "an eps of zero": ((Set("eps", 0.0),), "step 1: eps is 0.0; allowed: a positive number"),
    "no eps": ((Set("eps", None),), "step 1: eps is None; allowed: a positive number"),
    "an eps that is no number": (
        (Set("eps", float("nan")),),
        "step 1: eps is nan; allowed: a positive number",
    ),
    "a momentum above one": (
        (Set("momentum", 1), Set("momentum", 1.5)),
        "step 2: momentum is 1.5; allowed: None or a number from 0 to 1",
    ),
    "a convolution of other channels": (
        (Eval(), Fold(X)),
        "step 2: the convolution's weight has shape (3, 2, 2, 1); allowed: (2, I, h, w)",
    ),
    "a convolution of another rank": (
        (Fold(X[:2, 0]),),
        "step 1: the convolution's weight has shape (2, 2, 1); allowed: (2, I, h, w)",
    ),
    "a convolution whose bias has other channels": (
        (Fold(X[:2], X[:, 0, 0, 0]),),
        "step 1: the convolution's bias has shape (3,); allowed: (2,)",
    ),
    "a convolution whose bias is a column": (
        (Fold(X[:2], X[:2, 0, 0]),),
        "step 1: the convolution's bias has shape (2, 1); allowed: (2,)",
    ),
}


@pytest.mark.parametrize(("steps", "sentence"), SENSELESS.values(), ids=SENSELESS)
def test_a_case_that_makes_no_sense_is_refused_with_the_step_and_what_is_allowed(
    steps: tuple[Step, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Case(Config(2), None, steps)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_layer_without_parameters_has_no_gradients_of_them(name: str) -> None:
    with pytest.raises(ConfigError, match=f"step 1: .* {name!r} is not known; known: input$"):
        Case(NO_AFFINE, None, (Forward(X, ("input", name)),))
    assert Case(NO_AFFINE, None, (Forward(X, ("input",)), Backward(X))).steps


@pytest.mark.parametrize("of", [-2, -1, 0, 1])
def test_forwards_are_counted_from_either_end_and_backwards_are_none_of_them(of: int) -> None:
    case = Case(Config(2), None, (ASKED, Backward(X), Eval(), ASKED, Backward(X), Backward(X, of)))
    assert len(list(case.forwards())) == 2


@pytest.mark.parametrize(
    "dy", [X[:2], X[0], np.zeros((3, 2, 2, 2), np.float32)], ids=["samples", "rank", "width"]
)
def test_a_dy_of_another_shape_makes_sense_since_a_layer_must_refuse_it(dy: Array) -> None:
    case = Case(Config(2), None, (ASKED, Backward(dy)))
    assert identical(printed_and_read(case), case)
    assert identical(decoded(encoded(case))[0], case)


@pytest.mark.parametrize("of", [-2, -1, 0, 1])
def test_checkpoints_are_counted_from_either_end_and_loads_are_none_of_them(of: int) -> None:
    assert Case(Config(2), None, (Save(), Restore(), Load(), Save(), Restore(), Restore(of))).steps


@pytest.mark.parametrize("value", [None, 0, 0.0, 1, 1.0, 0.5])
def test_every_momentum_with_which_a_layer_is_built_can_be_set(value: float | None) -> None:
    assert Case(Config(2, momentum=value), None, (Set("momentum", value),)).steps


# The opposite case --------------------------------------------------------------------------------


def test_the_opposite_case_has_the_numbers_of_forwards_and_backwards_with_other_signs_and_all_else_as_it_was() -> (  # noqa: E501
    None
):
    others = (Eval(), Save(), Restore(), Load(ONE), Set("eps", 0.5), Fold(X[:2]))
    case = Case(Config(2), State(), (Forward(X, ("input",)), Forward(-X), Backward(X, 0), *others))
    opposite = negated(case)
    assert (opposite.config, opposite.state, opposite.steps[3:]) == (
        case.config,
        case.state,
        others,
    )
    assert identical(
        replace(opposite, steps=opposite.steps[:3]),
        Case(Config(2), State(), (Forward(-X, ("input",)), Forward(X), Backward(-X, 0))),
    )


@pytest.mark.parametrize("dtype", SPECIALS)
def test_the_opposite_of_the_opposite_is_the_case_itself_zeros_infinities_and_nan_included(
    dtype: str,
) -> None:
    case = special_case(dtype)
    assert identical(negated(negated(case)), case)
    assert not identical(negated(case), case)
