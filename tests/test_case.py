"""Cases survive being printed and being saved, bit for bit; what is no case file is refused in a sentence."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, ConfigError, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.npz import decoded, encoded
from bn_spec.case.script import identical, negated
from bn_spec.case.source import LONGEST_LISTING, source
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
    config_after,
    training_after,
)
from bn_spec.strategies import ABSENT, PARAMETER_STYLES, RUNNING, WORDS, cases, histories, shapes

from .common import examples, printed_and_read

SUBSETS = tuple(subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size))
HISTORY = histories(*sorted(WORDS), before=("record",))


def drawn(shape: Any = shapes("tiny", "different")) -> st.SearchStrategy[Case]:  # noqa: B008 - immutable
    """Cases of every dtype, of any history and layout, with statistics that need not be finite."""
    return st.sampled_from(tuple(DTYPES)).flatmap(
        lambda dtype: cases(
            dtype=dtype,
            history=HISTORY,
            shape=shape,
            layouts=tuple(PLACED),
            wrt=SUBSETS,
            parameters=PARAMETER_STYLES,
            running=(*RUNNING, ABSENT),
        )
    )


def bits(dtype: str, *patterns: int) -> Array:
    """Return the floats of these bit patterns."""
    kind = np.dtype(dtype)
    return np.array(patterns, f"u{kind.itemsize}").view(kind)


SPECIALS = {
    "float16": bits("float16", 0x7E00, 0x7C00, 0xFC00, 0x8000, 0, 1, 0x8001, 0x3FF, 0x7BFF),
    "bfloat16": bits("bfloat16", 0x7FC0, 0x7F80, 0xFF80, 0x8000, 0, 1, 0x8001, 0x7F, 0x7F7F),
    "float32": bits(
        "float32",
        0x7FC00000,
        0x7F800000,
        0xFF800000,
        0x80000000,
        0,
        1,
        0x80000001,
        0x7FFFFF,
        0x7F7FFFFF,
    ),
    "float64": bits(
        "float64",
        0x7FF8 << 48,
        0x7FF0 << 48,
        0xFFF0 << 48,
        0x8000 << 48,
        0,
        1,
        0x8000 << 48 | 1,
        (1 << 52) - 1,
        (0x7FF << 52) - 1,
    ),
}
"""NaN, both infinities, −0, 0, the smallest subnormals, the largest one, the largest float."""


def special_case(dtype: str, repeats: int = 1) -> Case:
    numbers = np.tile(SPECIALS[dtype], repeats)
    weight, bias, mean, var = (np.roll(SPECIALS[dtype], shift) for shift in range(4))
    state = State(weight, bias, mean, var, np.array(-1))
    return Case(Config(9, dtype=dtype), state, (Forward(numbers.reshape(repeats, 9, 1, 1)),))


EVERY_STEP = Case(
    Config(1, eps=1 / 3, momentum=None, affine=False, dtype="float64"),
    None,
    (
        Eval(),
        Train(),
        ResetRunningStats(),
        ResetParameters(),
        Forward(np.arange(6.0)[::2].reshape(3, 1, 1, 1)),
    ),
)
HALVES = np.arange(12, dtype=np.uint16).view(np.dtype("bfloat16")).reshape(3, 2, 2, 1)
GRADIENT_STEPS = Case(
    Config(2, dtype="bfloat16"),
    None,
    (
        Forward(PLACED["channels_last"](HALVES), DIFFERENTIABLE),
        Forward(PLACED["split"](HALVES[:1]), ("bias", "input")),
        Forward(HALVES),
        Backward(PLACED["cropped"](HALVES), 0),
        Backward(np.broadcast_to(HALVES[1, 1, 1], (1, 2, 2, 1)), -2),
        DoubleBackward(HALVES, PLACED["sliced"](HALVES), HALVES[0, :, 0, 0], of=0),
        DoubleBackward(PLACED["permuted"](HALVES), HALVES, bias=HALVES[1, :, 1, 0], of=-3),
    ),
)
NUMBERS = np.arange(12, dtype=np.float32)
STATE_STEPS = Case(
    Config(2, dtype="mixed_bfloat16"),
    None,
    (
        Save(),
        Forward(HALVES),
        Save(),
        Restore(),
        Restore(0, ("bias", "running_var")),
        Restore(-2, fresh=True),
        Load(NUMBERS[:2], NUMBERS[2:4], NUMBERS[4:6], NUMBERS[6:8], np.array(2**53 + 1)),
        Load(NUMBERS[::3][:2], running_var=np.broadcast_to(NUMBERS[3], 2), strict=False),
        Load(strict=False),
        Set("eps", 1 / 3),
        Set("momentum", None),
        Set("momentum", 1),
        Fold(PLACED["cropped"](HALVES).swapaxes(0, 1)),
        Fold(HALVES[:2, :, ::2], HALVES[1, :, 1, 0]),
    ),
)
EXPANDED = Case(Config(2), None, (Forward(np.broadcast_to(np.float32(0.1), (2, 2, 3, 3))),))
EMPTY = Case(Config(2), None, (Forward(np.zeros((0, 2, 3, 3), np.float32)),))
SCALAR = Case(Config(2), None, (Forward(np.array(1.5, np.float32)),))
LARGE = Case(
    Config(2), None, (Forward(PLACED["sliced"](np.ones((LONGEST_LISTING, 2, 1, 1), np.float32))),)
)

CASES = [
    pytest.param(EVERY_STEP, id="modes, resets and a forward"),
    pytest.param(GRADIENT_STEPS, id="every step of gradients"),
    pytest.param(STATE_STEPS, id="every step of state"),
    pytest.param(EXPANDED, id="stride 0"),
    pytest.param(EMPTY, id="no elements"),
    pytest.param(SCALAR, id="no dimensions"),
    pytest.param(LARGE, id="too long to list"),
    pytest.param(Case(Config(1)), id="nothing but a config"),
    *(pytest.param(special_case(dtype), id=f"special {dtype}") for dtype in SPECIALS),
    *(pytest.param(special_case(dtype, 20), id=f"many special {dtype}") for dtype in SPECIALS),
]


# Python source -----------------------------------------------------------------------------------------


@examples(150)
@given(drawn())
def test_a_drawn_case_is_rebuilt_identically_from_its_source(case: Case) -> None:
    assert identical(printed_and_read(case), case)


def kinds(*cases: Case) -> set[type[Step]]:
    return {type(step) for case in cases for step in case.steps}


def test_between_them_the_unusual_cases_have_every_step_and_so_have_those_that_are_drawn() -> None:
    assert kinds(EVERY_STEP, GRADIENT_STEPS, STATE_STEPS) == set(STEPS.values())
    met: set[type[Step]] = set()

    @examples(2)
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        for word in WORDS:  # whatever chance picks, each after what it may refer to
            case = data.draw(
                cases(history=("record", word, "save", "eval", word), shape=shapes("tiny"))
            )
            met.update(kinds(case))

    collect()
    assert met == set(STEPS.values())


@pytest.mark.parametrize("case", CASES)
def test_an_unusual_case_is_rebuilt_identically_from_its_source(case: Case) -> None:
    assert identical(printed_and_read(case), case)


def test_the_source_is_what_a_person_would_write() -> None:
    x = np.array([0, -0.0, 0.1, np.nan, -np.inf, 3], np.float32).reshape(3, 2, 1, 1)
    case = Case(Config(2, eps=1e-3), State(weight=np.ones(2, np.float32)), (Eval(), Forward(x)))
    assert (
        source(case)
        == repr(case)
        == (
            "Case(\n"
            "    config=Config(2, eps=0.001),\n"
            "    state=State(weight=array([1, 1], (2,))),\n"
            "    steps=(Eval(), Forward(array([0, -0.0, 0.1, float('nan'), float('-inf'), 3], (3, 2, 1, 1))),),\n"
            ")"
        )
    )


def test_unusual_strides_and_dtypes_are_part_of_the_source() -> None:
    assert "array([0, 1, 2, 3, 4], (3, 1, 1, 1), dtype='float64', strides=(2, 1, 1, 1))" in source(
        Case(Config(1, dtype="float64"), None, (Forward(np.arange(6.0).reshape(6, 1, 1, 1)[::2]),))
    )


def test_what_is_left_out_of_a_gradient_step_is_left_out_of_the_source() -> None:
    x = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)
    steps = (
        Forward(x, ("input",)),
        Backward(x),
        Backward(x, 0),
        DoubleBackward(x, x, bias=x[0, :, 0, 0]),
    )
    two = "array([0, 1], (2, 1, 1, 1))"
    assert source(Case(Config(1), None, steps)) == (
        "Case(\n"
        "    config=Config(1),\n"
        f"    steps=(Forward({two}, wrt=('input',)), Backward({two}), Backward({two}, of=0),"
        f" DoubleBackward({two}, input={two}, bias=array([0], (1,))),),\n"
        ")"
    )


def test_what_is_left_out_of_a_step_of_state_is_left_out_of_the_source() -> None:
    one, two = np.ones(1, np.float32), np.full((1, 1, 1, 1), 2, np.float32)
    steps = (
        *(Save(), Restore(), Restore(0, ("bias",)), Restore(fresh=True)),
        *(Load(one, num_batches_tracked=np.array(5)), Load(bias=one, strict=False)),
        *(Set("momentum", None), Set("eps", 0.5), Fold(two), Fold(two, one)),
    )
    assert source(Case(Config(1), None, steps)) == (
        "Case(\n"
        "    config=Config(1),\n"
        "    steps=(Save(), Restore(), Restore(of=0, only=('bias',)), Restore(fresh=True),"
        " Load(array([1], (1,)), num_batches_tracked=array(5, dtype='int64')),"
        " Load(bias=array([1], (1,)), strict=False), Set(name='momentum', value=None), Set(name='eps', value=0.5),"
        " Fold(array([2], (1, 1, 1, 1))), Fold(array([2], (1, 1, 1, 1)), bias=array([1], (1,))),),\n"
        ")"
    )


@pytest.mark.parametrize("count", [-(2**63), -1, 0, 2**53 - 1, 2**53 + 1, 2**62 + 1, 2**63 - 1])
def test_a_counter_of_any_size_is_rebuilt_from_its_source(count: int) -> None:
    case = Case(Config(1), State(num_batches_tracked=np.array(count)))
    assert identical(printed_and_read(case), case)
    assert f"array({count}, dtype='int64')" in source(case)


def test_a_dtype_that_numpy_does_not_know_is_printed_by_its_name() -> None:
    x = np.array([0.5, -0.0, 257, np.nan], np.dtype("bfloat16")).reshape(4, 1, 1, 1)
    printed = source(Case(Config(1, dtype="mixed_bfloat16"), None, (Forward(x),)))
    assert "config=Config(1, dtype='mixed_bfloat16')" in printed
    assert "array([0.5, -0.0, 256, float('nan')], (4, 1, 1, 1), dtype='bfloat16')" in printed


def every_half(dtype: str) -> Array:
    """Every number of 16 bits, NaNs of every payload included."""
    return np.arange(2**16, dtype=np.uint16).view(np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_precision_number_is_rebuilt_from_its_source(dtype: str) -> None:
    every = every_half(dtype)
    numbers = every[~np.isnan(every.astype(np.float32))]
    listed = [
        Forward(part.reshape(-1, 1, 1, 1))
        for part in np.array_split(numbers, 1 + numbers.size // LONGEST_LISTING)
    ]
    encoded = Forward(every.reshape(-1, 1, 1, 1))
    case = Case(Config(1, dtype=dtype), None, (*listed, encoded))
    assert identical(printed_and_read(case), case)


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


# What makes no sense -----------------------------------------------------------------------------------

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
        "step 1: tensor that requires a gradient 'running_mean' is not known; known: bias, input, weight",
    ),
    "a backward before any forward": (
        (Backward(X), ASKED),
        "step 1: a backward of forward -1; the case has 0 until then",
    ),
    "a backward of a later forward": (
        (ASKED, Backward(X, 1), ASKED),
        "step 2: a backward of forward 1; the case has 1 until then",
    ),
    "a backward of one forward too far back": (
        (ASKED, Eval(), ASKED, DoubleBackward(X, X, of=-3)),
        "step 4: a backward of forward -3; the case has 2 until then",
    ),
    "a backward of a forward that is not recorded": (
        (Forward(X), Backward(X)),
        "step 2: a backward of forward -1, in which nothing requires a gradient; give it"
        " wrt=('input', 'weight', 'bias')",
    ),
    "a backward of one of several that is not recorded": (
        (ASKED, Forward(X), ASKED, Backward(X, 1)),
        "step 4: a backward of forward 1, in which nothing requires a gradient",
    ),
    "a double backward of a forward that is not recorded": (
        (Forward(X), DoubleBackward(X, X)),
        "step 2: a backward of forward -1, in which nothing requires a gradient",
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
        "step 1: checkpoint -1; the case has 0 until then",
    ),
    "a later checkpoint": (
        (Save(), Restore(1), Save()),
        "step 2: checkpoint 1; the case has 1 until then",
    ),
    "one checkpoint too far back": (
        (Save(), Forward(X), Save(), Restore(-3, fresh=True)),
        "step 4: checkpoint -3; the case has 2 until then",
    ),
    "a tensor that no checkpoint has": (
        (Save(), Restore(only=("bias", "wieght"))),
        "step 2: tensor of a checkpoint 'wieght' is not known; known: bias, num_batches_tracked, running_mean,"
        " running_var, weight; did you mean 'weight'?",
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
        "step 2: a convolution of weight (3, 2, 2, 1); allowed: (2, I, h, w)",
    ),
    "a convolution of another rank": (
        (Fold(X[:2, 0]),),
        "step 1: a convolution of weight (2, 2, 1); allowed: (2, I, h, w)",
    ),
    "a convolution whose bias has other channels": (
        (Fold(X[:2], X[:, 0, 0, 0]),),
        "step 1: a convolution of bias (3,); allowed: (2,)",
    ),
    "a convolution whose bias is a column": (
        (Fold(X[:2], X[:2, 0, 0]),),
        "step 1: a convolution of bias (2, 1); allowed: (2,)",
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


# What a step makes of a layer --------------------------------------------------------------------------

KEEPING = [
    *(
        Train(),
        Eval(),
        ASKED,
        Backward(X),
        DoubleBackward(X, X),
        ResetRunningStats(),
        ResetParameters(),
    ),
    *(Save(), Restore(), Restore(fresh=True), Load(), Fold(X[:2])),
]
"""Steps that leave the config as it is: all but Set."""


def name_of(step: Step) -> str:
    return f"{type(step).__name__}{' into a new layer' if step == Restore(fresh=True) else ''}"


@pytest.mark.parametrize("step", KEEPING, ids=name_of)
def test_no_step_but_set_changes_the_config(step: Step) -> None:
    config = Config(2, eps=0.5, momentum=None, affine=False)
    assert config_after(config, step) == config


def test_those_steps_and_set_are_all_that_there_are() -> None:
    assert {*map(type, KEEPING), Set} == set(STEPS.values())


def test_set_changes_the_attribute_that_it_names_and_no_other() -> None:
    config = Config(2, affine=False, dtype="float64")
    assert config_after(config, Set("eps", 0.5)) == Config(
        2, eps=0.5, affine=False, dtype="float64"
    )
    assert config_after(config, Set("momentum", None)) == Config(
        2, momentum=None, affine=False, dtype="float64"
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step", [*KEEPING, Set("eps", 0.5)], ids=name_of)
def test_the_mode_is_changed_by_train_by_eval_and_by_a_new_layer(
    step: Step, training: bool
) -> None:
    new = isinstance(step, Train) or step == Restore(fresh=True)
    assert training_after(step, training) is (new or (training and not isinstance(step, Eval)))


# The opposite case -------------------------------------------------------------------------------------


def test_the_opposite_case_has_the_numbers_of_forwards_and_backwards_with_other_signs_and_all_else_as_it_was() -> (
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
