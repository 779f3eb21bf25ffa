"""Case files: written whole, read back identically, and harmless whatever is in them."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given

from bn_spec import Case, CaseFileError, Config, State
from bn_spec.case.layouts import PLACED
from bn_spec.case.npz import MOST_ELEMENTS, encoded, load, load_with_notes, save
from bn_spec.case.script import identical
from bn_spec.case.steps import Backward, Forward
from bn_spec.strategies import shapes
from tests.case_files import HUNGRY, UNREADABLE, backward, header, written
from tests.common import examples
from tests.process import REPOSITORY, python
from tests.unusual_cases import CASES, EVERY_STEP, LARGE, any_case, every_half


def test_a_drawn_case_is_loaded_identically_from_its_file(tmp_path: Path) -> None:
    @examples(100)
    @given(any_case(shapes("tiny", "different", "small")))
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
def test_every_half_precision_number_is_loaded_from_its_file_with_its_strides(
    dtype: str, tmp_path: Path
) -> None:
    every = every_half(dtype)
    weight, bias, mean, var = every.reshape(4, -1)
    state = State(weight, bias, mean, var, np.array(0))
    laid = PLACED["cropped"](every.reshape(2, 2**13, 2, 2))
    case = Case(Config(2**14, dtype=dtype), state, (Forward(laid),))
    save(case, tmp_path / "case.npz")
    loaded = load(tmp_path / "case.npz")
    assert identical(loaded, case)
    assert next(loaded.forwards()).dtype == np.dtype(dtype)


def test_cases_of_one_bit_pattern_in_two_formats_are_not_identical() -> None:
    ones = np.ones((2, 1, 1, 1), np.float16)
    half, brain = (
        Case(Config(1), None, (Forward(x),)) for x in (ones, ones.view(np.dtype("bfloat16")))
    )
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
    assert identical(
        load(path), Case(Config(1), None, (Forward(np.zeros((2, 1, 1, 1), np.float32)),))
    )


def test_so_is_the_one_with_a_backward(tmp_path: Path) -> None:
    path = tmp_path / "sound"
    path.write_bytes(written(backward()))
    zeros = np.zeros((2, 1, 1, 1), np.float32)
    assert identical(
        load(path), Case(Config(1), None, (Forward(zeros, ("input",)), Backward(zeros)))
    )


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


@pytest.mark.parametrize(("content", "sentence"), HUNGRY.values(), ids=HUNGRY)
def test_a_file_that_asks_for_more_memory_than_it_has_is_refused(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "some file"
    path.write_bytes(content)
    with pytest.raises(CaseFileError) as refused:
        load(path)
    assert sentence in str(refused.value)


def test_what_nobody_could_load_is_not_saved(tmp_path: Path) -> None:
    many = Case(
        Config(1), None, (Forward(np.broadcast_to(np.float32(1), (MOST_ELEMENTS + 1, 1, 1, 1))),)
    )
    with pytest.raises(
        CaseFileError, match=f"a tensor has {MOST_ELEMENTS + 1} elements; allowed: {MOST_ELEMENTS}"
    ):
        save(many, tmp_path / "case.npz")
    assert not list(tmp_path.iterdir())


def test_what_was_said_about_a_case_is_read_back(tmp_path: Path) -> None:
    about = {"requirement": "RUN-03", "backend": "it's «mine»"}
    save(EVERY_STEP, tmp_path / "case.npz", about)
    case, notes = load_with_notes(tmp_path / "case.npz")
    assert identical(case, EVERY_STEP)
    assert notes == about


def test_the_same_case_gives_the_same_bytes() -> None:
    assert encoded(EVERY_STEP, {"a": "b"}) == encoded(EVERY_STEP, {"a": "b"})
    assert encoded(EVERY_STEP) != encoded(LARGE)


HOSTILE = """
import random, resource, sys
from bn_spec.case.npz import CaseFileError, decoded, encoded
from tests.unusual_cases import CASES
from tests.case_files import HUNGRY, UNREADABLE

sound = [encoded(case.values[0]) for case in CASES]
bad = [content for content, _ in (*HUNGRY.values(), *UNREADABLE.values())]
generator = random.Random(0)


def mutated(content):
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8, 64))):
        if not content:
            break
        at, kind = generator.randrange(len(content)), generator.randrange(5)
        if kind == 0:
            content[at] = generator.randrange(256)
        elif kind == 1:
            del content[at : at + generator.randrange(64)]
        elif kind == 2:
            content[at:at] = generator.randbytes(generator.randrange(64))
        elif kind == 3:
            numbers = (b"\\xff" * 4, b"\\x00" * 4, b"9999", b"\\x7f\\xff\\xff\\xff")
            content[at : at + 4] = generator.choice(numbers)
        else:
            other = generator.choice(sound)
            content[at:] = other[min(at, len(other)) :]
    return bytes(content)


def audit(event, args):
    if event in ("exec", "compile", "import", "os.system", "subprocess.Popen", "pickle.find_class"):
        if watching and not (event == "compile" or event == "exec" and "ast" in str(args)):
            print("EXECUTED", event, args)


watching = False
sys.addaudithook(audit)
for content in sound + bad:  # what is imported once is imported now
    try:
        decoded(content)
    except CaseFileError:
        pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
watching, refused = True, 0
for _ in range(10_000):
    try:
        decoded(mutated(generator.choice(sound + bad)))
    except CaseFileError:
        refused += 1
watching = False
print(refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_ten_thousand_hostile_files_neither_run_nor_crash_nor_fill_the_memory(
    tmp_path: Path,
) -> None:
    done = python("-c", HOSTILE, cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert "EXECUTED" not in done.stdout
    refused, megabytes = map(int, done.stdout.split())
    assert refused > 8000
    assert megabytes < 200
