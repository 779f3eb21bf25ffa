"""Cases survive being printed and being saved, bit for bit; what is no case file is refused in a sentence."""

import io
import json
import pickle
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, CaseFileError, Config, ConfigError, State
from bn_spec.case import (
    DIFFERENTIABLE,
    FORMAT,
    LONGEST_LISTING,
    STEPS,
    VERSION,
    Backward,
    DoubleBackward,
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Step,
    Train,
    identical,
    load,
    save,
    source,
)
from bn_spec.dtypes import DTYPES, Array
from bn_spec.strategies import ABSENT, LAYOUT, PARAMETER_STYLES, RUNNING, cases, shapes
from bn_spec.strategies.cases import WORDS

from .common import examples, printed_and_read


def told_in_order(words: list[str]) -> tuple[str, ...]:
    """Leave out the words for which the history so far gives no occasion: backwards of what was not recorded."""
    history = ["record"]
    recorded = True
    for word in words:
        summed = all(step in ("backward", "backward of zeros", "backward expanded") for step in history[-2:])
        if "backward" in word and not recorded and word != "backward of the first":
            continue
        if word == "backward of the sum" and not summed:
            continue
        if word in ("forward", "alone", "record", "record again"):
            recorded = word.startswith("record")
        history.append(word)
    return tuple(history)


SUBSETS = tuple(subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size))
HISTORIES = st.lists(st.sampled_from(sorted(WORDS)), max_size=6).map(told_in_order)


