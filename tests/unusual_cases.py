"""Cases that are hard to write down: special values, odd strides, every kind of step."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from bn_spec import Case, Config, State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.packing import LONGEST_LISTING
from bn_spec.case.steps import (
    DIFFERENTIABLE,
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
    Train,
)
from bn_spec.strategies import ABSENT, PARAMETER_STYLES, RUNNING, WORDS, cases, histories, shapes

SUBSETS = tuple(subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size))

HISTORY = histories(*sorted(WORDS), before=("forward with gradients",))


def any_case(shape: Any = shapes("tiny", "different")) -> st.SearchStrategy[Case]:  # noqa: B008 - immutable
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


def every_half(dtype: str) -> Array:
    """Every number of 16 bits, NaNs of every payload included."""
    return np.arange(2**16, dtype=np.uint16).view(np.dtype(dtype))
