"""Cases survive being printed, bit for bit, as Python that a person would write."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, Config, State
from bn_spec.case.packing import LONGEST_LISTING
from bn_spec.case.script import identical, source
from bn_spec.case.steps import (
    STEPS,
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
)
from bn_spec.strategies import WORDS, cases, shapes
from tests.common import examples, printed_and_read
from tests.unusual_cases import CASES, EVERY_STEP, GRADIENT_STEPS, STATE_STEPS, any_case, every_half


@examples(150)
@given(any_case())
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
                cases(
                    history=("forward with gradients", word, "save", "eval", word),
                    shape=shapes("tiny"),
                )
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
            "    steps=(Eval(), "
            "Forward(array([0, -0.0, 0.1, float('nan'), float('-inf'), 3], (3, 2, 1, 1))),),\n"
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
        " Load(bias=array([1], (1,)), strict=False),"
        " Set(name='momentum', value=None), Set(name='eps', value=0.5),"
        " Fold(array([2], (1, 1, 1, 1))),"
        " Fold(array([2], (1, 1, 1, 1)), bias=array([1], (1,))),),\n"
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
