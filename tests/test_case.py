"""Cases survive being printed and being saved, bit for bit; what is no case file is refused in a sentence."""

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import Case, CaseFileError, Config, State
from bn_spec.case import (
    FORMAT,
    LONGEST_LISTING,
    VERSION,
    Eval,
    Forward,
    ResetParameters,
    ResetRunningStats,
    Train,
    identical,
    load,
    save,
    source,
)
from bn_spec.dtypes import DTYPES, Array
from bn_spec.strategies import ABSENT, LAYOUT, PARAMETER_STYLES, RUNNING, cases, shapes
from bn_spec.strategies.cases import HISTORY_WORDS

from .common import examples, printed_and_read

HISTORIES = st.lists(st.sampled_from(HISTORY_WORDS), max_size=4).map(lambda words: ("forward", *words))


def drawn(shape: Any = shapes("tiny", "different")) -> st.SearchStrategy[Case]:  # noqa: B008 - immutable
    """Cases of every dtype, of any history and layout, with statistics that need not be finite."""
    return st.builds(lambda dtype, history: (dtype, history), st.sampled_from(tuple(DTYPES)), HISTORIES).flatmap(
        lambda pair: cases(
            dtype=pair[0],
            history=pair[1],
            shape=shape,
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
EXPANDED = Case(Config(2), None, (Forward(np.broadcast_to(np.float32(0.1), (2, 2, 3, 3))),))
EMPTY = Case(Config(2), None, (Forward(np.zeros((0, 2, 3, 3), np.float32)),))
SCALAR = Case(Config(2), None, (Forward(np.array(1.5, np.float32)),))
LARGE = Case(Config(2), None, (Forward(LAYOUT["sliced"](np.ones((LONGEST_LISTING, 2, 1, 1), np.float32))),))

CASES = [
    pytest.param(EVERY_STEP, id="every step"),
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
    ],
)
def test_cases_that_differ_anywhere_are_not_identical(other: Case) -> None:
    assert identical(altered(), altered())
    assert not identical(altered(), other)


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
    "an unknown step": (written(header(steps=[{"step": "Backward"}])), "'Backward'"),
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