def drawn(shape: Any = shapes("tiny", "different")) -> st.SearchStrategy[Case]:  # noqa: B008 - immutable
    """Cases of every dtype, of any history and layout, with statistics that need not be finite."""
    return st.tuples(st.sampled_from(tuple(DTYPES)), HISTORIES).flatmap(
        lambda pair: cases(
            dtype=pair[0],
            history=pair[1],
            shape=shape,
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
        "float32", 0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0, 1, 0x80000001, 0x7FFFFF, 0x7F7FFFFF
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
    (Eval(), Train(), ResetRunningStats(), ResetParameters(), Forward(np.arange(6.0)[::2].reshape(3, 1, 1, 1))),
)
HALVES = np.arange(12, dtype=np.uint16).view(np.dtype("bfloat16")).reshape(3, 2, 2, 1)
GRADIENT_STEPS = Case(
    Config(2, dtype="bfloat16"),
    None,
    (
        Forward(LAYOUT["channels_last"](HALVES), DIFFERENTIABLE),
        Forward(LAYOUT["split"](HALVES[:1]), ("bias", "input")),
        Forward(HALVES),
        Backward(LAYOUT["cropped"](HALVES), 0),
        Backward(np.broadcast_to(HALVES[1, 1, 1], (1, 2, 2, 1)), -2),
        DoubleBackward(HALVES, LAYOUT["sliced"](HALVES), HALVES[0, :, 0, 0], of=0),
        DoubleBackward(LAYOUT["permuted"](HALVES), HALVES, bias=HALVES[1, :, 1, 0], of=-3),
    ),
)
EXPANDED = Case(Config(2), None, (Forward(np.broadcast_to(np.float32(0.1), (2, 2, 3, 3))),))
EMPTY = Case(Config(2), None, (Forward(np.zeros((0, 2, 3, 3), np.float32)),))
SCALAR = Case(Config(2), None, (Forward(np.array(1.5, np.float32)),))
LARGE = Case(Config(2), None, (Forward(LAYOUT["sliced"](np.ones((LONGEST_LISTING, 2, 1, 1), np.float32))),))

CASES = [
    pytest.param(EVERY_STEP, id="every step without a gradient"),
    pytest.param(GRADIENT_STEPS, id="every step of gradients"),
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


def test_between_them_the_cases_have_every_step_and_every_word_is_drawn() -> None:
    assert {type(step) for case in (EVERY_STEP, GRADIENT_STEPS) for step in case.steps} == set(STEPS.values())
    met: set[str] = set()

    @examples(200)
    @given(HISTORIES)
    def collect(history: tuple[str, ...]) -> None:
        met.update(history)

    collect()
    assert met == WORDS.keys()


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
    steps = (Forward(x, ("input",)), Backward(x), Backward(x, 0), DoubleBackward(x, x, bias=x[0, :, 0, 0]))
    two = "array([0, 1], (2, 1, 1, 1))"
    assert source(Case(Config(1), None, steps)) == (
        "Case(\n"
        "    config=Config(1),\n"
        f"    steps=(Forward({two}, wrt=('input',)), Backward({two}), Backward({two}, of=0),"
        f" DoubleBackward({two}, input={two}, bias=array([0], (1,))),),\n"
        ")"
    )


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
        Forward(part.reshape(-1, 1, 1, 1)) for part in np.array_split(numbers, 1 + numbers.size // LONGEST_LISTING)
    ]
    encoded = Forward(every.reshape(-1, 1, 1, 1))
    case = Case(Config(1, dtype=dtype), None, (*listed, encoded))
    assert identical(printed_and_read(case), case)


def recorded(wrt: tuple[str, ...] = ("input",), *backwards: Step) -> tuple[Step, ...]:
    """A forward of two values that is recorded, and what is asked of it."""
    return (Forward(ONES, wrt), *backwards)


ONES = np.ones((2, 1, 1, 1), np.float32)


def altered(**changes: Any) -> Case:
    arguments: dict[str, Any] = {"config": Config(1), "state": State(weight=np.ones(1)), "steps": (Train(),)}
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
    ],
    ids=["wrt", "dy", "of", "cotangents"],
)
def test_cases_that_differ_in_what_they_ask_of_gradients_are_not_identical(
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
    assert not identical(of(x), of(LAYOUT["channels_last"](x)))
    assert not identical(of(x), of(-x))


# Files -------------------------------------------------------------------------------------------------


def test_a_drawn_case_is_loaded_identically_from_its_file(tmp_path: Path) -> None:
    @examples(100)
    @given(drawn(shapes("tiny", "different", "small")))
    def judge(case: Case) -> None:
        save(case, tmp_path / "case.npz")
        assert identical(load(tmp_path / "case.npz"), case)

    judge()
    assert [file.name for file in tmp_path.iterdir()] == ["case.npz"]


@pytest.mark.parametrize("case", CASES)
def test_an_unusual_case_is_loaded_identically_from_its_file(case: Case, tmp_path: Path) -> None:
    save(case, tmp_path / "case")
    assert identical(load(str(tmp_path / "case")), case)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_precision_number_is_loaded_from_its_file_with_its_strides(dtype: str, tmp_path: Path) -> None:
    every = every_half(dtype)
    weight, bias, mean, var = every.reshape(4, -1)
    state = State(weight, bias, mean, var, np.array(0))
    laid = LAYOUT["cropped"](every.reshape(2, 2**13, 2, 2))
    case = Case(Config(2**14, dtype=dtype), state, (Forward(laid),))
    save(case, tmp_path / "case.npz")
    loaded = load(tmp_path / "case.npz")
    assert identical(loaded, case)
    assert next(loaded.forwards()).dtype == np.dtype(dtype)


def test_cases_of_one_bit_pattern_in_two_formats_are_not_identical() -> None:
    ones = np.ones((2, 1, 1, 1), np.float16)
    half, brain = (Case(Config(1), None, (Forward(x),)) for x in (ones, ones.view(np.dtype("bfloat16"))))
    assert not identical(half, brain)


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_saving_that_fails_midway_leaves_the_old_file_and_no_other(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: io.RawIOBase, **_: Any) -> NoReturn:
        file.write(b"PK half a file")
        raise error

    path = tmp_path / "case.npz"
    save(EVERY_STEP, path)
    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(type(error)):
        save(LARGE, path)
    assert [file.name for file in tmp_path.iterdir()] == ["case.npz"]
    assert identical(load(path), EVERY_STEP)


def test_a_file_that_does_not_exist_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        load(tmp_path / "nowhere.npz")


def header(**changes: Any) -> dict[str, Any]:
    """Return a sound header of a case with one input of shape (2, 1, 1, 1)."""
    script = {
        "config": {"num_features": 1},
        "state": None,
        "steps": [{"step": "Forward", "x": {"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]}}],
    }
    return {"format": FORMAT, "version": VERSION, "case": script | changes}


def forward(**entry: Any) -> dict[str, Any]:
    """Return a header whose input is described by another entry."""
    x = {"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]} | entry
    return header(steps=[{"step": "Forward", "x": x}])


def backward(of: Any = -1, wrt: Any = ("input",), steps: int = 1, **entry: Any) -> dict[str, Any]:
    """Return a header with so many recorded forwards, and a backward whose dy is described by another entry."""
    x = {"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]}
    asked = {"step": "Forward", "x": x, "wrt": wrt}
    return header(steps=[*[asked] * steps, {"step": "Backward", "dy": x | entry, "of": of}])


def written(script: object, **members: Any) -> bytes:
    """Return a file with this script, as JSON unless it is a string, and these members."""
    buffer = io.BytesIO()
    text = script if isinstance(script, str) else json.dumps(script)
    np.savez(buffer, script=np.array(text), **{"array_0": np.zeros(2, np.float32)} | members)
    return buffer.getvalue()


def npz(**members: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Bomb:
    """Unpickling this is what must never happen."""

    def __reduce__(self) -> tuple[Callable[[str], NoReturn], tuple[str]]:
        return pytest.fail, ("a file was executed",)


BOMB = np.array([Bomb()], dtype=object)
DAMAGED = "not a case file, or a damaged one"

UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", DAMAGED),
    "random bytes": (bytes(range(256)), DAMAGED),
    "random bytes after a zip's magic": (b"PK\x03\x04" + bytes(range(256)), DAMAGED),
    "cut in half": (written(header())[: len(written(header())) // 2], DAMAGED),
    "without its last byte": (written(header())[:-1], DAMAGED),
    "a pickle": (pickle.dumps(Bomb()), DAMAGED),
    "an npy file": (npy(np.zeros(3)), DAMAGED),
    "an npy file of objects": (npy(BOMB), DAMAGED),
    "no script": (npz(array_0=np.zeros(2)), f"{DAMAGED} (KeyError: 'script is not a file in the archive')"),
    "a script of objects": (npz(script=BOMB), "Object arrays cannot be loaded"),
    "an array of objects": (
        written(header(), array_0=BOMB),
        "Object arrays cannot be loaded when allow_pickle=False",
    ),
    "not JSON": (written("{"), DAMAGED),
    "JSON without end": (written("[" * 100_000), DAMAGED),
    "JSON of another kind": (written([]), DAMAGED),
    "no format": (written({}), f"{DAMAGED} (KeyError: 'format')"),
    "another format": (written(header() | {"format": "recipe"}), "format 'recipe'; expected 'bn-spec case'"),
    "another version": (
        written(header() | {"version": 2}),
        "version 2 of the case format; this bn-spec reads 1",
    ),
    "no version": (written({"format": FORMAT}), f"{DAMAGED} (KeyError: 'version')"),
    "no case": (written({"format": FORMAT, "version": VERSION}), f"{DAMAGED} (KeyError: 'case')"),
    "a case that is null": (written({"format": FORMAT, "version": VERSION, "case": None}), DAMAGED),
    "a config that no layer has": (written(header(config={"num_features": 0})), "num_features is 0"),
    "a config with another argument": (written(header(config={"num_features": 1, "gamma": 1})), "gamma"),
    "a state with another tensor": (written(header(state={"gamma": None})), "gamma"),
    "a state that is a list": (written(header(state=[1])), DAMAGED),
    "an unknown step": (written(header(steps=[{"step": "Sideways"}])), "'Sideways'"),
    "a step without an argument": (written(header(steps=[{"step": "Backward"}])), "'dy'"),
    "a backward of no forward": (written(backward(steps=0)), "step 1: a backward of forward -1; the case has 0"),
    "a backward of a forward that is half": (written(backward(of=0.5)), DAMAGED),
    "a backward of what was not recorded": (written(backward(wrt=[])), "in which nothing requires a gradient"),
    "a dy of another shape": (written(backward(shape=[1, 1, 1, 1])), "step 2: dy has shape (1, 1, 1, 1)"),
    "a dy that reaches outside": (written(backward(shape=[3, 1, 1, 1])), "does not fit into 2 elements"),
    "a gradient for another tensor": (written(backward(wrt=["gamma"])), "gradient 'gamma' is not known"),
    "gradients of letters": (written(backward(wrt="input")), "gradient 'i' is not known"),
    "gradients that are null": (written(backward(wrt=None)), DAMAGED),
    "a step with another argument": (written(header(steps=[{"step": "Train", "mode": None}])), "mode"),
    "a step that is a number": (written(header(steps=[1])), DAMAGED),
    "a step that is a list": (written(header(steps=[[]])), DAMAGED),
    "steps that are null": (written(header(steps=None)), DAMAGED),
    "an array that is missing": (written(forward(array=7)), "array_7 is not a file in the archive"),
    "an index that is infinite": (written(forward(array=float("inf"))), DAMAGED),
    "strides that reach outside": (written(forward(strides=[2, 1, 1, 1])), "does not fit into 2 elements"),
    "strides that are negative": (written(forward(strides=[-1, 1, 1, 1])), "does not fit into 2 elements"),
    "a shape that is too large": (written(forward(shape=[3, 1, 1, 1])), "does not fit into 2 elements"),
    "a shape beyond any memory": (written(forward(shape=[10**30], strides=[0])), DAMAGED),
    "an array of an unknown dtype": (written(forward(dtype="quaternion")), DAMAGED),
    "an array of a dtype that is no float": (written(forward(dtype="int8")), DAMAGED),
    "a dtype that is a number": (written(forward(dtype=2)), DAMAGED),
    "strides of another length": (written(forward(strides=[1])), DAMAGED),
}


@pytest.mark.parametrize(("content", "sentence"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_case_file_is_refused_in_one_sentence_that_names_it(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "some file"
    path.write_bytes(content)
    with pytest.raises(CaseFileError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert sentence in str(refused.value)


def test_the_header_on_which_the_refusals_are_built_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "sound"
    path.write_bytes(written(header()))
    assert identical(load(path), Case(Config(1), None, (Forward(np.zeros((2, 1, 1, 1), np.float32)),)))


def test_so_is_the_one_with_a_backward(tmp_path: Path) -> None:
    path = tmp_path / "sound"
    path.write_bytes(written(backward()))
    zeros = np.zeros((2, 1, 1, 1), np.float32)
    assert identical(load(path), Case(Config(1), None, (Forward(zeros, ("input",)), Backward(zeros))))


def damaged(content: bytes) -> Iterator[bytes]:
    """Truncations of a file, and the files that differ from it in all bits of one byte."""
    for position, byte in enumerate(content):
        yield content[:position] + bytes([byte ^ 0xFF]) + content[position + 1 :]
        if position % 16 == 0:
            yield content[:position]


def test_a_file_damaged_in_any_one_byte_is_refused_or_still_the_same_case(tmp_path: Path) -> None:
    path = tmp_path / "case.npz"
    save(EVERY_STEP, path)
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        try:
            case = load(path)
        except CaseFileError:
            continue
        assert identical(case, EVERY_STEP)


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
    "a dy of another shape": (
        (ASKED, Backward(X[:2])),
        "step 2: dy has shape (2, 2, 2, 1); allowed: (3, 2, 2, 1)",
    ),
    "a dy of the shape of another forward": (
        (ASKED, Forward(X[:2], ("input",)), Backward(X)),
        "step 3: dy has shape (3, 2, 2, 1); allowed: (2, 2, 2, 1)",
    ),
    "a dy of another rank": ((ASKED, Backward(X[0])), "step 2: dy has shape (2, 2, 1); allowed: (3, 2, 2, 1)"),
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
