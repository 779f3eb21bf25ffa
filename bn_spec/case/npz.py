"""Case files: a case and notes about it in an npz archive, as a JSON script and plain arrays.

Reading a file executes nothing in it: there is no pickle.

The members are stored uncompressed, and this module reads them itself. NumPy would allocate the
size that the header of an array states; this module allocates no more memory than the file has.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from bn_spec.case.arrays import Parts, put_together
from bn_spec.case.dtypes import Array, format_named
from bn_spec.case.encoding import Fetch, Place, decode, encode, outline
from bn_spec.case.script import Case
from bn_spec.case.whole_files import written_whole
from bn_spec.errors import CaseFileError

FORMAT = "bn-spec case"
"""The entry ``format`` of the script of a case file."""

VERSION = 1
"""The entry ``version`` of the script: the version of the format."""

MOST_ELEMENTS = 2**24
"""Maximum number of elements of a tensor, and of channels of a layer, in a case file.

Playing a case makes several copies of its tensors.
"""

NOTHING: Mapping[str, str] = MappingProxyType({})
"""No notes about a case."""


def save(case: Case, path: str | os.PathLike[str], about: Mapping[str, str] = NOTHING) -> None:
    """Write a case file, completely or not at all.

    Args:
        case: The case.
        path: The file, which is replaced if it exists.
        about: Notes about the case, by name.

    Raises:
        CaseFileError: The case has more elements or channels than :data:`MOST_ELEMENTS`.
        OSError: The file cannot be written.

    """
    content = encoded(case, about)
    with written_whole(path) as file:
        file.write(content)


def load(path: str | os.PathLike[str]) -> Case:
    """Read a case that :func:`save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        CaseFileError: The file is damaged, of another version, or not a case file.

    """
    return load_with_notes(path)[0]


def load_with_notes(path: str | os.PathLike[str]) -> tuple[Case, dict[str, str]]:
    """Read a case and the notes about it that :func:`save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        CaseFileError: The file is damaged, of another version, or not a case file.

    """
    with Path(path).open("rb") as file:
        try:
            return decoded(file.read())
        except CaseFileError as error:
            raise CaseFileError(f"{path}: {error}") from error.__cause__


def encoded(case: Case, about: Mapping[str, str] = NOTHING) -> bytes:
    """Return the content of a case file; the same bytes for the same case and notes.

    Raises:
        CaseFileError: The case has more elements or channels than :data:`MOST_ELEMENTS`.

    """
    _check_size(case)
    arrays: list[Array] = []
    script = encode(case, _placed_in(arrays))
    header = json.dumps(
        {"format": FORMAT, "version": VERSION, "about": dict(about), "case": script}
    )
    members = {f"array_{i}": a for i, a in enumerate(arrays)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, script=np.array(header), **members)
    return buffer.getvalue()


def decoded(content: bytes) -> tuple[Case, dict[str, str]]:
    """Return the case and the notes about it from the content of a case file.

    Raises:
        CaseFileError: The content is damaged, of another version, or not that of a case file.

    """
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(content):
                raise CaseFileError("the stated sizes of its members exceed the size of the file")
            members = _Members(archive)
            header = json.loads(str(members["script"]))
            if header["format"] != FORMAT:
                raise CaseFileError(f"format {header['format']!r}; expected {FORMAT!r}")
            if header["version"] != VERSION:
                raise CaseFileError(
                    f"version {header['version']!r} of the case format;"
                    f" this bn-spec reads version {VERSION}"
                )
            about = {str(name): str(value) for name, value in header.get("about", {}).items()}
            case = decode(header["case"], _fetched_from(members))
    except CaseFileError:
        raise
    except Exception as e:  # zipfile, zlib, json and NumPy raise anything on damaged bytes
        raise CaseFileError(f"not a case file, or a damaged one ({type(e).__name__}: {e})") from e
    _check_size(case)
    return case, about


class _Members:
    """The arrays of an archive by name, none of them larger than its member."""

    def __init__(self, archive: ZipFile) -> None:
        self.archive = archive

    def __getitem__(self, name: str) -> Array:
        info = self.archive.getinfo(f"{name}.npy")
        if info.compress_type != ZIP_STORED:
            raise CaseFileError(f"{name} is compressed; members of a case file are stored as is")
        content = self.archive.read(info)
        file = io.BytesIO(content)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise CaseFileError(f"{name} has Python objects as elements; allowed: numbers")
        present, stated = len(content) - file.tell(), prod(shape) * dtype.itemsize
        if present != stated:
            raise CaseFileError(
                f"{name} has {present} bytes of elements;"
                f" expected {stated} for the shape {shape} in its header"
            )
        return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape).copy()


def _check_size(case: Case) -> None:
    """Raise CaseFileError if a tensor has too many elements, or the layer too many channels."""
    channels = case.config.num_features
    if channels > MOST_ELEMENTS:
        raise CaseFileError(f"a layer has {channels} channels; allowed: {MOST_ELEMENTS}")
    largest = max((prod(a.shape) for a in _tensors(case)), default=0)
    if largest > MOST_ELEMENTS:
        raise CaseFileError(f"a tensor has {largest} elements; allowed: {MOST_ELEMENTS}")


def _tensors(case: Case) -> Iterator[Array]:
    """Yield all arrays of a case."""
    if case.state is not None:
        yield from case.state.tensors().values()
    for step in case.steps:
        for field in fields(step):
            value = getattr(step, field.name)
            if isinstance(value, np.ndarray):
                yield value


def _placed_in(arrays: list[Array]) -> Place:
    """Return a :data:`bn_spec.case.encoding.Place` that appends flat arrays to a list."""

    def place(a: Array) -> dict[str, Any]:
        flat, outlined = outline(a)
        # The order of the keys is part of the content, whose hash is the id of a stored case.
        entry = {"array": len(arrays), **outlined}
        if flat.dtype.kind == "V":
            # An npz archive can only have NumPy's own dtypes, so bfloat16 is stored as its bits.
            entry["dtype"] = flat.dtype.name
            flat = flat.view(f"u{flat.itemsize}")
        arrays.append(flat)
        return entry

    return place


def _fetched_from(members: _Members) -> Fetch:
    """Return a :data:`bn_spec.case.encoding.Fetch` that reads flat arrays from an archive."""

    def fetch(entry: dict[str, Any]) -> Array:
        flat = members[f"array_{int(entry['array'])}"]
        if "dtype" in entry:
            flat = flat.view(format_named(entry["dtype"]).dtype)
        shape, strides = tuple(map(int, entry["shape"])), tuple(map(int, entry["strides"]))
        return put_together(Parts(flat, shape, strides))

    return fetch
